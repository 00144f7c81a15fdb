# SPDX-License-Identifier: MIT
"""Writing "newc" cpio archives, which the kernel unpacks as its initial RAM file system and guest/cpio.c as payload;
and the same as tar archives, which mksquashfs makes disk images of.

Times, inodes and owners are fixed, so that equal contents give equal archives.
"""

import io
import os
import shutil
import stat
import tarfile

from . import paths

MTIME = 1700000000
"""The machine's clock starts here: files are not from its future."""


class Tree:
    """An archive written entry by entry; directories are made as they are needed."""

    def __init__(self):
        self.known = {}

    def _entry(self, name, mode, data=b"", owner=0):
        """Writes one entry; data is a file's contents or a link's target."""
        raise NotImplementedError

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
        self._entry(name, stat.S_IFDIR | mode, owner=owner)

    def link(self, name, target):
        """Adds a symbolic link."""
        name = name.strip("/")
        self._parents(name)
        self.known[name] = "link"
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def data(self, name, data, mode=0o644):
        """Adds a file with the given contents."""
        name = name.strip("/")
        self._parents(name)
        self.known[name] = "file"
        self._entry(name, stat.S_IFREG | mode, data)

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


class Archive(Tree):
    """A cpio archive written to a binary file."""

    def __init__(self, file):
        super().__init__()
        self.file = file
        self.inode = 0

    def _entry(self, name, mode, data=b"", owner=0):
        self.inode += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self.inode, mode, owner, owner, 1, MTIME, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.file.write(header + b"\0" * (-len(header) % 4))
        self.file.write(data)
        self.file.write(b"\0" * (-len(data) % 4))

    def close(self):
        """Ends the archive; the file stays open."""
        self._entry("TRAILER!!!", 0)
        self.file.flush()


class Tar(Tree):
    """The same as a tar archive."""

    def __init__(self, file):
        super().__init__()
        self.tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT)

    def _entry(self, name, mode, data=b"", owner=0):
        entry = tarfile.TarInfo(name)
        entry.mode, entry.mtime, entry.uid, entry.gid = stat.S_IMODE(mode), MTIME, owner, owner
        if stat.S_ISDIR(mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.fsdecode(data)
        else:
            entry.size = len(data)
        self.tar.addfile(entry, io.BytesIO(data) if entry.size else None)

    def close(self):
        """Ends the archive; the file stays open."""
        self.tar.close()


def joined(work, root, stdin):
    """One initial RAM file system: the root file system, work/payload, and a file given as standard input.

    For machines to which nothing can be sent once they run. Where the root file system is on a disk, the other two are
    files in the archive, for the setup to put there. Returns its path.
    """
    with paths.disk_errors(work), open(work / "initrd", "wb") as initrd:
        append(initrd, root.archive)
        extra = Archive(initrd)
        if root.disk:
            extra.data("machine/payload", (work / "payload").read_bytes())
        else:
            append(initrd, work / "payload")
        if stat.S_ISREG(os.fstat(stdin).st_mode):
            with open(stdin, "rb", closefd=False) as file:
                extra.data("machine/stdin" if root.disk else "run/machine/stdin", file.read())
        extra.close()
    return work / "initrd"


def append(archive, path):
    """Copies a file to the end of an archive, which the kernel wants aligned to four bytes."""
    with open(path, "rb") as file:
        shutil.copyfileobj(file, archive, 1 << 20)
    archive.write(b"\0" * (-archive.tell() % 4))
