# SPDX-License-Identifier: MIT
"""The rows of tests/matrix.json, the tests of a build, and which runs where."""

import dataclasses
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLAIN_CASE = "-"


class MatrixError(Exception):
    """The matrix or the list of tests is not usable; the text says why."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One machine that the tests run in."""

    name: str
    kernel: str
    machine: tuple = ()
    set: str = "default"
    optional: bool = False
    pace: float = 1

    @property
    def extended(self):
        return self.set == "extended"

    def module_args(self):
        """What the machine loads the module with: the harness loads it again with the same."""
        if "--module-args" not in self.machine:
            return ""
        return self.machine[self.machine.index("--module-args") + 1]


@dataclasses.dataclass(frozen=True)
class Test:
    """One test program, as dune_add_vm_test() described it."""

    name: str
    group: str = "main"
    plain: bool = False
    rows: str = ""
    timeout: int = 60
    programs: tuple = ()
    machine: tuple = ()
    labels: tuple = ()

    def runs_in(self, row):
        return re.search(self.rows, row.name) is not None

    def cases(self, build_vm):
        if self.plain:
            return [PLAIN_CASE]
        return (build_vm / "cases" / self.name).read_text().split()


def _from_json(kind, entry):
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = set(entry) - known
    if unknown:
        raise MatrixError(f"{kind.__name__.lower()} {entry.get('name')}: unknown key {min(unknown)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def load_rows(path=ROOT / "tests" / "matrix.json"):
    """All rows by name, in the file's order."""
    rows = {}
    for entry in json.loads(path.read_text())["rows"]:
        try:
            row = _from_json(Row, entry)
        except TypeError as error:
            raise MatrixError(f"row {entry}: {error}") from error
        if row.name in rows:
            raise MatrixError(f"row {row.name} is there twice")
        if row.set not in ("default", "extended"):
            raise MatrixError(f"row {row.name}: unknown set {row.set}")
        rows[row.name] = row
    return rows


def load_tests(build_vm):
    """The tests of the build whose vm/ folder is given."""
    return [_from_json(Test, entry) for entry in json.loads((build_vm / "tests.json").read_text())]


def groups(tests, row):
    """{group: [test, ...]} of those that run in a row."""
    found = {}
    for test in tests:
        if test.runs_in(row):
            found.setdefault(test.group, []).append(test)
    return found


def group_machine_args(group, tests):
    """The arguments that a group's tests ask for: one of them states them, or all the same."""
    stated = {test.machine for test in tests if test.machine}
    if len(stated) > 1:
        raise MatrixError(f"group {group}: its tests ask for different machines: {sorted(stated)}")
    return list(stated.pop()) if stated else []


def cost(build_vm, row, tests):
    """What a group takes, roughly and in no unit, for CTest to start the long ones first:
    machines that end together, and no long one alone at the end."""
    return round(row.pace * sum(len(test.cases(build_vm)) + test.timeout / 4 for test in tests))


def result_path(build_vm, row_name, group, program, case):
    """Where a case's result lies: this with `.status` and `.log`."""
    file = case.replace("/", "%") if case != PLAIN_CASE else "plain"
    return build_vm / "results" / row_name / group / program / file
