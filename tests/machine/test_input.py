# SPDX-License-Identifier: MIT
"""The standard input of a command in the machine: whatever it is on the host, it arrives, and nobody waits in vain."""

import contextlib
import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import threading
import time
import unittest

import support
from support import MACHINE, run, start

SOON = 60
"""Seconds in which what must not wait for the input's end is done on any host."""


def processor_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Input(support.Case):
    @contextlib.contextmanager
    def open_pipe(self):
        """A pipe in which nothing comes, nor its end."""
        reading, writing = os.pipe()
        try:
            yield reading
        finally:
            os.close(reading)
            os.close(writing)

    @contextlib.contextmanager
    def talking(self, *arguments):
        """A run that can be written to while it goes on."""
        with start(*arguments, stdin=subprocess.PIPE) as process:
            limit = threading.Timer(SOON, process.terminate)
            limit.start()
            try:
                yield process
            finally:
                limit.cancel()
                process.terminate()

    def say(self, process, text):
        process.stdin.write(text)
        process.stdin.flush()

    def test_a_file(self):
        (self.scratch / "input").write_text("some\nlines\n")
        with open(self.scratch / "input", encoding="ascii") as file:
            self.assertEqual(run("--", "cat", stdin=file).stdout, "some\nlines\n")

    def test_a_pipe(self):
        self.assertEqual(run("--", "cat", input="some\nlines\n").stdout, "some\nlines\n")

    def test_a_socket(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"some\nlines\n")
            ours.shutdown(socket.SHUT_WR)
            self.assertEqual(run("--", "cat", stdin=theirs).stdout, "some\nlines\n")

    def test_a_socket_that_does_not_block(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            with start("--", "cat", stdin=theirs) as process:
                time.sleep(1)
                ours.sendall(b"late\n")
                ours.shutdown(socket.SHUT_WR)
                self.assertEqual(process.communicate(timeout=SOON)[0], "late\n")

    def test_a_device(self):
        with open("/dev/zero", "rb") as zeros:
            self.assertEqual(run("--", "head", "-c", 3, stdin=zeros).stdout, "\0\0\0")

    def test_none(self):
        self.assertEqual(run("--", "sh", "-c", "cat; echo end").stdout, "end\n")

    def test_a_closed_one(self):
        result = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", MACHINE, "run", "--no-module", "--", "sh", "-c",
                                 "cat; echo end"], capture_output=True, text=True, check=False)
        self.assert_status(result, 0)
        self.assertEqual(result.stdout, "end\n")

    def test_the_users_terminal_is_left_alone(self):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, b"the next command\n")
            self.assertEqual(run("--", "sh", "-c", "cat; echo end", stdin=theirs).stdout, "end\n")
            self.assertEqual(os.read(theirs, 100), b"the next command\n")
        finally:
            os.close(ours)
            os.close(theirs)

    def test_much(self):
        data = os.urandom(3_000_001)
        result = run("--", "cat", input=data, text=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout == data, "something else came back")

    def test_lines_arrive_as_they_are_written(self):
        for cpus in (1, 2):
            with self.subTest(cpus=cpus), self.talking("--cpus", cpus, "--", "cat") as process:
                for line in ("first\n", "second\n", "third\n"):
                    self.say(process, line)
                    self.assertEqual(process.stdout.readline(), line)
                process.stdin.close()
                self.assertEqual(process.wait(SOON), 0)

    def test_a_whole_page_does_not_stop_the_machine(self):
        # As much as it asks for at once, and nothing after it.
        with self.talking("--", "sh", "-c", "head -c 4096 | wc -c; echo and on") as process:
            self.say(process, "x" * 4096)
            self.assertEqual(process.stdout.readline(), "4096\n")
            self.assertEqual(process.stdout.readline(), "and on\n")

    def test_the_machine_works_while_somebody_waits(self):
        script = "exec 3<&0; (read x <&3; echo $x) & seq 200000 | tail -n 1; wait"
        for cpus in (1, 2):
            with self.subTest(cpus=cpus), self.talking("--cpus", cpus, "--", "sh", "-c", script) as process:
                self.assertEqual(process.stdout.readline(), "200000\n")
                self.say(process, "late\n")
                self.assertEqual(process.stdout.readline(), "late\n")

    def test_a_command_that_does_not_read_ends(self):
        with self.open_pipe() as pipe, start("--", "sh", "-c", "exit 3", stdin=pipe) as process:
            self.assertEqual(process.wait(SOON), 3)

    def test_a_command_that_closes_it_goes_on(self):
        with self.open_pipe() as pipe, start("--", "sh", "-c", "exec <&-; sleep 100; exit 3", stdin=pipe) as process:
            self.assertEqual(process.wait(SOON), 3)

    def test_a_writer_that_never_ends(self):
        with subprocess.Popen("yes", stdout=subprocess.PIPE) as writer:
            try:
                self.assertEqual(run("--", "head", "-n", 1, stdin=writer.stdout).stdout, "y\n")
            finally:
                writer.kill()

    def test_two_machines_share_a_pipe(self):
        reading, writing = os.pipe()
        machines = [start("--", "sh", "-c", "read x; echo $x; sleep 1; echo end", stdin=reading) for _ in range(2)]
        os.close(reading)
        try:
            # Whoever takes it, the other one's time goes on.
            os.write(writing, b"a\n")
            os.write(writing, b"b\n")
            os.close(writing)
            outputs = [process.communicate(timeout=SOON)[0].split() for process in machines]
        finally:
            for process in machines:
                process.terminate()
                process.wait()
        self.assertEqual(sorted(line for output in outputs for line in output if len(line) == 1)[:1], ["a"], outputs)
        self.assertEqual([output[-1] for output in outputs], ["end", "end"])

    def test_sleeping_is_free(self):
        for cpus in (1, 2):
            with self.subTest(cpus=cpus), self.open_pipe() as pipe:
                started = time.monotonic()
                self.assertEqual(run("--cpus", cpus, "--", "sleep", 2 * SOON, stdin=pipe).returncode, 0)
                self.assertLess(time.monotonic() - started, SOON)

    def test_waiting_costs_little_and_takes_the_hosts_time(self):
        script = "echo begun; read x; cut -d. -f1 /proc/uptime; read x; cut -d. -f1 /proc/uptime"
        for cpus in (1, 2):
            with self.subTest(cpus=cpus), self.talking("--cpus", cpus, "--", "sh", "-c", script) as process:
                self.say(process, "\n")
                self.assertEqual(process.stdout.readline(), "begun\n")
                before = int(process.stdout.readline())
                [emulator] = support.emulators_of(process.pid)
                used = processor_seconds(emulator)
                time.sleep(3)
                used = processor_seconds(emulator) - used
                self.say(process, "\n")
                self.assertLess(int(process.stdout.readline()) - before, 6)
                self.assertLess(used, 1.5)

    def test_reading_with_a_time_limit(self):
        with self.talking("--", "sh", "-c", "echo begun; read -t 60 x; echo $x") as process:
            self.assertEqual(process.stdout.readline(), "begun\n")
            time.sleep(2)
            self.say(process, "late\n")
            self.assertEqual(process.stdout.readline(), "late\n")


class Shell(support.Case):
    """The interactive console, on a pseudo-terminal."""

    def setUp(self):
        super().setUp()
        self.terminal, theirs = pty.openpty()
        self.addCleanup(os.close, self.terminal)
        self.process = subprocess.Popen([MACHINE, "shell", "--no-module"], stdin=theirs, stdout=theirs, stderr=theirs)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.terminate)
        os.close(theirs)

    def read_until(self, text):
        """Reads what is on the terminal, up to a text."""
        seen = b""
        while text not in seen and select.select([self.terminal], [], [], SOON)[0]:
            seen += os.read(self.terminal, 4096)
        self.assertIn(text, seen)

    def test_keys_go_to_the_machine(self):
        self.read_until(b"# ")
        os.write(self.terminal, b"hostname; echo $((6 * 7)); sleep 1000\n")
        self.read_until(b"machine\r\n42\r\n")
        os.write(self.terminal, b"\x03")
        self.read_until(b"# ")
        os.write(self.terminal, b"exit $?\n")
        with self.assertRaises(OSError):  # the terminal's other end is closed
            while True:
                os.read(self.terminal, 4096)
        self.assertEqual(self.process.wait(SOON), 128 + signal.SIGINT)


if __name__ == "__main__":
    unittest.main()
