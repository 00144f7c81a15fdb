# SPDX-License-Identifier: MIT
"""Reads the lines that dune-vm-runner prints inside a machine, and judges the kernel's log."""

import dataclasses
import pathlib
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))
from machine_lib import kernel_log  # noqa: E402

PREFIX = "@vm "
OUTCOMES = ("pass", "fail", "skip")


@dataclasses.dataclass
class Result:
    """What became of one case."""

    program: str
    case: str
    outcome: str
    milliseconds: int = 0  # of the machine's time
    output: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # of ours


class Parser:
    """Takes a machine's output line by line and collects the results.

    `current` is the (program, case) that has begun and not ended. Lines of the
    machine that are none of the runner's (the kernel's console) are kept in
    `console`, the last ones only.
    """

    CONSOLE_LINES = 60

    def __init__(self):
        self.results = []
        self.current = None
        self.started = False
        self.done = False
        self.complained = False
        self.console = []
        self._output = []
        self._kernel = []
        self._began = 0.0

    def feed(self, line):
        """Takes one line; returns True if it is the runner's own and shows progress."""
        line = line.rstrip("\r\n")
        # The kernel may have printed to the same console without ending its line.
        at = line.find(PREFIX)
        if at > 0:
            self._keep(line[:at])
        if at < 0 or not self._take(line[at + len(PREFIX):]):
            self._keep(line)
            return False
        return True

    def _keep(self, line):
        self.console = (self.console + [line])[-self.CONSOLE_LINES:]

    def _take(self, text):
        verb, _, rest = text.partition(" ")
        if verb == "|":
            self._output.append(rest)
            return True
        if verb == "k":
            self._kernel.append(rest)
            return True
        words = rest.split(" ")
        if verb == "begin" and len(words) == 2:
            self.started = True
            self.current = tuple(words)
            self._began = time.monotonic()
            self._output, self._kernel = [], []
            self.console = []
            return True
        if verb == "end" and len(words) == 4 and tuple(words[:2]) == self.current:
            return self._end(*words)
        if verb == "done" and not rest:
            self.done = True
            return True
        return False

    def _end(self, program, case, outcome, milliseconds):
        if outcome not in OUTCOMES or not milliseconds.isdigit():
            return False
        result = Result(program, case, outcome, int(milliseconds), self._output,
                        time.monotonic() - self._began)
        if self._kernel:
            result.output += ["--- the kernel's log during this test:", *self._kernel]
        complaints = kernel_log.complaints("\n".join(self._kernel))
        if complaints:
            result.outcome = "fail"
            result.output.append(f"--- failed: the kernel complained: {complaints[0]}")
        self.complained = self.complained or bool(complaints)
        self.results.append(result)
        self.current = None
        return True

    def lost(self, reason):
        """The machine is gone: ends the case that was running, if any, as failed."""
        if self.current is None:
            return
        program, case = self.current
        output = self._output + self._last_words() + [f"--- failed: {reason}"]
        self.results.append(Result(program, case, "fail", 0, output))
        self.current = None

    def _last_words(self):
        if not self.console:
            return []
        return ["--- last lines of the machine:"] + self.console
