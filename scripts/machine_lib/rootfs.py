# SPDX-License-Identifier: MIT
"""The machine's root file system: Debian packages, the first process and a few files of /etc.

A small one is a cpio archive that the kernel unpacks. A large one is a disk image (squashfs), with the archive of the
small one to start from: guest/init.c goes over to it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

from . import bootimage, cpio, paths
from .apt import Apt
from .console import call, say
from .errors import MachineError

BASE = ["base-files", "busybox-static", "libc6", "libgcc-s1", "libstdc++6"]
# To load a module, Linux looks for the name of each of its functions, from the first symbol on. Without the
# symbols that nobody else needs that is a quarter of the time for kvm (10 s in the emulator), and of kvm_intel a seventh.
STRIP = ["strip", "--discard-all"]
KERNEL_MODULES = ["kvm", "kvm_intel", "zram", "lzo_rle", "loop", "msr", "fuse", "overlay", "squashfs", "tun", "veth",
                  "virtio_pci", "virtio_console", "virtio_blk", "nd_e820", "nd_pmem",
                  "ata_piix", "sd_mod"]
MAX_ENTRIES = 40
"""20 MB and more each."""
LARGE = 96 << 20
"""Bytes in files from which on a disk image is worth it."""
SKIPPED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/",
           "usr/share/bug/")
USERS = [("root", 0, "/root"), ("daemon", 1, "/usr/sbin"), ("dune", 1000, "/home/dune"), ("nobody", 65534, "/nonexistent")]
INIT_SOURCES = paths.LIBRARY / "guest"

SETUP = """#!/bin/sh
# Run by the first process before the machine's state is saved.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dmesg -n 4
grep -q -e machine_buffer= -e machine_frames= /proc/cmdline || modprobe -a virtio_pci virtio_console
case " $(cat /proc/cmdline) " in *" machine_modules="*)
    for module in $(sed 's/.*machine_modules=\\([^ ]*\\).*/\\1/; s/,/ /g' /proc/cmdline); do
        modprobe "$module" || echo "machine: cannot load $module"
    done;;
esac
# A root file system on a disk, which stays as it is: what is written goes into memory.
case " $(cat /proc/cmdline) " in *" machine_disk="*)
    disk=$(sed 's/.*machine_disk=\\([^ ]*\\).*/\\1/' /proc/cmdline)
    case $disk in
        /dev/pmem*) modprobe -a nd_e820 nd_pmem ;;
        /dev/sd*) modprobe -a ata_piix sd_mod ;;
        *) modprobe -a virtio_pci virtio_blk ;;
    esac
    modprobe -a squashfs overlay
    for attempt in 1 2 3 4 5 6 7 8 9 10; do [ -b "$disk" ] && break; sleep 0.1; done
    mkdir -p /machine/disk /machine/memory /machine/root
    mount -t squashfs -o ro "$disk" /machine/disk || exit 1
    mount -t tmpfs machine /machine/memory && mkdir /machine/memory/upper /machine/memory/work
    mount -t overlay -o lowerdir=/machine/disk,upperdir=/machine/memory/upper,workdir=/machine/memory/work \\
        machine /machine/root
    [ ! -f /machine/payload ] || (cd /machine/root && cpio -idu </machine/payload 2>/dev/null)
    [ ! -f /machine/stdin ] || cp /machine/stdin /machine/root/run/machine/stdin
