# SPDX-License-Identifier: MIT
"""The ways to a machine with VT-x, and the choice between them."""

from ..console import say
from ..errors import MachineError
from . import bochs, bochs27, native, qemu

ALL = {module.NAME: module for module in (native, qemu, bochs, bochs27)}
AUTOMATIC = ["qemu", "bochs"]
"""Fastest first. native runs on this very system: only when it is asked for."""


def choose(name):
    """The backend of that name, or for "auto" the fastest that works here."""
    if name != "auto":
        reason = ALL[name].unavailable()
        if reason:
            raise MachineError(f"the backend {name} cannot be used here: {reason}", 2)
        return ALL[name]
    reasons = []
    for candidate in (ALL[name] for name in AUTOMATIC):
        reason = candidate.unavailable()
        if reason is None:
            say(f"backend {candidate.NAME} ({candidate.ABOUT}" + "".join(f"; {text}" for text in reasons) + ")")
            return candidate
        reasons.append(f"no {candidate.NAME}: {reason}")
    raise MachineError("; ".join(reasons))
