# SPDX-License-Identifier: MIT
"""The ways to a machine with VT-x, and the choice between them."""

from ..console import say
from ..errors import STATUS_USAGE, MachineError
from ..request import Request
from . import bochs, bochs27, native, qemu

ALL = {module.NAME: module for module in (native, qemu, bochs, bochs27)}
AUTOMATIC = ["qemu", "bochs"]
"""Fastest first. native runs on this very system: only when it is asked for."""


def obstacle(backend, request):
    """Why a backend cannot serve the request here, or None."""
    if request.cpu != Request.cpu and backend in (native, qemu):
        return f"it has this system's CPU and no model for --cpu {request.cpu}"
    return backend.unavailable()


def choose(request):
    """The backend that the request names, or for "auto" the fastest that can serve it here."""
    name = request.backend
    if name != "auto":
        reason = obstacle(ALL[name], request)
        if reason:
            raise MachineError(f"the backend {name} cannot be used here: {reason}", STATUS_USAGE)
        return ALL[name]
    reasons = []
    for candidate in (ALL[name] for name in AUTOMATIC):
        reason = obstacle(candidate, request)
        if reason is None:
            say(f"backend {candidate.NAME} ({candidate.ABOUT}" + "".join(f"; {text}" for text in reasons) + ")")
            return candidate
        reasons.append(f"no {candidate.NAME}: {reason}")
    raise MachineError("; ".join(reasons))