esac
"""


@dataclasses.dataclass
class Root:
    """A root file system: an archive for the kernel to unpack, and where it is large, an image of the real one."""

    archive: pathlib.Path
    disk: pathlib.Path = None

    @property
    def disk_size(self):
        """Bytes; 0 without a disk."""
        return self.disk.stat().st_size if self.disk else 0

    @property
    def name(self):
        """Tells it from all others."""
        return (self.disk or self.archive).name


def resolved(packages):
    """(name, version) of all packages of the file system; asked of apt once and then remembered."""
    wanted = sorted({*BASE, *packages})
    key = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:16]
    record = paths.cache() / "resolved" / f"{key}.json"
    if record.exists():
        return [tuple(package) for package in json.loads(record.read_text())]
    found = Apt("bookworm").closure(wanted)
    paths.write_whole(record, json.dumps(found).encode())
    return found


def identity(kernel, packages):
    """Names the archive that ensure() would make."""
    digest = hashlib.sha256(json.dumps([kernel.release, resolved(packages), KERNEL_MODULES, SETUP, USERS]).encode())
    for source in sorted(INIT_SOURCES.iterdir()):
        digest.update(source.read_bytes())
    digest.update(pathlib.Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def ensure(kernel, packages):
    """The root file system for a kernel with extra Debian packages, made when it is missing."""
    base = paths.cache() / "rootfs" / identity(kernel, packages)
    root = existing(base)
    if root is None:
        with paths.locked("rootfs"):
            root = existing(base)
            if root is None:
                make(base, kernel, packages)
    root = existing(base)
    return root if root.disk is None else Root(ensure(kernel, []).archive, root.disk)


def existing(base):
    """What there is under a name, as a Root; its archive is missing when it is a disk."""
    archive, disk = base.with_suffix(".cpio"), base.with_suffix(".squashfs")
    if disk.exists():
        return Root(None, disk)
    return Root(archive) if archive.exists() else None


def is_large(packages):
    """True when the files of the packages would take much of the machine's memory."""
    size = sum(os.lstat(os.path.join(directory, file)).st_size
               for tree in trees(packages) for directory, _, files in os.walk(tree) for file in files)
    return size > LARGE


def trees(packages):
    """Directories of the unpacked packages."""
    return Apt("bookworm").unpacked(resolved(packages))


def make(base, kernel, packages):
    """Writes base.cpio or base.squashfs."""
    say(f"making the root file system for {kernel.release}" + (f" with {' '.join(packages)}" if packages else ""))
    with paths.made_whole(base.with_suffix(".d")) as work:
        if is_large(packages):
            make_disk(work / "root", kernel, packages, work)
            (work / "root").rename(base.with_suffix(".squashfs"))
        else:
            with open(work / "root", "wb") as file:
                fill(cpio.Archive(file), kernel, packages, work)
            (work / "root").rename(base.with_suffix(".cpio"))
    shutil.rmtree(base.with_suffix(".d"))
    paths.keep_newest(base.parent, MAX_ENTRIES)


