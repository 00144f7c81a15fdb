#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run_row.py against a machine that is a script: it dies, hangs, or can't be had."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
from contextlib import redirect_stdout
from unittest import mock

import matrix
import run_row

HARNESS = pathlib.Path(run_row.__file__).parent

# Stands in for scripts/machine: "runs" the list that is copied in. A case named
# S.dies ends the machine, S.hangs stops it, S.fails fails.
FAKE_MACHINE = r"""#!/usr/bin/env python3
import sys, time
args = sys.argv[1:]
if args[0] == "headers":
    print("{headers_says}")
    sys.exit(1 if "{headers_says}" else 0)
if args[0] == "module":
    sys.exit({module_status})
if {boots} is False:
    print("no disk space for the machine")
    sys.exit(1)
folder = args[args.index("--copy-in") + 1].split(":")[0]
leaked = []
for line in open(folder + "/list"):
    program, case, _ = line.rstrip("\n").split("\t")
    if case == "cycle" and (leaked if {leak_alone} else len(leaked) > 1):
        print("@vm begin module cycle\n@vm | busy\n@vm end module cycle fail 1", flush=True)
        leaked = []
        continue
    leaked = [] if case == "cycle" else leaked + [case] * case.startswith("S.leaks")
    print("@vm begin", program, case, flush=True)
    if case == "S.dies":
        print("Kernel panic - not syncing")
        sys.exit(4)
    if case == "S.hangs":
        time.sleep(600)
    if case == "S.fails":
        print("@vm | expected this")
    print("@vm end", program, case, "fail" if case == "S.fails" else "pass", 1, flush=True)
print("@vm done")
sys.exit({status})
"""


PROGRAMS = "abcdef"


class RunRowTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.build_vm = self.root / "build" / "release" / "vm"
        for part in ("stage", "cases"):
            (self.build_vm / part).mkdir(parents=True)
        strip = mock.patch.object(run_row, "strip_module", shutil.copy)  # it is no real one
        strip.start()
        self.addCleanup(strip.stop)
        for program in ("dune-vm-runner", *PROGRAMS):
            (self.build_vm / "stage" / program).write_text("")
        module = self.root / "build" / "kern" / "6.1"
        module.mkdir(parents=True)
        (module / "dune.ko").write_text("")

    def run_cases(self, *cases, optional=False, boots=True, headers_says="", module_status=0,
                  status=0, leak_alone=True, grace=30, more=()):
        programs = [cases, *more]
        for program, names in zip(PROGRAMS, programs):
            (self.build_vm / "cases" / program).write_text("\n".join(names) + "\n")
        (self.build_vm / "tests.json").write_text(json.dumps(
            [{"name": program, "timeout": 1} for program in PROGRAMS[:len(programs)]]))
        machine = self.root / "machine"
        machine.write_text(FAKE_MACHINE.format(boots=boots, headers_says=headers_says,
                                               module_status=module_status, status=status,
                                               leak_alone=leak_alone))
        machine.chmod(0o755)
        row = matrix.Row("r", "6.1", optional=optional)
        tests = matrix.load_tests(self.build_vm)
        environment = {k: v for k, v in os.environ.items() if k != "DUNE_VM_FILTER"}
        with mock.patch.multiple(run_row, MACHINE=machine, GRACE_S=grace, START_LIMIT_S=30), \
                mock.patch.object(matrix, "ROOT", self.root), \
                mock.patch.dict(os.environ, environment, clear=True), \
                redirect_stdout(io.StringIO()):
            run_row.RowRun(self.build_vm, row, "main", tests).run()

    def look_up(self, case, program="a"):
        path = matrix.result_path(self.build_vm, "r", "main", program, case)
        done = subprocess.run([HARNESS / "case", path], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def test_pass_and_fail(self):
        self.run_cases("S.one", "S.fails", "P/S.two/0")
        self.assertEqual(self.look_up("S.one"), (0, ""))
        self.assertEqual(self.look_up("P/S.two/0"), (0, ""))
        self.assertEqual(self.look_up("S.fails"), (1, "expected this\n"))

    def test_a_dead_machine_costs_one_test(self):
        self.run_cases("S.one", "S.dies", "S.two")
        self.assertEqual(self.look_up("S.one")[0], 0)
        self.assertEqual(self.look_up("S.two")[0], 0)
        status, text = self.look_up("S.dies")
        self.assertEqual(status, 1)
        self.assertIn("Kernel panic - not syncing", text)
        self.assertIn("the machine ended (status 4)", text)

    def test_a_hung_machine_costs_one_test(self):
        # Long enough for what does not hang, on a host that stands still for a moment.
        self.run_cases("S.hangs", "S.two", grace=4)
        status, text = self.look_up("S.hangs")
        self.assertEqual(status, 1)
        self.assertIn("the machine hung", text)
        self.assertEqual(self.look_up("S.two"), (0, ""))

    def test_machines_that_keep_dying_are_given_up(self):
        with mock.patch.object(run_row, "MAX_STARTS", 1):
            self.run_cases("S.dies", "S.two")
        status, text = self.look_up("S.two")
        self.assertEqual(status, 1)
        self.assertIn("not run", text)

    def test_a_leak_fails_the_test_that_caused_it(self):
        self.run_cases("S.one", "S.leaks", "S.two")
        self.assertEqual(self.look_up("S.one")[0], 0)
        self.assertEqual(self.look_up("S.two")[0], 0)
        status, text = self.look_up("S.leaks")
        self.assertEqual(status, 1)
        self.assertIn("unloaded after this test:\nbusy", text)

    def test_a_leak_in_one_program_of_several(self):
        self.run_cases("S.one", more=[("S.two",), ("S.leaks", "S.three"), ("S.four",), ("S.five",)])
        for program, case in [("a", "S.one"), ("b", "S.two"), ("c", "S.three"), ("d", "S.four"),
                              ("e", "S.five")]:
            self.assertEqual(self.look_up(case, program), (0, ""))
        status, text = self.look_up("S.leaks", "c")
        self.assertEqual(status, 1)
        self.assertIn("unloaded after this test:\nbusy", text)

    def test_leaks_in_two_programs(self):
        self.run_cases("S.one", "S.leaks", more=[("S.leaks",), ("S.two",)])
        self.assertEqual(self.look_up("S.one")[0], 0)
        self.assertEqual(self.look_up("S.two", "c")[0], 0)
        for program in "ab":
            self.assertEqual(self.look_up("S.leaks", program)[0], 1)

    def test_a_leak_of_two_programs_together(self):
        self.run_cases("S.leaks1", more=[("S.leaks2", "S.two"), ("S.three",), ("S.four",), ("S.five",)],
                       leak_alone=False)
        self.assertEqual(self.look_up("S.five", "e")[0], 0)
        status, text = self.look_up("S.four", "d")
        self.assertEqual(status, 1)
        self.assertIn("after all tests of a, b, c, d:\nbusy\n--- no test does it alone", text)

    def test_a_leak_that_no_test_causes_alone(self):
        self.run_cases("S.leaks1", "S.leaks2", "S.two", leak_alone=False)
        self.assertEqual(self.look_up("S.leaks1")[0], 0)
        status, text = self.look_up("S.two")
        self.assertEqual(status, 1)
        self.assertIn("no test does it alone", text)

    def test_the_module_is_unloaded_after_the_last_program_too(self):
        with mock.patch.object(run_row, "PROGRAMS_A_CYCLE", 2):
            lines = run_row.list_lines([(matrix.Test(name), case) for name in "abc"
                                        for case in ("S.one", "S.two")], each=False)
        self.assertEqual("".join(line[0] for line in lines), "aabbmccm")

    def test_no_machine(self):
        with self.assertRaisesRegex(run_row.RowError, "no disk space for the machine"):
            self.run_cases("S.one", boots=False)
        status, text = self.look_up("S.one")
        self.assertEqual(status, 1)
        self.assertIn("no result", text)

    def test_a_complaint_after_the_last_test_fails_the_machine(self):
        with self.assertRaisesRegex(run_row.RowError, "complained"):
            self.run_cases("S.one", status=125)

    def test_optional_kernel_that_cannot_be_had(self):
        self.run_cases("S.one", optional=True, headers_says="trixie has no kernel 7.3 any more")
        status, text = self.look_up("S.one")
        self.assertEqual(status, 77)
        self.assertIn("can't be had", text)

    def test_optional_kernel_with_a_fault_in_its_unpacking(self):
        with self.assertRaisesRegex(run_row.RowError, "No such file"):
            self.run_cases("S.one", optional=True, headers_says="No such file: vmlinuz")

    def test_optional_kernel_with_a_module_that_does_not_build(self):
        with self.assertRaisesRegex(run_row.RowError, "no module"):
            self.run_cases("S.one", optional=True, module_status=1)

    def test_needed_kernel_that_cannot_be_had(self):
        with self.assertRaisesRegex(run_row.RowError, "no module"):
            self.run_cases("S.one", headers_says="cannot fetch packages")


if __name__ == "__main__":
    unittest.main()
