# SPDX-License-Identifier: MIT
"""The machine in QEMU with KVM, where the host gives VT-x to its guests. Boots each time, in about a second."""

import os
import shutil
import stat

from .. import channels, cpio, emulator, paths, request as requests, rootfs
from . import kvm_probe

NAME = "qemu"
ABOUT = "nested VT-x through /dev/kvm"
PROGRAM = "qemu-system-x86_64"

ACCELERATOR = os.environ.get("DUNE_MACHINE_QEMU", "kvm")
"""tcg tests this backend where KVM does not: such a machine has no VT-x, so only --no-module makes sense."""


def unavailable():
    """Why this backend cannot be used here, or None."""
    reason = kvm_probe.unavailable() if ACCELERATOR == "kvm" else None
    if reason is None and shutil.which(PROGRAM) is None:
        reason = f"{PROGRAM} is not installed (Debian's package qemu-system-x86)"
    return reason


class Prepared:
    """The files and settings of a start."""

    def __init__(self, request, kernel):
        self.request = request
        self.kernel = kernel
        self.root = rootfs.ensure(kernel, request.packages)
        self.memory = requests.memory_size(request, self.root)


def prepare(request, kernel):
    """Makes what a start needs; returns it for start()."""
    return Prepared(request, kernel)


def start(prepared, work, ends):
    """Starts a machine; ends maps each channel to an open file descriptor. Returns its process."""
    request = prepared.request
    stdin = ends[channels.STDIN]
    streams = request.interactive or stat.S_ISFIFO(os.fstat(stdin).st_mode)
    command = [
        PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", f"q35,accel={ACCELERATOR}", "-cpu", "host" if ACCELERATOR == "kvm" else "max",
        "-smp", str(request.cpus), "-m", f"{prepared.memory}M",
        "-kernel", prepared.kernel.image, "-initrd", cpio.joined(work, prepared.root, stdin),
        "-append", requests.command_line(request, NAME, "machine_disk=/dev/vda" if prepared.root.disk else ""),
        "-serial", f"file:{work}/console", "-device", "virtio-serial-pci,max_ports=31",
    ]
    if prepared.root.disk:
        command += ["-drive", f"file={prepared.root.disk},format=raw,if=none,id=root,readonly=on",
                    "-device", "virtio-blk-pci,drive=root"]
    for channel, descriptor in ends.items():
        if channel == channels.PAYLOAD or (channel == channels.STDIN and not streams):
            continue  # they are in the initial RAM file system
        # Without append=on QEMU truncates the file, which a pipe refuses.
        kind = "stdio,signal=off" if channel == channels.STDIN else f"file,path=/dev/fdset/{channel},append=on"
        command += ["-add-fd", f"fd={descriptor},set={channel}", "-chardev", f"{kind},id=channel{channel}",
                    "-device", f"virtserialport,nr={channel},chardev=channel{channel}"]
    with paths.disk_errors(work), open(work / "emulator.log", "wb") as output:
        return emulator.start(command, output, descriptors=tuple(ends.values()), directory=work,
                              stdin=stdin if streams else None)


def unusable(_prepared, _work):
    """Nothing is saved that could be damaged: a second try would end as the first."""
    return False
