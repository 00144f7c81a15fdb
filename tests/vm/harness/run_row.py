#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run_row.py VM-FOLDER ROW GROUP: runs a group of tests in one machine of the matrix.

Writes a result per case for the CTest entries of tests/vm. A case during which
the machine dies or hangs fails; a new machine goes on with the next. Exits with
0 when every case has a result, whatever it is, so that CTest looks at them.

DUNE_VM_FILTER (a regular expression over PROGRAM.CASE) runs fewer cases.
"""

import dataclasses
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import matrix
import protocol
from machine_lib import errors, paths

MACHINE = matrix.ROOT / "scripts" / "machine"
GUEST_DIR = "/dune-tests"
MAX_STARTS = 8
# The emulator, a kernel and a first state may have to be made before the first test runs.
START_LIMIT_S = 1800
# What scripts/machine says when packages can't be had; anything else is a fault of ours.
UNAVAILABLE = ("cannot fetch", "has no kernel", "has no package")
# After a case's own limit, which counts in the machine's time, and between cases.
GRACE_S = 60
# `scripts/machine run` is to end before CTest's own limit for this program does.
ROW_LIMIT_S = 3300


# The runner's word for unloading and loading the module.
CYCLE = ("module", "cycle")
# After so many programs: it takes as long as two or three cases do.
PROGRAMS_A_CYCLE = 4


class RowError(Exception):
    """No machine could be had; the text says why."""


class Skip(Exception):
    """This row can't be run here and is optional."""


