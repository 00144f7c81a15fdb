# SPDX-License-Identifier: MIT
"""scripts/machine run, when something goes wrong: the message, the status, and that the next run works."""

import os
import pathlib
import signal
import subprocess
import time
import unittest
from unittest import mock

import support
from support import run, start

from machine_lib import paths
from machine_lib.errors import STATUS_KERNEL_LOG, STATUS_MACHINE, STATUS_TIMEOUT, STATUS_USAGE

FOREVER = ("sh", "-c", "echo begun; while :; do :; done")


def alive(pid):
    """True while a process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Faults(support.Case):
    def begun(self):
        """A machine whose command runs for ever, and its emulator."""
        with mock.patch.dict(os.environ, TMPDIR=str(self.scratch)):  # for what a killed program leaves
            process = start("--", *FOREVER)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "begun\n")
        [emulator] = support.emulators_of(process.pid)
        return process, emulator

    def end(self, process):
        """Its status and what it said."""
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def assert_gone(self, emulator):
        """The emulator ends within a moment."""
        deadline = time.monotonic() + 10
        while alive(emulator) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(alive(emulator))

    def test_timeout(self):
        result = run("--timeout", 3, "--", "sh", "-c", "echo on the console >/dev/console; while :; do :; done")
        self.assert_status(result, STATUS_TIMEOUT)
        self.assertIn("no end after 3 s", result.stderr)
        self.assertIn("on the console", result.stderr)
        logs = result.stderr.partition("its logs are in ")[2].split("\n")[0]
        self.assertIn("on the console", (pathlib.Path(logs) / "console").read_text())

    def test_killed_emulator(self):
        process, emulator = self.begun()
        os.kill(emulator, signal.SIGKILL)
        status, errors = self.end(process)
        self.assertEqual(status, STATUS_MACHINE)
        self.assertIn("was killed by signal 9", errors)
        self.assert_status(run("--", "true"), 0)

    def test_ctrl_c_leaves_nothing(self):
        process, emulator = self.begun()
        process.send_signal(signal.SIGINT)
        status, errors = self.end(process)
        self.assertEqual(status, 128 + signal.SIGINT)
        self.assertEqual(errors.splitlines()[-1], "machine: stopped")
        self.assert_gone(emulator)

    def test_a_killed_program_takes_its_machine_along(self):
        process, emulator = self.begun()
        process.kill()
        self.assert_gone(emulator)

    def test_a_log_is_wanted_of_a_machine_that_hung(self):
        result = run("--timeout", 3, "--dmesg", self.scratch / "log", "--", "sh", "-c", "while :; do :; done")
        self.assert_status(result, STATUS_TIMEOUT)
        self.assertIn("no end after 3 s", result.stderr)
        self.assertTrue((self.scratch / "log").exists())

    def test_kernel_panic(self):
        started = time.monotonic()
        result = run("--timeout", 100, "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn("the machine's kernel panicked", result.stderr)
        self.assertIn("sysrq triggered crash", result.stderr)
        self.assertLess(time.monotonic() - started, 90)

    def test_the_kernels_complaint_fails_the_run(self):
        result = run("--dmesg", self.scratch / "log", "--", "sh", "-c", "echo 'WARNING: CPU: 0 made up' >/dev/kmsg")
        self.assert_status(result, STATUS_KERNEL_LOG)
        self.assertIn("made up", result.stderr)
        self.assertIn("made up", (self.scratch / "log").read_text())

    def test_unknown_kernel(self):
        result = run("--kernel", "2.6", "--", "true")
        self.assert_status(result, STATUS_USAGE)
        self.assertIn("unknown kernel 2.6", result.stderr)
        self.assertIn("6.1, 6.12, 7.3", result.stderr)

    def test_unknown_package(self):
        result = run("--package", "no-such-package-at-all", "--", "true")
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn("bookworm has no package no-such-package-at-all: check the name\n", result.stderr)

    def test_unknown_cpu(self):
        result = run("--cpu", "z80", "--", "true")
        self.assert_status(result, STATUS_USAGE)
        self.assertIn("unknown CPU model z80: the emulator has ", result.stderr)
        self.assertIn("corei7_skylake_x", result.stderr)

    def test_options_that_make_no_sense(self):
        for options in (("--timeout", -1), ("--timeout", "nan"), ("--cpus", 0), ("--memory", 1),
                        ("--build-dir", "/no/such/directory"), ("--dmesg", "/no/such/directory/log"),
                        ("--emulator-log", "/no/such/directory/log")):
            result = run(*options, "--", "true")
            self.assert_status(result, STATUS_USAGE)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn(f"{options[0]} {options[1]}: ", result.stderr)

    def test_the_reader_of_the_output_leaves(self):
        with start("--", "sh", "-c", "seq 1000000; echo status $? >&2; exit 5") as process:
            self.assertEqual(process.stdout.readline(), "1\n")
            process.stdout.close()
            errors = process.stderr.read()
            self.assertEqual(process.wait(60), 5, errors)
            self.assertIn(f"status {128 + signal.SIGPIPE}\n", errors)

    def test_the_output_goes_to_a_full_disk(self):
        self.assert_full_disk_is_said()

    def test_missing_files(self):
        result = run("--copy-in", "/no/such/file", "--", "true")
        self.assert_status(result, STATUS_USAGE)
        self.assertIn("--copy-in /no/such/file: no such file", result.stderr)
        result = run("--copy-out", "/no/such/file", "--", "true")
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn("--copy-out /no/such/file: the machine has no such file", result.stderr)

    def test_too_little_memory(self):
        result = run("--memory", 128, "--copy-in", self.big_file(200), "--", "true")
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn("give it more --memory", result.stderr)

    def big_file(self, megabytes):
        path = self.scratch / "big"
        path.write_bytes(os.urandom(megabytes << 20))
        return path

    def test_backends_that_cannot_work_say_why(self):
        result = support.machine("list")
        self.assert_status(result, 0)
        for name in ("native", "qemu"):
            if f"{name:8} cannot be used here: " in result.stdout:
                self.assert_status(run("--backend", name, "--", "true"), STATUS_USAGE)


class SavedState(support.Case):
    """Damage to a saved state is found, and the state made anew."""

    def setUp(self):
        super().setUp()
        self.cache = self.scratch / "cache"
        self.own = support.borrow_cache(self.cache)
        self.assert_status(run("--", "true", cache=self.cache), 0)
        [self.state] = [path for path in (self.own / "snapshots").iterdir() if not path.name.startswith(".")]

    def assert_recovers(self, *says):
        result = run("--", "cat", cache=self.cache, input="fine\n")  # which the first try leaves to the second
        self.assert_status(result, 0)
        self.assertEqual(result.stdout, "fine\n")
        for text in says:
            self.assertIn(text, result.stderr)
        result = run("--", "true", cache=self.cache)
        self.assertNotIn("to save its state", result.stderr)

    def test_cut_short(self):
        os.truncate(self.state / "memory.ram", 1 << 20)
        self.assert_recovers("to save its state")

    def test_overwritten(self):
        size = (self.state / "cpu0").stat().st_size
        (self.state / "cpu0").write_bytes(os.urandom(size))
        self.assert_recovers("to save its state")

    def test_garbage_that_looks_untouched(self):
        file = self.state / "cpu0"
        status = file.stat()
        file.write_bytes(os.urandom(status.st_size))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assert_recovers("the saved state is damaged", "to save its state")

    def test_file_missing(self):
        (self.state / "pic").unlink()
        self.assert_recovers("to save its state")


@unittest.skipUnless(os.geteuid() == 0, "mounting a small file system takes root")
class FullDisk(support.Case):
    """A disk is full."""

    def small_disk(self, megabytes):
        disk = self.scratch / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", disk], check=False)
        if mounted.returncode != 0:
            self.skipTest("this system lets nobody mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        return disk

    def test_the_caches(self):
        disk = self.small_disk(8)
        support.borrow_cache(disk)
        result = run("--", "true", cache=disk)
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn("no disk space left", result.stderr)
        self.assertIn("XDG_CACHE_HOME", result.stderr)
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        self.assert_status(run("--", "true", cache=disk), 0)

    def test_that_of_temporary_files(self):
        big = ("--copy-out", f"/tmp/x:{self.scratch}/x", "--", "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=60")
        disk = self.small_disk(50)
        with mock.patch.dict(os.environ, TMPDIR=str(disk)):
            result = run(*big)
            self.assert_status(result, STATUS_MACHINE)
            self.assertIn(f"no disk space left in {disk}", result.stderr)
            self.assertIn("TMPDIR", result.stderr)
            self.assertFalse((self.scratch / "x").exists())
            self.assertEqual(list(disk.iterdir()), [])
            subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
            self.assert_status(run(*big), 0)

    def test_that_of_the_results(self):
        disk = self.small_disk(8)
        result = run("--copy-out", f"/tmp/x:{disk}/x", "--", "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=20")
        self.assert_status(result, STATUS_MACHINE)
        self.assertIn(f"no disk space left in {disk}/x", result.stderr)


class Logs(unittest.TestCase):
    def test_few_are_kept(self):
        kept = paths.cache() / "failed-run"
        if kept.is_dir():
            self.assertLessEqual(len(list(kept.iterdir())), 8)


if __name__ == "__main__":
    unittest.main()
