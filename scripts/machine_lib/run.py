# SPDX-License-Identifier: MIT
"""One run: a machine is started, watched, and its results are taken."""

import contextlib
import os
import pathlib
import select
import shutil
import sys
import time

from . import backends, channels, console, emulator, kernel_log, kernels, kmodule, paths, payload, results, terminal
from .backends import bochs27, native
from .bochs_build import CannotBuild
from .errors import STATUS_KERNEL_LOG, STATUS_MACHINE, STATUS_TIMEOUT, MachineError
from .standard_input import StandardInput

START_SECONDS = 60
"""Between the start of the process and the machine's first sign of life, at most."""
POLL_SECONDS = 0.2
LAST_LINES = 50
KEPT_LOGS = 5


def run(request):
    """Does what the request asks for; returns the exit status."""
    backend = backends.choose(request)
    if backend is native:
        return native.run(request)
    with paths.locked("in-use", shared=True), paths.working_directory("dune-run-") as work:
        kernel = kernels.ensure(request.kernel)
        module = module_for(request, kernel)
        backend, prepared = prepare(backend, request, kernel)
        finished = False
        try:
            payload.write(work / "payload", request, module, request.build_dir)
            status = attempt(backend, prepared, request, work)
            finished = True
            return status
        finally:
            keep_logs(work, finished)


def prepare(backend, request, kernel):
    """The backend and what its start needs: Debian's own emulator where the better one cannot be built."""
    try:
        return backend, backend.prepare(request, kernel)
    except CannotBuild as error:
        console.say(f"{error}; going on with Debian's Bochs 2.7, which is ten times slower")
        return bochs27, bochs27.prepare(request, kernel)


def module_for(request, kernel):
    """dune.ko for the kernel, or None when none is wanted."""
    if not request.module:
        return None
    if not kmodule.has_sources():
        console.say("kern/ has no Kbuild file yet: running without the module")
        return None
    return kmodule.ensure(kernel)


def keep_logs(work, finished):
    """The logs of a run that went wrong stay in the cache."""
    if finished:
        return
    kept = logs()
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("console", "bochs.log", "emulator.log"):
        if (work / name).exists():
            shutil.copy(work / name, kept / name)
    paths.keep_newest(kept.parent, KEPT_LOGS)


def logs():
    """Where the logs of a failed run are kept: the last few of them."""
    return paths.cache() / "failed-run" / str(os.getpid())


def attempt(backend, prepared, request, work):
    """Starts the machine, once more when its saved state is found to be unusable."""
    with contextlib.closing(StandardInput(request.interactive)) as stdin:
        machine = Machine(backend, prepared, request, work, stdin)
        if not machine.run() and backend.unusable(prepared, work):
            shutil.rmtree(work / "state", ignore_errors=True)
            machine = Machine(backend, prepared, request, work, stdin)
            machine.run()
    return machine.finish()


def check_written(lost, work):
    """Raises MachineError when something that the machine said could not be written here."""
    if channels.RESULTS in lost or channels.KERNEL_LOG in lost:
        raise MachineError(paths.no_space(work))
    for channel, descriptor, name in ((channels.STDOUT, 1, "output"), (channels.STDERR, 2, "errors")):
        if channel in lost and not has_no_reader(descriptor):
            raise MachineError(f"the command's {name} cannot be written to where it goes: is that disk full?")


