# SPDX-License-Identifier: MIT
"""The command's standard input, on its way into the machine."""

import os
import select
import stat
import threading

CHUNK = 1 << 16
NULL = os.makedev(1, 3)


class StandardInput:
    """What the machine reads: reading the descriptor, once poll() says that something is there, never blocks.

    A regular file, /dev/null and a shell's terminal are read as they are. For all else a thread reads and fills a pipe
    that is the machine's alone: of a pipe, another reader may take what poll() has seen. The terminal of a command that
    is not interactive stays the user's.
    """

    def __init__(self, interactive):
        self.sink = None
        if interactive or is_always_ready(os.fstat(0)):
            self.descriptor = os.dup(0)
        elif os.isatty(0):
            self.descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        else:
            self.descriptor, self.sink = os.pipe()

    def begin(self):
        """Starts the thread, once; not before the machine's process was started, for that forks."""
        if self.sink is not None:
            threading.Thread(target=pump, args=(0, self.sink), daemon=True).start()
            self.sink = None

    def close(self):
        """Ends it; a thread that is reading ends with the program."""
        os.close(self.descriptor)
        if self.sink is not None:
            os.close(self.sink)


def is_always_ready(status):
    """True for what no reader ever waits for."""
    return stat.S_ISREG(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL)


def pump(source, sink):
    """Moves all that can be read from source to sink, and closes that."""
    try:
        while data := read(source):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view):]
    except OSError:
        pass  # nobody reads any more, or what cannot be read, as a directory, is empty
    finally:
        os.close(sink)


def read(source):
    """Some bytes; none at the end."""
    while True:
        try:
            return os.read(source, CHUNK)
        except BlockingIOError:  # whoever gave it to us set it so
            select.select([source], [], [])
