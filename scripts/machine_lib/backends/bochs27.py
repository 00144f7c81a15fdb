# SPDX-License-Identifier: MIT
"""The machine in the Bochs 2.7 of Debian 12, for systems on which version 3.0 cannot be built. Boots each time, slowly.

This version cannot put files into memory, so the boot ROM reads them from a disk; nor save its state when asked, nor
has it our channels: what goes out comes as frames on its standard output.
"""

import os
import shutil
import struct
import threading

from .. import apt, bootimage, channels, cpio, emulator, paths, request as requests, rootfs
from ..console import say
from ..errors import STATUS_USAGE, MachineError

NAME = "bochs27"
ABOUT = "VT-x in software, Debian's own emulator, slow"
PACKAGES = ["bochs", "bochs-term", "bochsbios", "vgabios"]
HOSTS_OWN = ("libc6", "libgcc-s1", "libstdc++6")
"""Libraries that a program must have of one piece with the host's dynamic linker."""
MAGIC = b"\nmachine frames\n"
FRAME = struct.Struct("<BI")

PATIENCE = 5
"""Times what another backend may take to come up."""

CONFIGURATION = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
romimage: file={root}/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file={root}/usr/share/vgabios/vgabios.bin
memory: guest={ram}, host={ram}
cpu: model={cpu}, count={cpus}, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none, time0=1700000000, rtc_sync=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path={work}/disk, mode=flat, cylinders={cylinders}, heads={heads}, spt={track}
optromimage1: file={work}/boot.rom, address={rom:#x}
boot: disk
com1: enabled=1, mode=file, dev={work}/console
port_e9_hack: enabled=1
pci: enabled=1, chipset=i440fx
sound: driver=dummy
speaker: enabled=0
log: {work}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""

SLAVE = "ata0-slave: type=disk, path={work}/root, mode=flat, cylinders={cylinders}, heads={heads}, spt={track}\n"


def unavailable():
    """Why this backend cannot be used here, or None."""
    return None


class Prepared:
    """The files and settings of a start."""

    def __init__(self, request, kernel):
        self.request = request
        self.kernel = kernel
        self.root = rootfs.ensure(kernel, request.packages)
        self.memory = requests.memory_size(request, self.root)
        self.emulator = ensure()


def ensure():
    """A directory with the emulator and its libraries, made when it is missing."""
    target = paths.cache() / "bochs27"
    if not target.is_dir():
        with paths.locked("bochs27"):
            if not target.is_dir():
                say("fetching Debian's Bochs 2.7")
                suites = apt.Apt("bookworm")
                with paths.made_whole(target) as root:
                    needed = [package for package in suites.closure(PACKAGES) if package[0] in PACKAGES or (
                        package[0].startswith("lib") and package[0] not in HOSTS_OWN)]
                    for tree in suites.unpacked(needed):
                        shutil.copytree(tree, root, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
    return target


def prepare(request, kernel):
    """Makes what a start needs; returns it for start()."""
    if request.interactive:
        raise MachineError("Bochs 2.7 takes no input, so it can give no shell", STATUS_USAGE)
    if request.memory > bootimage.PCI_HOLE // bootimage.MIB:
        raise MachineError("Bochs 2.7 gives at most 3072 MiB of memory", STATUS_USAGE)
    return Prepared(request, kernel)


def start(prepared, work, ends):
    """Starts a machine; ends maps each channel to an open file descriptor. Returns its process."""
    request, root = prepared.request, prepared.emulator
    words = "machine_frames=1" + (" machine_disk=/dev/sdb" if prepared.root.disk else "")
    with paths.disk_errors(work):
        cylinders = bootimage.write_disk(work, prepared.kernel, cpio.joined(work, prepared.root, ends[channels.STDIN]),
                                         prepared.memory, requests.command_line(request, "bochs", words),
                                         requests.randomizes(request))
        configuration = CONFIGURATION.format(
            root=root, ram=prepared.memory, cpu=request.cpu, cpus=request.cpus, work=work, cylinders=cylinders,
            heads=bootimage.HEADS, track=bootimage.TRACK, rom=bootimage.ROM_ADDRESS)
        if prepared.root.disk:
            (work / "root").symlink_to(prepared.root.disk)  # a lock of the emulator's is made beside it
            configuration += SLAVE.format(work=work, cylinders=prepared.root.disk_size // bootimage.CYLINDER,
                                          heads=bootimage.HEADS, track=bootimage.TRACK)
        (work / "bochsrc").write_text(configuration)
        (work / "commands").write_text("c\n")  # this version starts in its debugger
        errors = open(work / "emulator.log", "wb")
    libraries = root / "usr/lib/x86_64-linux-gnu"
    incoming, outgoing = os.pipe()
    with errors:
        process = emulator.start(
            [root / "usr/bin/bochs-bin", "-q", "-f", work / "bochsrc", "-rc", work / "commands"], outgoing,
            {"LD_LIBRARY_PATH": f"{libraries}:{root}/lib/x86_64-linux-gnu", "LTDL_LIBRARY_PATH":
             str(libraries / "bochs/plugins"), "BXSHARE": str(root / "usr/share/bochs")}, directory=work, errors=errors)
    os.close(outgoing)
    process.relay = threading.Thread(target=relay, args=(incoming, {c: os.dup(fd) for c, fd in ends.items()}),
                                     daemon=True)
    process.relay.start()
    return process


def write(descriptor, data):
    """Writes all of it; False when that cannot be done."""
    try:
        while data:
            data = data[os.write(descriptor, data):]
        return True
    except OSError:
        return False


def relay(incoming, ends):
    """Sorts the frames from the emulator's output to the channels, until its end."""
    with open(incoming, "rb") as stream:
        seen, lost = b"", set()
        while not seen.endswith(MAGIC):
            byte = stream.read(1)
            if not byte:
                return
            seen = seen[-len(MAGIC):] + byte
        while len(header := stream.read(FRAME.size)) == FRAME.size:
            channel, length = FRAME.unpack(header)
            if channel not in ends:
                break  # the emulator's own last words
            while length > 0 and (data := stream.read1(min(length, 1 << 16))):
                if not write(ends[channel], data) and channel not in lost:
                    lost.add(channel)
                    os.write(ends[channels.CONTROL], f"lost {channel}\n".encode())
                length -= len(data)
    for descriptor in ends.values():
        os.close(descriptor)


def unusable(_prepared, _work):
    """Nothing is saved that could be damaged: a second try would end as the first."""
    return False