def make_disk(image, kernel, packages, work):
    """Writes the root file system as squashfs: not compressed, for the emulated processor would have to expand it."""
    with open(work / "mksquashfs.log", "w+b") as log:
        with subprocess.Popen(["mksquashfs", "-", image, "-tar", "-noI", "-noD", "-noF", "-noX", "-quiet", "-no-progress",
                               "-mkfs-time", str(cpio.MTIME), "-root-time", str(cpio.MTIME)],
                              stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                fill(cpio.Tar(process.stdin), kernel, packages, work)
        if process.returncode != 0:
            log.seek(0)
            raise MachineError(f"cannot make the disk image of the root file system: {log.read().decode().strip()}")
    # Of whole cylinders, as an emulator that knows its geometry wants it.
    os.truncate(image, -(-image.stat().st_size // bootimage.CYLINDER) * bootimage.CYLINDER)


def fill(writer, kernel, packages, work):
    """Writes all of the root file system."""
    skeleton(writer)
    init = build_init(work)
    writer.data("init", init.read_bytes(), 0o755)
    for tree in trees(packages):
        add_tree(writer, tree)
    add_busybox(writer)
    add_modules(writer, kernel, work)
    add_library_cache(writer, packages, work)
    writer.close()


def skeleton(writer):
    """Directories, the links of a merged /usr, and /etc."""
    for name in ("bin", "sbin", "lib", "lib64"):
        writer.directory(f"usr/{name}")
        writer.link(name, f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "mnt", "opt/dune/bin", "opt/dune/lib", "var/log", "var/lib", "etc"):
        writer.directory(name)
    writer.link("var/run", "/run")
    for name in ("tmp", "var/tmp"):
        writer.directory(name, 0o1777)
    writer.directory("root", 0o700)
    writer.directory("home/dune", 0o755, 1000)
    writer.data("etc/passwd", "".join(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n" for name, uid, home in USERS).encode())
    writer.data("etc/group", ("".join(f"{name}:x:{uid}:\n" for name, uid, _ in USERS) + "tty:x:5:\nkvm:x:104:\n").encode())
    writer.data("etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name, _, _ in USERS).encode(), 0o600)
    writer.data("etc/hosts", b"127.0.0.1 localhost machine\n::1 localhost\n")
    writer.data("etc/hostname", b"machine\n")
    writer.data("etc/nsswitch.conf", b"passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n")
    writer.data("etc/machine/setup", SETUP.encode(), 0o755)


def build_init(work):
    """Compiles the first process, statically."""
    init = work / "init"
    sources = sorted(INIT_SOURCES.glob("*.c"))
    call(["gcc", "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Wno-unused-result", "-o", init, *sources],
         "cannot compile the machine's first process")
    return init


def merged(name):
    """The place of a package's file in a file system with a merged /usr."""
    top = name.split("/", 1)[0]
    return f"usr/{name}" if top in ("bin", "sbin", "lib", "lib64") else name


def add_tree(writer, tree):
    """Adds a package's files but documentation; what is there already stays."""
    for directory, names, files in os.walk(tree):
        names.sort()
        relative = os.path.relpath(directory, tree)
        for entry in sorted(files + [name for name in names if os.path.islink(os.path.join(directory, name))]):
            name = merged(os.path.normpath(os.path.join(relative, entry)))
            if not name.startswith(SKIPPED) and name not in writer.known:
                writer.copy(name, os.path.join(directory, entry))
        if relative != ".":
            name = merged(relative)
            if not f"{name}/".startswith(SKIPPED):
                writer.directory(name)


def add_busybox(writer):
    """Links for all of busybox' commands that no package has."""
    [tree] = [tree for tree in trees([]) if tree.name.startswith("busybox-static_")]
    for path in call([tree / "bin/busybox", "--list-full"], "cannot ask busybox for its commands").split():
        name = merged(path)
        others = (f"usr/{place}/{os.path.basename(name)}" for place in ("bin", "sbin"))
        if name not in writer.known and not any(other in writer.known for other in others):
            writer.link(name, "/bin/busybox")


def add_modules(writer, kernel, work):
    """Adds some kernel modules, what they depend on, and depmod's index of them."""
    place = work / f"modules/lib/modules/{kernel.release}"
    for path in kernel.dependencies(KERNEL_MODULES):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        call([*STRIP, "-o", place / path, kernel.modules / path], f"cannot strip {path}")
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (kernel.modules / name).exists():
            (place / name).write_bytes((kernel.modules / name).read_bytes())
    call(["depmod", "-b", work / "modules", kernel.release], "cannot index the kernel's modules")
    writer.copy(f"usr/lib/modules/{kernel.release}", place)


def add_library_cache(writer, packages, work):
    """Adds /etc/ld.so.cache, which packages that keep libraries in directories of their own rely on."""
    root = work / "libraries"
    configuration = root / "etc/ld.so.conf.d"
    configuration.mkdir(parents=True)
    (root / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
    (configuration / "machine.conf").write_text("/usr/local/lib\n/usr/lib/x86_64-linux-gnu\n")
    for tree in trees(packages):
        for library in tree.rglob("*.so.*"):
            if library.is_file() or library.is_symlink():
                to = root / merged(str(library.relative_to(tree)))
                to.parent.mkdir(parents=True, exist_ok=True)
                if not to.exists() and library.is_file() and not library.is_symlink():
                    os.link(library, to)
    for name in ("lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    result = subprocess.run(["/sbin/ldconfig", "-X", "-r", root], capture_output=True, check=False)
    if result.returncode != 0:
        raise MachineError(f"cannot index the libraries: {result.stderr.decode().strip()}")
    writer.copy("etc/ld.so.cache", root / "etc/ld.so.cache")
