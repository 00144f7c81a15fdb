# SPDX-License-Identifier: MIT
"""Plots, as SVG and PNG."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of a backend)

from . import rows  # noqa: E402

LINUX, DUNE, DUNE_2, PAPER = "#4c72b0", "#dd8452", "#937860", "#b0b0b0"
pyplot.rcParams.update({"svg.hashsalt": "dune", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False,
                        "font.size": 9, "axes.titlesize": 10})


def save(figure, folder, name):
    figure.tight_layout()
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        figure.savefig(folder / f"{name}.{kind}", dpi=150, metadata=metadata)
    pyplot.close(figure)


def short(title):
    return title.split(":")[0].split(",")[0]


def operations(results, folder):
    """Dune against Linux for each of the paper's operations, today and then."""
    there = [row for row in rows.PAPER if results.value(row.linux) and results.value(row.dune)]
    figure, axes = pyplot.subplots(figsize=(8, 4))
    bars = [(f"Linux, {results.unit}", LINUX, lambda row: results.value(row.linux)),
            (f"Dune, {results.unit}", DUNE, lambda row: results.value(row.dune)),
            ("paper: Linux, cycles", PAPER, lambda row: row.paper[0]),
            ("paper: Dune, cycles", "#707070", lambda row: row.paper[1])]
    for i, (label, colour, value) in enumerate(bars):
        axes.bar([at + 0.2 * i - 0.3 for at in range(len(there))], [value(row) for row in there], 0.19, label=label, color=colour)
    axes.set_yscale("log")
    axes.set_xticks(range(len(there)), [short(row.title) for row in there])
    axes.set_ylabel("an operation (less is better)")
    axes.set_title(f"The paper's operations, today in {results.unit} and then in cycles")
    axes.legend(frameon=False, ncols=2, loc="upper left")
    axes.set_ylim(top=axes.get_ylim()[1] * 8)
    save(figure, folder, "operations")


def exits(results, folder):
    """VM exits by reason, for every case of Dune that has any."""
    cases = [name for name in results.cases if "/dune" in name and (results.exits(name) or 0) >= 0.01
             and not name.startswith(("getpid_threads", "appel"))]
    if not cases:
        return
    reasons = sorted({reason for name in cases for reason in results.exit_reasons(name)})
    figure, axes = pyplot.subplots(figsize=(8, 0.24 * len(cases) + 1.2))
    left = [0.0] * len(cases)
    palette = [DUNE, LINUX, "#55a868", "#c44e52", "#8172b3", DUNE_2]
    for i, reason in enumerate(reasons):
        counts = [max(0, results.exit_reasons(name).get(reason, 0)) for name in cases]
        if max(counts) < 0.01:
            continue
        axes.barh(range(len(cases)), counts, left=left, label=reason.replace("_", " "), color=palette[i % len(palette)])
        left = [a + b for a, b in zip(left, counts)]
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("VM exits an operation; cases that are not here have none")
    axes.legend(frameon=False)
    save(figure, folder, "exits")


def curve(axes, results, operation, system, label, colour, style="-"):
    points = sorted((int(name.rsplit("/", 1)[1]), results.value(name)) for name in results.cases
                    if name.startswith(f"{operation}/{system}/"))
    if points:
        axes.plot(*zip(*points), style, marker="o", markersize=4, label=label, color=colour)


def appel(results, folder):
    figure, both = pyplot.subplots(1, 2, figsize=(8, 3.6), sharey=True)
    for axes, operation in zip(both, ("appel1", "appel2")):
        curve(axes, results, operation, "linux", "Linux", LINUX)
        curve(axes, results, operation, "dune", "Dune, dune_vm_mprotect()", DUNE)
        curve(axes, results, operation, "dune_pte", "Dune, entries changed by hand", DUNE_2, "--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("pages")
        axes.set_title(operation)
    both[0].set_ylabel(f"{results.unit} (less is better)")
    both[0].set_ylim(top=both[0].get_ylim()[1] * 30)  # room for the legend
    both[0].legend(frameon=False, loc="upper left")
    save(figure, folder, "appel")


def threads(results, folder):
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    curve(axes, results, "getpid_threads", "linux", "Linux", LINUX)
    curve(axes, results, "getpid_threads", "dune", "Dune", DUNE)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.set_xlabel("threads on one CPU" if results.emulator else "threads")
    axes.set_ylabel(f"{results.unit} for one getpid()")
    axes.legend(frameon=False, loc="lower right")
    save(figure, folder, "threads")


def draw(results, folder):
    for plot in (operations, exits, appel, threads):
        plot(results, folder)
