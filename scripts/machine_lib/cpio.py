# SPDX-License-Identifier: MIT
"""Writing "newc" cpio archives, which the kernel unpacks as its initial RAM file system and guest/cpio.c as payload.

Times, inodes and owners are fixed, so that equal contents give equal archives.
"""

import os
import shutil
import stat

from . import paths

MTIME = 1700000000
"""The machine's clock starts here: files are not from its future."""


class Archive:
    """A cpio archive written to a binary file; directories are made as they are needed."""

    def __init__(self, file):
        self.file = file
        self.inode = 0
        self.known = {}

    def _header(self, name, mode, size, owner=0):
        self.inode += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self.inode, mode, owner, owner, 1, MTIME, size, 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.file.write(header + b"\0" * (-len(header) % 4))

    def _parents(self, name):
        parent = os.path.dirname(name)
        if parent and parent not in self.known:
            self.directory(parent)

    def directory(self, name, mode=0o755, owner=0):
        """Adds a directory, once."""
        name = name.strip("/")
        if not name or name in self.known:
            return
        self._parents(name)
        self.known[name] = "directory"
        self._header(name, stat.S_IFDIR | mode, 0, owner)

    def link(self, name, target):
        """Adds a symbolic link."""
        name = name.strip("/")
        self._parents(name)
        self.known[name] = "link"
        data = os.fsencode(target)
        self._header(name, stat.S_IFLNK | 0o777, len(data))
        self.file.write(data + b"\0" * (-len(data) % 4))

    def data(self, name, data, mode=0o644):
        """Adds a file with the given contents."""
        name = name.strip("/")
        self._parents(name)
        self.known[name] = "file"
        self._header(name, stat.S_IFREG | mode, len(data))
        self.file.write(data)
        self.file.write(b"\0" * (-len(data) % 4))

    def copy(self, name, source):
        """Adds a host file, link or directory (with all below it) under the given name."""
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            self.link(name, os.readlink(source))
        elif stat.S_ISDIR(status.st_mode):
            self.directory(name, stat.S_IMODE(status.st_mode))
            for entry in sorted(os.listdir(source)):
                self.copy(f"{name}/{entry}", os.path.join(source, entry))
        elif stat.S_ISREG(status.st_mode):
            with open(source, "rb") as file:
                self.data(name, file.read(), stat.S_IMODE(status.st_mode))

    def close(self):
        """Ends the archive; the file stays open."""
        self._header("TRAILER!!!", 0, 0)
        self.file.flush()


def joined(work, archive, stdin):
    """One initial RAM file system of three archives: the root file system, work/payload, and a file given as standard input.

    For machines to which nothing can be sent once they run. Returns its path.
    """
    with paths.disk_errors(work), open(work / "initrd", "wb") as initrd:
        for part in (archive, work / "payload"):
            with open(part, "rb") as file:
                shutil.copyfileobj(file, initrd, 1 << 20)
            initrd.write(b"\0" * (-initrd.tell() % 4))
        if stat.S_ISREG(os.fstat(stdin).st_mode):
            extra = Archive(initrd)
            with open(stdin, "rb", closefd=False) as file:
                extra.data("run/machine/stdin", file.read())
            extra.close()
    return work / "initrd"
