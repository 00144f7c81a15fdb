# SPDX-License-Identifier: MIT
"""What the program says when something is wrong, and the statuses it exits with."""

STATUS_USAGE = 2
STATUS_MACHINE = 120
"""No machine could be had, or it was lost: no network, kernel panic, emulator killed."""
STATUS_TIMEOUT = 124
STATUS_KERNEL_LOG = 125
"""The command may have passed, but the machine's kernel complained."""


class MachineError(Exception):
    """Something the user should know, in one line that also says what to do about it."""

    def __init__(self, message, status=STATUS_MACHINE):
        super().__init__(message)
        self.status = status