def machine_output(*args):
    """Runs a sub-command of scripts/machine; returns (ok, output)."""
    done = subprocess.run([MACHINE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode == 0, done.stdout


def module_for(row):
    """Builds the module for the row's kernel if it is stale; returns its file."""
    ok, output = machine_output("headers", "--kernel", row.kernel)
    if not ok and row.optional and any(words in output for words in UNAVAILABLE):
        raise Skip(f"kernel {row.kernel} can't be had here:\n{output}")
    if ok:
        ok, output = machine_output("module", "--kernel", row.kernel)
    if not ok:
        raise RowError(f"no module for kernel {row.kernel}:\n{output}")
    return matrix.ROOT / "build" / "kern" / row.kernel / "dune.ko"


def selected_cases(build_vm, tests):
    """[(test, case)] that are to run, in order."""
    wanted = re.compile(os.environ.get("DUNE_VM_FILTER", ""))
    return [(test, case) for test in tests for case in test.cases(build_vm)
            if wanted.search(f"{test.name}.{case}")]


def strip_module(module, target):
    """A copy without debug information, which is most of its size."""
    subprocess.run(["strip", "--strip-debug", "-o", target, module], check=True)


def list_lines(todo, each):
    """The list for dune-vm-runner: the cases, and where the module is unloaded and loaded: after
    each case, or after a few programs."""
    lines = []
    programs = 0
    for (test, case), after in zip(todo, [*todo[1:], None]):
        lines.append(f"{test.name}\t{case}\t{test.timeout}\n")
        programs += after is None or after[0].name != test.name
        if each or after is None or programs == PROGRAMS_A_CYCLE:
            lines.append("\t".join([*CYCLE, "60"]) + "\n")
            programs = 0
    return lines


def write_result(build_vm, row, group, result):
    """Leaves a case's status and, unless it passed, its output."""
    path = matrix.result_path(build_vm, row.name, group, result.program, result.case)
    path.parent.mkdir(parents=True, exist_ok=True)
    if result.output and result.outcome != "pass":
        path.with_name(path.name + ".log").write_text("\n".join(result.output) + "\n")
    path.with_name(path.name + ".status").write_text(result.outcome + "\n")


class Machine:
    """One start of scripts/machine that runs dune-vm-runner."""

    def __init__(self, arguments, console_log):
        self._process = subprocess.Popen(
            [MACHINE, "run", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)
        self._log = console_log
        self.status = None
        self._pending = b""

    def follow(self, parser, limit_of):
        """Feeds the parser until the machine ends. Returns why it ended early, or None.

        limit_of(current) is how long, in seconds, the next sign of progress may take.
        """
        end = time.monotonic() + ROW_LIMIT_S
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            left = min(deadline, end) - time.monotonic()
            if left <= 0:
                self.stop()
                parser.console += self._kept_console()
                return "the machine hung: no sign of life in time"
            if not select.select([self._process.stdout], [], [], left)[0]:
                continue
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                self.status = self._process.wait()
                return None if parser.done else f"the machine ended (status {self.status})"
            for line in self._lines(data):
                if parser.feed(line):
                    deadline = time.monotonic() + limit_of(parser.current)

    def _lines(self, data):
        self._log.write(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _kept_console(self):
        """The end of the console that scripts/machine keeps when it is stopped."""
        kept = paths.cache() / "failed-run" / str(self._process.pid) / "console"
        if not kept.exists():
            return []
        return kept.read_text(errors="replace").splitlines()[-50:]

    def close(self):
        """Leaves nothing running or open."""
        self.stop()
        self._process.stdout.close()

    def stop(self):
        """Ends the machine as Ctrl-C does, and if that takes too long, at once."""
        for sig, patience in ((signal.SIGINT, 15), (signal.SIGTERM, 5), (signal.SIGKILL, None)):
            try:
                os.killpg(self._process.pid, sig)
            except ProcessLookupError:
                pass
            try:
                self._process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                continue


class RowRun:
    """All starts that a group of one row needs."""

    def __init__(self, build_vm, row, group, tests):
        self.build_vm, self.row, self.group, self.tests = build_vm, row, group, tests
        self.folder = build_vm / "results" / row.name / group
        self.suspects = []  # (programs, what the kernel said when the module was unloaded after them)
        self.starts = 0
        self.limits = {test.name: test.timeout for test in tests}

    def run(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        todo = selected_cases(self.build_vm, self.tests)
        if not todo:
            return
        try:
            module = module_for(self.row)
        except Skip as skip:
            self._skip(todo, str(skip))
            return
        with tempfile.TemporaryDirectory(prefix="dune-vm-") as scratch:
            guest = self._gather(pathlib.Path(scratch), module)
            self._run_all(guest, todo, each=False)
            names = {name for programs, _ in self.suspects for name in programs}
            again = [(test, case) for test, case in todo if test.name in names]
            if again:
                self._run_all(guest, again, each=True)
            self._convict_the_rest(todo)

    def _run_all(self, guest, todo, each):
        """Starts machines until each case has a result. With `each`, the module is unloaded
        after each case, else after a few programs."""
        for _ in range(MAX_STARTS):
            if not todo:
                return
            todo = self._start(guest, todo, each)
        for test, case in todo:
            self._write(protocol.Result(test.name, case, "fail", 0, [
                f"not run: {MAX_STARTS} machines died or hung in other tests of this row"]))

    def _blame(self, cases, cycle, each):
        """The module did not unload well after these cases: finds which one did it."""
        last = cases[-1]
        if each or len(cases) == 1:
            self.suspects = [suspect for suspect in self.suspects if last.program not in suspect[0]]
            self._write(dataclasses.replace(last, outcome="fail", output=[
                *last.output, "--- when the module was unloaded after this test:", *cycle.output]))
        else:
            self.suspects.append(({case.program for case in cases}, cycle.output))

    def _convict_the_rest(self, todo):
        """Programs after which the module once did not unload well, though after none of their
        cases alone: the last case tells so."""
        for programs, output in self.suspects:
            program, case = [(test.name, case) for test, case in todo if test.name in programs][-1]
            self._write(protocol.Result(program, case, "fail", 0, [
                "--- when the module was unloaded after all tests of "
                f"{', '.join(sorted(programs))}:", *output, "--- no test does it alone"]))

    def _gather(self, scratch, module):
        """Everything that goes into the machine, in one folder."""
        guest = scratch / "dune-tests"
        (guest / "bin").mkdir(parents=True)
        programs = {"dune-vm-runner"}
        for test in self.tests:
            programs |= {test.name, *test.programs}
        for program in programs:
            shutil.copy(self.build_vm / "stage" / program, guest / "bin" / program)
        libraries = list((self.build_vm.parent / "lib").glob("*.so*"))
        (guest / "lib").mkdir()
        for library in libraries:
            shutil.copy(library, guest / "lib" / library.name, follow_symlinks=False)
        strip_module(module, guest / "dune.ko")
        return guest

    def _start(self, guest, todo, each):
        """One machine; returns the cases that still have no result."""
        (guest / "list").write_text("".join(list_lines(todo, each)))
        parser = protocol.Parser()
        self.starts += 1
        with open(self.folder / f"console-{self.starts}.log", "wb") as log:
            machine = Machine(self._arguments(guest), log)
            try:
                lost = machine.follow(parser, self._limit_of)
            finally:
                machine.close()
        if not parser.started:
            raise RowError("\n".join([f"the machine did not start: {lost}", *parser.console]))
        parser.lost(lost or "the runner ended in the middle of the test")
        self._take_results(parser.results, each)
        if machine.status == errors.STATUS_KERNEL_LOG and not parser.complained:
            raise RowError("\n".join(["the kernel complained outside of any test:",
                                      *parser.console]))
        finished = {(result.program, result.case) for result in parser.results}
        return [(test, case) for test, case in todo if (test.name, case) not in finished]

    def _take_results(self, results, each):
        cases = []
        for result in results:
            if (result.program, result.case) != CYCLE:
                self._write(result)
                cases.append(result)
                continue
            if result.outcome != "pass" and cases:
                self._blame(cases, result, each)
            cases = []

    def _arguments(self, guest):
        command = [f"{GUEST_DIR}/bin/dune-vm-runner", "--list", f"{GUEST_DIR}/list",
                   "--programs", f"{GUEST_DIR}/bin", "--module", f"{GUEST_DIR}/dune.ko"]
        if self.row.module_args():
            command += ["--module-args", self.row.module_args()]
        return ["--kernel", self.row.kernel, *self.row.machine,
                *matrix.group_machine_args(self.group, self.tests),
                "--timeout", str(ROW_LIMIT_S), "--copy-in", f"{guest}:{GUEST_DIR}", "--", *command]

    def _limit_of(self, current):
        own = self.limits[current[0]] if current and current[0] in self.limits else 0
        return (own + GRACE_S) * self.row.pace

    def _skip(self, todo, reason):
        for test, case in todo:
            self._write(protocol.Result(test.name, case, "skip", 0, [reason]))

    def _write(self, result):
        write_result(self.build_vm, self.row, self.group, result)
        print(f"{result.outcome} {result.seconds:7.2f} s, {result.milliseconds:6} ms of the machine's  "
              f"{result.program}.{result.case}")


def main():
    # Being told to end is like Ctrl-C: the machine is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    build_vm, row_name, group = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    try:
        row = matrix.load_rows()[row_name]
        tests = matrix.groups(matrix.load_tests(build_vm), row)[group]
        RowRun(build_vm, row, group, tests).run()
    except (matrix.MatrixError, RowError, OSError) as error:
        sys.exit(f"{row_name}: {error}")
    except KeyError as error:
        sys.exit(f"no row or group {error} in the matrix of this build")


if __name__ == "__main__":
    main()
