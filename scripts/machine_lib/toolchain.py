# SPDX-License-Identifier: MIT
"""A compiler that this system does not have: packages of a newer suite, unpacked into a root directory of their own.

Nothing in it is installed or configured. A build runs in it by chroot within a mount namespace, where the kernel's
headers and the build directory are at the same paths as outside.
"""

import hashlib
import json
import os

from . import paths
from .apt import Apt
from .console import call, say
from .errors import MachineError

PACKAGES = ["bash", "coreutils", "dash", "diffutils", "findutils", "gcc-14", "grep", "libelf1t64", "make", "mawk",
            "perl-base", "sed"]
ENTER = """
set -e
root=$1; shift
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/ LC_ALL=C "$@"
"""


def directory(family):
    """Where the root directory is, or will be."""
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    return paths.cache() / "toolchains" / f"{family}-{key}"


def ensure(family):
    """The root directory with a suite's compiler, made when it is missing."""
    root = directory(family)
    if not root.is_dir():
        with paths.locked(f"toolchain-{family}"):
            if not root.is_dir():
                make(root, family)
    return root


def make(root, family):
    """Unpacks the packages into one tree."""
    say(f"fetching the compiler of {family}")
    apt = Apt(family)
    packages = apt.closure(PACKAGES)
    with paths.made_whole(root) as target:
        for name in ("bin", "sbin", "lib", "lib64"):
            (target / "usr" / name).mkdir(parents=True)
            (target / name).symlink_to(f"usr/{name}")
        for name in ("dev", "proc", "tmp"):
            (target / name).mkdir()
        for tree in apt.unpacked(packages):
            call(["sh", "-c", 'tar -C "$1" -c . | tar -C "$2" -x --keep-directory-symlink && rm -r "$1"', "sh", tree,
                  target], f"cannot copy {tree.name}")
        if not (target / "usr/bin/awk").exists():
            (target / "usr/bin/awk").symlink_to("mawk")
        (target / "packages.json").write_text(json.dumps(packages))


def enter(root, shared, command):
    """The command line that runs a command in the root directory, where the shared directories are visible."""
    options = "-m" if os.geteuid() == 0 else "-rm"
    return ["unshare", options, "sh", "-c", ENTER, "sh", root, "/dev", "/proc", *shared, "--", *command]


def check(root):
    """Raises MachineError when this system does not let us enter it."""
    try:
        call(enter(root, [], ["true"]), "cannot enter it")
    except MachineError as error:
        raise MachineError("building for this kernel needs a newer compiler, run in a mount namespace, which this "
                           f"system does not allow ({error})") from error
