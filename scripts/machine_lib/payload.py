# SPDX-License-Identifier: MIT
"""What a run brings into the machine: the module, the build's programs, host files the command names, the scripts that
run it. One cpio archive, which the first process unpacks over its root.
"""

import hashlib
import os
import pathlib
import re
import shlex
import subprocess

from . import cpio, paths, rootfs
from .console import call
from .errors import MachineError

BIN, LIB = "opt/dune/bin", "opt/dune/lib"
WORTH_STRIPPING = 1 << 20
MAX_STRIPPED = 200

BEFORE = """\
mount -t debugfs none /sys/kernel/debug 2>/dev/null
mount -t tracefs none /sys/kernel/tracing 2>/dev/null
if [ -f /run/machine/dune.ko ]; then
    insmod /run/machine/dune.ko {arguments} || exit 1
fi
"""

COMMAND = """\
cd {directory} 2>/dev/null || cd /root
[ -f /run/machine/stdin ] && exec </run/machine/stdin
exec {command}
"""

AFTER = """\
[ -d /sys/module/dune ] || exit 0
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rmmod dune 2>/run/machine/rmmod && exit 0
    sleep 0.1
done
cat /run/machine/rmmod
exit 1
"""


class Payload:
    """Collects what goes in, each thing once, and writes the archive."""

    def __init__(self, file):
        self.archive = cpio.Archive(file)
        self.base = base_files()
        self.sources = []

    def add(self, source, name):
        """Adds a host file or directory as name, and the shared libraries of its programs."""
        source = os.path.realpath(source)
        if name.strip("/") in self.archive.known:
            return
        self.archive.copy(name, source)
        self.sources.append(source)

    def add_library(self, path):
        """Adds a shared library under its own path unless the root file system has the very same."""
        name = rootfs.merged(path.strip("/"))
        status = os.stat(path)
        if name in self.archive.known or self.base.get(name) == (status.st_size, int(status.st_mtime)):
            return
        self.archive.data(name, pathlib.Path(path).read_bytes(), 0o755)

    def add_libraries(self):
        """Adds the shared libraries of all that has been added."""
        own = {os.path.basename(name) for name in self.archive.known if name.startswith(LIB + "/")}
        for path in sorted(libraries(programs(self.sources))):
            if os.path.basename(path) not in own:
                self.add_library(path)


def base_files():
    """(size, time) of each library of the root file system's base packages."""
    found = {}
    for tree in rootfs.trees([]):
        for path in tree.rglob("*.so*"):
            status = path.stat() if path.exists() else None
            if status:
                found[rootfs.merged(str(path.relative_to(tree)))] = (status.st_size, int(status.st_mtime))
    return found


def programs(sources):
    """The dynamically linked ELF files among files and directories."""
    found = []
    for source in sources:
        files = ([os.path.join(directory, name) for directory, _, names in os.walk(source) for name in names]
                 if os.path.isdir(source) else [source])
        for file in files:
            if os.path.isfile(file) and not os.path.islink(file) and not file.endswith((".ko", ".o", ".a")):
                with open(file, "rb") as stream:
                    if stream.read(4) == b"\x7fELF":
                        found.append(file)
    return found


def libraries(files):
    """Paths of the shared libraries that programs need, as the dynamic linker finds them here."""
    found = set()
    if files:
        result = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
        for line in result.stdout.splitlines():
            match = re.match(r"\t(?:\S+ => )?(/\S+) \(0x", line)
            if match:
                found.add(match[1])
    return found


def without_debug_information(path):
    """The path of a program or library, or of a copy in the cache that is several times as quick to send."""
    status = path.stat()
    if status.st_size < WORTH_STRIPPING:
        return path
    key = f"{os.path.realpath(path)} {status.st_mtime_ns} {status.st_size}"
    copy = paths.cache() / "stripped" / hashlib.sha256(os.fsencode(key)).hexdigest()[:20]
    if not copy.exists():
        with paths.disk_errors(copy.parent):
            copy.parent.mkdir(exist_ok=True)
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
        try:
            call(["strip", "--strip-debug", "-o", temporary, path], f"cannot strip {path.name}")
        except MachineError:
            return path  # a script, or a program that is just being linked
        temporary.rename(copy)
        paths.keep_newest(copy.parent, MAX_STRIPPED)
    return copy


def host_paths(command):
    """Words of the command that name something which exists here."""
    return [word for word in command if "/" in word and os.path.exists(word) and not is_system(word)]


def is_system(word):
    """True for paths that the machine has its own version of."""
    real = os.path.abspath(word)
    return real == "/" or any(real == top or real.startswith(top + "/") for top in ("/dev", "/proc", "/sys", "/run")) or (
        os.path.isdir(real) and real.count("/") == 1)


def split_pair(text):
    """SRC and DEST of "SRC[:DEST]"; DEST is None when it is not given."""
    source, separator, destination = text.partition(":")
    if not source or (separator and not destination):
        raise MachineError(f"{text} is not SRC[:DEST]", 2)
    return source, destination or None


def write(path, request, module, build_directory):
    """Writes the archive for a request to path. module is the path of dune.ko or None."""
    with paths.disk_errors(path.parent), open(path, "wb") as file:
        payload = Payload(file)
        for part, place in (("bin", BIN), ("lib", LIB)):
            directory = build_directory / part
            for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
                if entry.is_symlink():
                    payload.archive.link(f"{place}/{entry.name}", os.readlink(entry))
                elif entry.is_file() and not entry.name.endswith(".a"):
                    payload.add(without_debug_information(entry), f"{place}/{entry.name}")
        for text in request.copy_in:
            source, destination = split_pair(text)
            if not os.path.exists(source):
                raise MachineError(f"--copy-in {source}: no such file or directory", 2)
            payload.add(source, destination or os.path.abspath(source))
        for word in host_paths(request.command):
            payload.add(word, os.path.abspath(word))
        payload.add_libraries()
        add_scripts(payload.archive, request, module)
        payload.archive.close()


def add_scripts(archive, request, module):
    """Adds the module and what the first process runs."""
    if module is not None:
        archive.data("run/machine/dune.ko", without_debug_information(module).read_bytes())
    directory = os.getcwd()
    command = [os.path.abspath(word) if word in host_paths([word]) else word for word in request.command]
    archive.data("run/machine/before", BEFORE.format(arguments=request.module_args).encode())
    archive.data("run/machine/command", COMMAND.format(
        directory=shlex.quote(directory), command=" ".join(map(shlex.quote, command))).encode())
    if request.copy_out:
        sources = " ".join(shlex.quote("." + os.path.join("/", split_pair(text)[0])) for text in request.copy_out)
        archive.data("run/machine/results", f"exec tar -c -f - -C / {sources}\n".encode())
    if module is not None and not request.keep:
        archive.data("run/machine/after", AFTER.encode())
    if request.interactive:
        size = os.get_terminal_size(0)
        archive.data("run/machine/terminal", f"{size.lines or 24} {size.columns or 80}\n".encode())
