# SPDX-License-Identifier: MIT
"""The machine in Bochs: VT-x in software, on any host. Starts from a saved state."""


import os

from .. import bochs_build, console, emulator, paths
from ..snapshot import COMPLETE, Snapshot

NAME = "bochs"
ABOUT = "VT-x in software, works everywhere"


def unavailable():
    """Why this backend cannot be used here, or None."""
    return None


def prepare(request, kernel):
    """Makes what a start needs; returns it for start()."""
    snapshot = Snapshot(request, kernel)
    snapshot.ensure()
    return snapshot


def link_state(state, snapshot, work):
    """A directory like the saved state's but with a configuration of its own."""
    state.mkdir()
    for file in snapshot.directory.iterdir():
        if file.name not in ("config", "console", "logopts", COMPLETE):
            (state / file.name).symlink_to(file)
    configuration = snapshot.configuration(work, bochs_build.directory())
    levels = (snapshot.directory / "logopts").read_text()
    wanted = snapshot.request.emulator_log
    if wanted:
        configuration += f"log: {os.path.abspath(wanted)}\n"
    else:
        # A kernel's timer reads registers that the emulator lacks, and each read would be a line of the log.
        levels = levels.replace("ERROR=report", "ERROR=ignore")
    (state / "config").write_text(configuration)
    (state / "logopts").write_text(levels)


def start(snapshot, work, ends):
    """Starts a machine; ends maps each channel to an open file descriptor. Returns its process."""
    with paths.disk_errors(work):
        link_state(work / "state", snapshot, work)
        output = open(work / "emulator.log", "wb")
    with output:
        mapping = ",".join(f"{channel}={descriptor}" for channel, descriptor in ends.items())
        return emulator.start([bochs_build.directory() / "bochs", "-q", "-r", work / "state"], output,
                              {"DUNE_CHANNELS": mapping}, tuple(ends.values()), work)


def unusable(snapshot, work):
    """Called when a machine ended before it was up: True when a new start may do better."""
    console.say("the saved state is damaged: making it anew")
    snapshot.discard()
    snapshot.ensure()
    return True
