# SPDX-License-Identifier: MIT
"""Markdown tables, and the marked sections of files that hold them."""

from . import rows
from .results import ResultsError, number


def ratio(a, b):
    """"12.3×" less or more, told as a factor of b."""
    if not a or not b:
        return "–"
    quotient = a / b
    return f"{quotient:.2f}" if quotient >= 0.1 else f"1/{1 / quotient:,.0f}"


def markdown(head, lines):
    """All columns but the first are numbers."""
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def cells(results, row):
    linux, dune = results.value(row.linux), results.value(row.dune)
    return [row.title, number(linux), number(dune), ratio(dune, linux), number(results.exits(row.dune))]


def paper_table(results):
    """The rows of the paper's tables 2 and 3, with its numbers beside."""
    head = ["", "Linux", "Dune", "Dune / Linux", "VM exits", "paper: Linux", "paper: Dune", "paper: Dune / Linux"]
    return markdown(head, [cells(results, row) + [number(row.paper[0]), number(row.paper[1]), ratio(row.paper[1], row.paper[0])]
                           for row in rows.PAPER])


def more_tables(results):
    for title, members in rows.MORE:
        there = [row for row in members if results.value(row.dune) is not None]
        if there:
            yield f"**{title}**"
            yield ""
            yield from markdown(["", "Linux", "Dune", "Dune / Linux", "VM exits"], [cells(results, row) for row in there])
            yield ""


def walk_table(results):
    """Page-table memory of the page walks, in KiB."""
    lines = []
    for name in results.cases:
        if not name.startswith("page_walk/linux/"):
            continue
        dune = name.replace("linux", "dune")
        _, _, page, size = name.split("/")
        kib = [results.value(case, counter) for case, counter in
               ((name, "linux_table_bytes"), (dune, "linux_table_bytes"), (dune, "nested_table_bytes"))]
        lines.append([f"{size[:-1]} MiB in {page.replace('k', ' KiB').replace('m', ' MiB')} pages", number(results.value(name)),
                      number(results.value(dune))] + [number(each / 1024 if each is not None else None) for each in kib])
    return markdown(["", "a step, Linux", "a step, Dune", "tables, Linux (KiB)", "Linux' in Dune (KiB)", "EPT (KiB)"], lines)


def scaling_table(results, operation, systems):
    sizes = sorted({int(name.rsplit("/", 1)[1]) for name in results.cases if name.startswith(operation + "/")})
    return markdown([operation] + [f"{size:,}" for size in sizes],
                    [[system.replace("_", ", ")] + [number(results.value(f"{operation}/{system}/{size}")) for size in sizes]
                     for system in systems])


def goal_table(results):
    lines = []
    for goal in rows.GOALS:
        measured = goal.measured(results)
        if measured is None:
            verdict = "not measured"
        elif measured <= goal.limit:
            verdict = "held"
        else:
            verdict = f"missed by {100 * (measured / goal.limit - 1):.0f}%" + (f": {goal.why}" if goal.why else "")
        exact = f"{measured:.2f}" if measured is not None and goal.limit < 10 else number(measured)
        lines.append([goal.part, goal.title, f"≤ {goal.limit:,}", exact, verdict])
    yield "| part | goal | limit | measured | |"
    yield "|---|---|---:|---:|---|"
    yield from ("| " + " | ".join(line) + " |" for line in lines)


def hardened_table(results, hardened):
    """The module's rows with default mitigations."""
    lines = []
    for name in hardened.cases:
        plain, hard = results.value(name), hardened.value(name)
        lines.append([f"`{name}`", number(plain), number(hard), ratio(hard, plain)])
    return markdown(["", "mitigations=off", "mitigations on, KPTI", "on / off"], lines)


def matrix_table(measured):
    """What the module aims at, a line a machine; what is above its goal is bold."""
    yield from markdown(["", *(title for title, _, _ in rows.MATRIX)],
                        [["*goal, on 6.1 with mitigations=off*", *("–" if limit is None else f"≤ {limit:,}" for _, limit, _ in rows.MATRIX)],
                         *([name, *(matrix_cell(results, limit, of) for _, limit, of in rows.MATRIX)]
                           for name, results in measured.items())])


def matrix_cell(results, limit, measured):
    value = measured(results)
    text = number(value)
    return f"**{text}**" if limit is not None and value is not None and value > limit else text


WALK_NOTE = "(a) In the emulator a TLB miss costs nothing: what counts there is page-table memory, see docs/performance.md."
NOTES = """(b) Neither flushing nor refilling the TLB costs an instruction.
(c) From exec to wait, start of the sandbox included."""


def provenance(results):
    context = results.context
    where = "in the project's emulator, which counts **instructions**" if results.emulator else "on hardware, in **cycles**"
    return (f"Measured {where}, on Linux {context.get('kernel', '?')} ({context.get('cpu', '?')}), medians; "
            f"the paper's numbers are cycles on a Xeon X3460 under Linux 3.0. "
            + ("An instruction is no cycle: a VM exit counts as one or two here and takes about a thousand cycles."
               if results.emulator else ""))


def sections(results, hardened=None):
    """What each marked section of a file is to hold."""
    made = {
        "provenance": [provenance(results)],
        "paper": [*paper_table(results), *(["", WALK_NOTE] if results.emulator else [])],
        "more": list(more_tables(results)) + NOTES.replace("\n", "\n\n").splitlines(),
        "walks": list(walk_table(results)),
        "scaling": [line for operation, systems in (("appel1", ("linux", "dune", "dune_pte")), ("appel2", ("linux", "dune", "dune_pte")),
                                                    ("getpid_threads", ("linux", "dune")))
                    for line in [*scaling_table(results, operation, systems), ""]],
        "goals": list(goal_table(results)),
    }
    if hardened:
        made["hardened"] = list(hardened_table(results, hardened))
    return made


def fill(path, made):
    """Put sections into a file, between <!-- bench:NAME --> and <!-- bench:end -->."""
    text = path.read_text(encoding="utf-8")
    out, skipping = [], False
    for line in text.splitlines():
        if line.startswith("<!-- bench:") and line != "<!-- bench:end -->":
            if skipping:
                raise ResultsError(f"{path}: a section begins in another: {line}")
            name = line[len("<!-- bench:"):-len(" -->")]
            out.append(line)
            if name in made:
                out += made[name]
                skipping = True
        elif line == "<!-- bench:end -->":
            skipping = False
            out.append(line)
        elif not skipping:
            out.append(line)
    if skipping:
        raise ResultsError(f"{path}: a section has no <!-- bench:end -->")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")
