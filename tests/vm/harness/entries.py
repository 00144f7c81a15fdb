#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""entries.py VM-FOLDER FILE: writes the CTest entries of all rows, groups and cases."""

import pathlib
import sys

import matrix

HARNESS = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
MACHINE_TIMEOUT_S = 3600


def quote(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def entry(name, command, **properties):
    """The two CMake commands that make a CTest entry."""
    lines = [f"add_test({quote(name)} {' '.join(quote(word) for word in command)})"]
    pairs = " ".join(f"{key} {quote(value)}" for key, value in properties.items())
    lines.append(f"set_tests_properties({quote(name)} PROPERTIES {pairs})")
    return lines


def group_entries(build_vm, row, group, tests):
    """The start of the machine and the cases that it serves."""
    fixture = f"vm.{row.name}.{group}"
    labels = ["vm", row.name] + (["extended"] if row.extended else [])
    lines = entry(f"{fixture}.machine",
                  [sys.executable, HARNESS / "run_row.py", build_vm, row.name, group],
                  FIXTURES_SETUP=fixture, LABELS=";".join(labels),
                  TIMEOUT=MACHINE_TIMEOUT_S, COST=matrix.cost(build_vm, row, tests))
    for test in tests:
        for case in test.cases(build_vm):
            suffix = "" if test.plain else f".{case}"
            lines += entry(f"vm.{row.name}.{test.name}{suffix}",
                           [HARNESS / "case",
                            matrix.result_path(build_vm, row.name, group, test.name, case)],
                           FIXTURES_REQUIRED=fixture, LABELS=";".join(labels + list(test.labels)),
                           SKIP_RETURN_CODE=SKIPPED, TIMEOUT=30)
    return lines


def main():
    build_vm, output = map(pathlib.Path, sys.argv[1:3])
    tests = matrix.load_tests(build_vm)
    lines = ["# Generated from tests/matrix.json."]
    try:
        for row in matrix.load_rows().values():
            for group, members in matrix.groups(tests, row).items():
                matrix.group_machine_args(group, members)
                lines += group_entries(build_vm, row, group, members)
    except matrix.MatrixError as error:
        sys.exit(f"tests/matrix.json: {error}")
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
