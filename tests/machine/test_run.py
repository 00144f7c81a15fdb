# SPDX-License-Identifier: MIT
"""scripts/machine run, when all goes well."""

import os
import signal
import subprocess
import unittest

import support
from support import run, start


class Run(support.Case):
    def test_status_is_the_commands(self):
        for status in (0, 1, 42, 255):
            self.assert_status(run("--", "sh", "-c", f"exit {status}"), status)

    def test_a_signal_is_128_and_its_number(self):
        self.assert_status(run("--", "sh", "-c", "kill -9 $$"), 128 + signal.SIGKILL)

    def test_an_unknown_command_is_127(self):
        result = run("--", "no-such-command")
        self.assert_status(result, 127)
        self.assertIn("not found", result.stderr)

    def test_words_arrive_as_they_are(self):
        words = ["a b", "$HOME", "'", '"', "*", "ü", ""]
        result = run("--", "printf", "[%s]", *words)
        self.assertEqual(result.stdout, "".join(f"[{word}]" for word in words))

    def test_output_and_errors_stay_apart(self):
        result = run("--quiet", "--", "sh", "-c", "echo out; echo error >&2")
        self.assertEqual((result.stdout, result.stderr), ("out\n", "error\n"))

    def test_output_comes_while_the_command_runs(self):
        with start("--", "sh", "-c", "echo first; while :; do :; done") as process:
            try:
                self.assertEqual(process.stdout.readline(), "first\n")
                self.assertIsNone(process.poll())
            finally:
                process.terminate()

    def test_a_host_path_in_the_command_is_there(self):
        script = self.scratch / "script"
        script.write_text("#!/bin/sh\necho $0 $1\n")
        script.chmod(0o755)
        self.assertEqual(run("--", script, "x").stdout, f"{script} x\n")

    def test_a_host_program_brings_its_libraries(self):
        program = self.scratch / "program"
        program.with_suffix(".c").write_text("#include <math.h>\n#include <stdio.h>\n"
                                             "int main(int c, char **v) { printf(\"%g %s\\n\", cbrt(c + 6), v[1]); }\n")
        subprocess.run(["gcc", "-O0", "-o", program, program.with_suffix(".c"), "-lm"], check=True)
        self.assertEqual(run("--", program, "x").stdout, "2 x\n")

    def test_files_go_in_and_come_out(self):
        tree = self.scratch / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub/file").write_text("content")
        (tree / "link").symlink_to("sub/file")
        (tree / "sub/tool").write_text("#!/bin/sh\n")
        (tree / "sub/tool").chmod(0o755)
        result = run("--copy-in", f"{tree}:/data", "--copy-out", f"/data:{self.scratch}/out", "--copy-out",
                     f"/data/sub/new:{self.scratch}/renamed", "--", "sh", "-c", "cat /data/link; echo more > /data/sub/new")
        self.assert_status(result, 0)
        self.assertEqual(result.stdout, "content")
        out = self.scratch / "out"
        self.assertEqual((out / "sub/file").read_text(), "content")
        self.assertEqual(os.readlink(out / "link"), "sub/file")
        self.assertTrue(os.access(out / "sub/tool", os.X_OK))
        self.assertEqual((self.scratch / "renamed").read_text(), "more\n")

    def test_results_come_from_a_command_that_failed(self):
        result = run("--copy-out", f"/tmp/x:{self.scratch}/x", "--", "sh", "-c", "echo 1 > /tmp/x; exit 3")
        self.assert_status(result, 3)
        self.assertEqual((self.scratch / "x").read_text(), "1\n")

    def test_the_machine_is_a_usual_one(self):
        result = run("--", "sh", "-c", """set -e
            echo x > /dev/shm/x; echo x > /tmp/x; mount | grep -q 'on /tmp type tmpfs'
            test -c /dev/pts/ptmx; test "$(hostname)" = machine
            grep -q '^nobody:' /etc/passwd; su dune -s /bin/sh -c 'test $(id -u) = 1000'
            ifconfig lo | grep -q 'UP LOOPBACK RUNNING'; ping -c 1 127.0.0.1 >/dev/null
            modprobe zram; test -b /dev/zram0
            mkdir /tmp/cgroup; mount -t cgroup2 none /tmp/cgroup; test -f /tmp/cgroup/cgroup.procs
            echo 4 > /proc/sys/vm/nr_hugepages; grep -q 'HugePages_Total: *4' /proc/meminfo
            test -f /proc/self/ns/user""")
        self.assert_status(result, 0)

    def test_two_runs_do_the_same_instructions(self):
        logs = [self.scratch / "1", self.scratch / "2"]
        for log in logs:
            self.assert_status(run("--dmesg", log, "--", "sh", "-c", "ls -lR /usr >/dev/null; echo end >/dev/kmsg"), 0)
        self.assertIn("end", logs[0].read_text())
        self.assertEqual(logs[0].read_text(), logs[1].read_text())

    def test_two_starts_at_once(self):
        cache = self.scratch / "cache"
        support.borrow_cache(cache)
        first, second = (start("--", "echo", number, cache=cache) for number in (1, 2))
        outputs = [process.communicate(timeout=support.LIMIT_SECONDS) for process in (first, second)]
        self.assertEqual([process.returncode for process in (first, second)], [0, 0], outputs)
        self.assertEqual([output for output, _ in outputs], ["1\n", "2\n"])
        self.assertEqual("".join(errors for _, errors in outputs).count("to save its state"), 1, outputs)


class PackagedEmulator(support.Case):
    def test_debians_bochs_does_the_same(self):
        result = run("--backend", "bochs27", "--copy-out", f"/tmp/x:{self.scratch}/x", "--", "sh", "-c",
                     "echo out; echo error >&2; seq 100000 >/tmp/x; exit 5")
        self.assert_status(result, 5)
        self.assertEqual(result.stdout, "out\n")
        self.assertIn("error\n", result.stderr)
        self.assertEqual(len((self.scratch / "x").read_text().splitlines()), 100000)


if __name__ == "__main__":
    unittest.main()