def has_no_reader(descriptor):
    """True for a pipe or socket whose other end was closed, as `| head` does: no fault."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


class Machine:
    """A started machine and what it has told so far."""

    def __init__(self, backend, prepared, request, work, stdin):
        self.backend, self.prepared, self.request, self.work, self.stdin = backend, prepared, request, work, stdin
        self.process = None
        self.console = emulator.Console(work / "console")
        self.panic = False
        self.timed_out = False

    def path(self, name):
        return self.work / name

    def open_ends(self):
        """A file descriptor for each channel."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return {
            channels.PAYLOAD: os.open(self.path("payload"), os.O_RDONLY | os.O_CLOEXEC),
            channels.STDIN: os.dup(self.stdin.descriptor),
            channels.STDOUT: os.dup(1),
            channels.STDERR: os.dup(2),
            channels.RESULTS: os.open(self.path("results"), flags),
            channels.CONTROL: os.open(self.path("control"), flags),
            channels.KERNEL_LOG: os.open(self.path("kernel.log"), flags),
        }

    def run(self):
        """Starts the machine and waits for its end. False when it never came up."""
        sys.stdout.flush()
        ends = self.open_ends()
        try:
            self.process = self.backend.start(self.prepared, self.work, ends)
        finally:
            for descriptor in ends.values():
                os.close(descriptor)
        self.stdin.begin()
        try:
            with terminal.raw() if self.request.interactive else contextlib.nullcontext():
                self.watch()
        finally:
            emulator.stop(self.process)
        return bool(self.events())

    def watch(self):
        """Waits until the process ends, the time is up or the kernel panics."""
        started = time.monotonic()
        limit = self.request.timeout or float("inf")
        handle = os.pidfd_open(self.process.pid)
        try:
            while not select.select([handle], [], [], POLL_SECONDS)[0]:
                passed = time.monotonic() - started
                if self.console.panicked():
                    self.panic = True
                    return
                if passed > limit or (passed > self.start_seconds() and not self.events()):
                    self.timed_out = True
                    return
        finally:
            os.close(handle)

    def start_seconds(self):
        """START_SECONDS, or more for a backend that is slow."""
        return START_SECONDS * getattr(self.backend, "PATIENCE", 1)

    def events(self):
        """The control channel's lines."""
        path = self.path("control")
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def finish(self):
        """Reports what went wrong, delivers the results, and returns the exit status."""
        events = dict(line.split(" ", 1) if " " in line else (line, "") for line in self.events())
        log = self.path("kernel.log").read_text(errors="replace")
        if self.request.dmesg:
            text = log or self.console.text()
            pathlib.Path(self.request.dmesg).write_text("\n".join(kernel_log.lines(text)) + "\n")
        self.check_alive(events)
        lost = self.lost_channels()
        if self.request.copy_out and "status" in events and channels.RESULTS not in lost:
            results.deliver(self.path("results"), self.request.copy_out)
        status = self.check_log(log, int(events.get("status", STATUS_MACHINE)))
        if "error" in events:
            self.report_error(events["error"], log)
        check_written(lost, self.work)
        return status

    def lost_channels(self):
        """The channels on which something did not arrive."""
        return [int(line.split()[1]) for line in self.events() if line.startswith("lost ")]

    def check_alive(self, events):
        """Raises MachineError when the machine was lost."""
        if "end" in events:
            return
        where = f"its logs are in {logs()}"
        if self.timed_out and not self.events():
            raise MachineError(f"the machine did not come up in {self.start_seconds():g} s; {where}\n{self.last_lines()}")
        if self.timed_out:
            raise MachineError(f"no end after {self.request.timeout:g} s (--timeout): the machine was stopped; {where}\n"
                               f"{self.last_lines()}", STATUS_TIMEOUT)
        if self.panic:
            lines = self.last_lines()
            why = " for want of memory (give it more --memory)" if "deadlocked on memory" in lines else ""
            raise MachineError(f"the machine's kernel panicked{why}; {where}\n{lines}")
        status = self.process.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise MachineError(f"the emulator {how} before the command ended; {where}\n{self.last_lines()}")

    def last_lines(self):
        """The end of the console, for an error message."""
        return self.console.last_lines(LAST_LINES)

    def report_error(self, error, log):
        """Turns an error of the first process into ours."""
        tail = "\n".join(kernel_log.lines(log)[-20:])
        if error.startswith("before"):
            raise MachineError(f"dune.ko does not load (look at the kernel's log)\n{self.last_lines()}\n"
                               f"--- last lines of the kernel's log:\n{tail}")
        if error.startswith("after"):
            raise MachineError(f"dune.ko does not unload: something still uses it\n{self.last_lines()}",
                               STATUS_KERNEL_LOG)
        raise MachineError(f"the machine could not unpack what was sent to it: give it more --memory\n"
                           f"{self.last_lines()}")

    def check_log(self, log, status):
        """The command's status, or the one for complaints in the kernel's log."""
        found = kernel_log.complaints(log)
        if not found:
            return status
        lines = "\n".join(found[:LAST_LINES])
        console.say(f"the machine's kernel complained ({len(found)} lines; --dmesg FILE writes all of its log; "
                    f"the command's own status was {status}):\n{lines}")
        return STATUS_KERNEL_LOG
