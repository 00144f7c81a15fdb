# SPDX-License-Identifier: MIT
"""Debian's kernels in the cache: images, modules and headers, unpacked and never installed."""

import os
import pathlib
import platform
import re
import shutil
import struct
import subprocess

from . import paths
from .apt import Apt
from .console import call, say
from .errors import MachineError

# By the name on the command line: the suites that have the kernel, the names of its packages, and the compiler that
# modules are built with (None: the one of those suites, in toolchain.py's root directory).
KNOWN = {
    "6.1": ("bookworm", r"linux-image-(6\.1\.0-(\d+)-cloud-amd64)", "gcc-12"),
    "6.12": ("bookworm", r"linux-image-(6\.12\.(\d+)\+deb12-cloud-amd64)", "gcc-12"),
    "7.3": ("trixie", r"linux-image-(7\.3\.(\d+)\+deb13-cloud-amd64)", None),
}
IMAGE_PARTS = "image|binary|modules"
"""From 7.0 on Debian splits the package with the image."""
DEFAULT = "6.1"
HOST = "host"

# Compressed payloads of a bzImage by their first bytes.
DECOMPRESSORS = [(b"\x1f\x8b", "gzip"), (b"\x02\x21\x4c\x18", "lz4"), (b"\x28\xb5\x2f\xfd", "zstd"),
                 (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2"), (b"\x5d\0\0", "lzma")]


class Kernel:
    """A kernel in the cache."""

    def __init__(self, version):
        self.version = version
        self.family, _, self.compiler = KNOWN[version]
        self.directory = paths.cache() / "kernels" / version
        self.release = (self.directory / "release").read_text().strip()
        self.root = self.directory / "root"
        self.image = self.directory / "vmlinuz"
        self.vmlinux = self.directory / "vmlinux"
        self.modules = self.root / f"lib/modules/{self.release}"
        self.headers = self.root / f"usr/src/linux-headers-{self.release}"

    def dependencies(self, names):
        """Paths below the modules directory of the named modules and of all that they depend on, in loading order."""
        table = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            table[module_name(path)] = [*reversed(needs.split()), path]
        found = []
        for name in names:
            found += [path for path in table.get(module_name(name), []) if path not in found]
        return found


def module_name(path):
    """The name of a module from its file's."""
    return pathlib.PurePath(path).name.split(".")[0].replace("-", "_")


def check_known(version):
    """Raises MachineError for a kernel that is not supported."""
    if version not in KNOWN:
        raise MachineError(f"unknown kernel {version}: this program has {', '.join(KNOWN)}; see scripts/machine list",
                           2)


def is_cached(version):
    """True when the kernel needs no network."""
    return (paths.cache() / "kernels" / version / "release").exists()


def ensure(version):
    """The kernel, fetched when it is missing."""
    if version == HOST:
        version = host_version()
    check_known(version)
    if not is_cached(version):
        with paths.locked(f"kernel-{version}"):
            if not is_cached(version):
                fetch(version)
    return Kernel(version)


def host_version():
    """The known kernel that is of the same line as the running one."""
    line = ".".join(re.match(r"(\d+)\.(\d+)", platform.release()).groups())
    if line not in KNOWN:
        raise MachineError(f"the running kernel {platform.release()} is none that can be fetched "
                           f"({', '.join(KNOWN)}); --kernel host is for --backend native", 2)
    return line


def newest(version, apt):
    """The release of the newest kernel of this line."""
    found = [match for name in apt.names(KNOWN[version][1]) if (match := re.fullmatch(KNOWN[version][1], name))]
    if not found:
        raise MachineError(f"{apt.family} has no kernel {version} any more: choose another with --kernel "
                           f"({', '.join(KNOWN)})")
    return max(found, key=lambda match: int(match[2]))[1]


def fetch(version):
    """Fetches a kernel and its headers into the cache."""
    apt = Apt(KNOWN[version][0])
    release = newest(version, apt)
    say(f"fetching kernel {release}")
    image = apt.candidates(apt.names(rf"linux-({IMAGE_PARTS})-{re.escape(release)}"))
    headers = [package for package in apt.closure([f"linux-headers-{release}"])
               if package[0].startswith(("linux-headers-", "linux-kbuild-"))]
    trees = apt.unpacked(image + headers)
    directory = paths.cache() / "kernels" / version
    with paths.made_whole(directory) as target:
        root = target / "root"
        root.mkdir()
        for tree in trees:
            call(["cp", "-a", f"{tree}/.", root], f"cannot copy {tree.name}")
        merge_usr(root)
        relocate_headers(root, directory / "root")
        places = [root / f"boot/vmlinuz-{release}", root / f"lib/modules/{release}/vmlinuz"]
        image = next((place for place in places if place.exists()), None)
        if image is None:
            raise MachineError(f"the packages of kernel {release} hold no image")
        image.rename(target / "vmlinuz")
        decompress(target / "vmlinuz", target / "vmlinux")
        unpack_modules(root / f"lib/modules/{release}")
        call(["depmod", "-b", root, release], "cannot index the kernel's modules")
        (target / "release").write_text(release + "\n")
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)


def merge_usr(root):
    """Moves /usr/lib into /lib: packages of newer suites are there already."""
    if (root / "usr/lib").is_dir():
        call(["cp", "-a", f"{root}/usr/lib/.", root / "lib"], "cannot merge /usr/lib")
        shutil.rmtree(root / "usr/lib")
    (root / "usr/lib").symlink_to("../lib")


def relocate_headers(root, final):
    """Makes the headers, whose files name each other by absolute paths, usable where they are."""
    for directory in (root / "usr/src").glob("linux-headers-*"):
        for name in ("Makefile", ".kernelvariables"):
            file = directory / name
            if file.is_file():
                text = re.sub(r"(^|[\s=(])/usr/(src|lib)/linux-", rf"\1{final}/usr/\2/linux-", file.read_text(),
                              flags=re.MULTILINE)
                file.unlink()
                file.write_text(text)
        for link in directory.iterdir():
            if link.is_symlink() and os.path.isabs(os.readlink(link)):
                to = f"{final}{os.readlink(link)}"
                link.unlink()
                link.symlink_to(to)


def decompress(image, vmlinux):
    """Unpacks the ELF kernel out of a bzImage; boot.rst calls the fields setup_sects, payload_offset, payload_length."""
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[((data[0x1f1] or 4) + 1) * 512 + offset:][:length]
    for magic, program in DECOMPRESSORS:
        if payload.startswith(magic):
            break
    else:
        raise MachineError(f"{image.name} is compressed in an unknown way ({payload[:4].hex()})")
    try:
        result = subprocess.run([program, "-dc"], input=payload, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MachineError(f"{program} is not installed; install the packages that scripts/packages names") from error
    # The length of the unpacked kernel follows the compressed data: the decompressor takes it for trailing garbage.
    if not result.stdout.startswith(b"\x7fELF"):
        raise MachineError(f"{image.name}: {program} found no kernel in it")
    vmlinux.write_bytes(result.stdout)


def unpack_modules(modules):
    """Unpacks compressed modules: busybox loads plain ones only."""
    packed = list(modules.rglob("*.ko.xz"))
    for start in range(0, len(packed), 500):
        call(["xz", "-d", *packed[start:start + 500]], "cannot unpack the kernel's modules")
