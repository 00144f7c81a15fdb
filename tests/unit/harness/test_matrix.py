#!/usr/bin/env python3
# SPDX-License-Identifier: MIT

import json
import pathlib
import tempfile
import unittest

import entries
import matrix


def rows_from(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "matrix.json"
        path.write_text(json.dumps({"rows": rows}))
        return matrix.load_rows(path)


class MatrixTest(unittest.TestCase):
    def test_the_projects_own_matrix(self):
        rows = matrix.load_rows()
        default = [row for row in rows.values() if not row.extended]
        for kernel in ("6.1", "6.12"):
            for cpus in ("1", "2"):
                for kvm in ("absent", "loaded"):
                    self.assertTrue(
                        any(row.kernel == kernel and self.has(row, "--cpus", cpus)
                            and self.has(row, "--kvm", kvm) for row in default),
                        f"no row for {kernel}, {cpus} CPUs, kvm {kvm}")
        self.assertTrue(any(row.kernel == "7.3" and row.optional for row in default))
        self.assertTrue(any(self.has(row, "--cpu", "corei5_lynnfield_750") for row in default))

    @staticmethod
    def has(row, option, value):
        return (option, value) in zip(row.machine, row.machine[1:])

    def test_bad_rows_are_refused(self):
        for rows in ([{"name": "a", "kernel": "6.1", "colour": "red"}], [{"name": "a"}],
                     [{"name": "a", "kernel": "6.1"}] * 2,
                     [{"name": "a", "kernel": "6.1", "set": "some"}]):
            with self.assertRaises(matrix.MatrixError):
                rows_from(rows)

    def test_module_args(self):
        row = rows_from([{"name": "a", "kernel": "6.1", "machine": ["--module-args", "x=1 y=2"]}])
        self.assertEqual(row["a"].module_args(), "x=1 y=2")

    def test_groups_by_row(self):
        row = rows_from([{"name": "6.1-2cpu", "kernel": "6.1"}])["6.1-2cpu"]
        tests = [matrix.Test("everywhere"), matrix.Test("smp", rows="-2cpu"),
                 matrix.Test("single", rows="-1cpu"), matrix.Test("big", group="large")]
        names = {g: [t.name for t in ts] for g, ts in matrix.groups(tests, row).items()}
        self.assertEqual(names, {"main": ["everywhere", "smp"], "large": ["big"]})

    def test_long_groups_start_first(self):
        quick, slow = (rows_from([{"name": "a", "kernel": "6.1", "pace": pace}])["a"] for pace in (1, 2))
        few = [matrix.Test("a", plain=True)]
        many = few * 20
        patient = [matrix.Test("b", plain=True, timeout=900)]
        costs = [matrix.cost(None, row, tests)
                 for row, tests in ((quick, few), (slow, few), (quick, patient), (quick, many), (slow, many))]
        self.assertEqual(costs, sorted(set(costs)))

    def test_one_group_has_one_machine(self):
        stated = matrix.Test("a", group="g", machine=("--memory", "512"))
        silent = matrix.Test("b", group="g")
        other = matrix.Test("c", group="g", machine=("--memory", "1024"))
        self.assertEqual(matrix.group_machine_args("g", [stated, silent]), ["--memory", "512"])
        with self.assertRaises(matrix.MatrixError):
            matrix.group_machine_args("g", [stated, silent, other])


class EntriesTest(unittest.TestCase):
    def test_quoting_and_fixtures(self):
        with tempfile.TemporaryDirectory() as folder:
            build_vm = pathlib.Path(folder)
            (build_vm / "cases").mkdir()
            (build_vm / "cases" / "a").write_text("S.one\nP/S.two/0\n")
            row = rows_from([{"name": "r", "kernel": "6.1", "set": "extended"}])["r"]
            lines = entries.group_entries(build_vm, row, "main", [matrix.Test("a")])
        text = "\n".join(lines)
        self.assertIn('add_test("vm.r.main.machine"', text)
        self.assertIn('add_test("vm.r.a.S.one"', text)
        self.assertIn("results/r/main/a/P%S.two%0", text)
        self.assertEqual(text.count('FIXTURES_REQUIRED "vm.r.main"'), 2)
        self.assertEqual(text.count('LABELS "vm;r;extended"'), 3)
        self.assertEqual(entries.quote('a"$b\\'), '"a\\"\\$b\\\\"')


if __name__ == "__main__":
    unittest.main()
