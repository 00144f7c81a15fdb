# SPDX-License-Identifier: MIT
"""Starting a machine's process so that it never outlives this program, and ending it."""

import ctypes
import os
import signal
import subprocess

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def _set_up():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the command's output may lose its reader, not the machine


def start(arguments, output, environment=None, descriptors=(), directory=None, stdin=None,
          errors=None):
    """Starts a process that a signal to the terminal's process group does not reach and that is killed with us."""
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=output,
                            stderr=output if errors is None else errors, cwd=directory,
                            env={**os.environ, **(environment or {})}, pass_fds=descriptors, start_new_session=True,
                            preexec_fn=_set_up)


def stop(process):
    """Ends it at once, if it still runs."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    relay = getattr(process, "relay", None)
    if relay is not None:
        relay.join()


class Console:
    """The file that the machine's serial console is written to."""

    def __init__(self, path):
        self.path = path
        self.seen = 0

    def panicked(self):
        """True when what was written since the last call holds the end of a kernel panic."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size <= self.seen:
            return False
        with open(self.path, "rb") as file:
            file.seek(max(0, self.seen - 100))
            text = file.read()
        self.seen = size
        return b"end Kernel panic" in text

    def text(self):
        """All of it; the file is made when something is written."""
        return self.path.read_text(errors="replace").replace("\r", "") if self.path.exists() else ""

    def last_lines(self, count):
        """Its end, for an error message."""
        text = self.text()
        return "\n".join(["--- last lines of the console:", *(text.splitlines()[-count:] or ["(nothing)"])])
