# SPDX-License-Identifier: MIT
"""Bringing out of the machine what --copy-out asks for."""

import os
import shutil
import tarfile

from . import paths
from .errors import MachineError
from .payload import split_pair


def deliver(archive, copy_out):
    """Unpacks a tar archive of the machine's files to where --copy-out wants them."""
    for text in copy_out:
        source, destination = split_pair(text)
        source = os.path.normpath("/" + source.lstrip("/"))
        destination = destination or os.path.basename(source)
        if os.path.isdir(destination):
            destination = os.path.join(destination, os.path.basename(source))
        if not extract(archive, source, destination):
            raise MachineError(f"--copy-out {source}: the machine has no such file or directory")


def extract(archive, source, destination):
    """Unpacks one file or directory; False when it is not in the archive."""
    found = False
    with paths.disk_errors(destination), tarfile.open(archive) as tar:
        for member in tar:
            name = os.path.normpath("/" + member.name.lstrip("/"))
            if name != source and not name.startswith(source.rstrip("/") + "/"):
                continue
            found = True
            rest = name[len(source.rstrip("/")):].lstrip("/")
            target = os.path.join(destination, rest) if rest else destination
            check_inside(destination, target)
            place(tar, member, target)
    return found


def check_inside(destination, target):
    """Raises MachineError when a link that the machine made would lead out of the destination."""
    real = os.path.realpath(os.path.dirname(os.path.abspath(target)))
    top = os.path.realpath(os.path.dirname(os.path.abspath(destination)))
    if target != destination:
        top = os.path.join(top, os.path.basename(destination))
    if real != top and not real.startswith(top + os.sep):
        raise MachineError(f"--copy-out: {target} would be written to {real}, through a link that the machine made")


def place(tar, member, target):
    """Makes one member: directories, links and regular files; the machine's devices and owners stay there."""
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        return
    if os.path.lexists(target) and not os.path.isdir(target):
        os.unlink(target)  # never through a link
    if member.issym():
        os.symlink(member.linkname, target)
    elif member.isreg() or member.islnk():
        with tar.extractfile(member) as data, open(target, "wb") as file:
            shutil.copyfileobj(data, file, 1 << 20)
        os.chmod(target, member.mode & 0o777)
