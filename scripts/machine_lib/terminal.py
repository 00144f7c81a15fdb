# SPDX-License-Identifier: MIT
"""The user's terminal while a machine has it."""

import contextlib
import termios
import tty


@contextlib.contextmanager
def raw():
    """Hands every key, Ctrl-C too, to the machine."""
    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)
