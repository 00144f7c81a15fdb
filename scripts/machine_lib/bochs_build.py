# SPDX-License-Identifier: MIT
"""Building Bochs 3.0, patched, into the cache."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import time

from . import emulator, paths
from .apt import Apt
from .console import call, failed, say
from .errors import MachineError

PATCH = paths.LIBRARY / "bochs/bochs-3.0.patch"
HOSTIO = paths.LIBRARY / "bochs/hostio.h"
VERSION = "3.0"
PROGRESS_SECONDS = 10

CONFIGURE = """
--enable-x86-64 --enable-cpu-level=6 --enable-vmx=2 --enable-smp --enable-avx --enable-evex --enable-amx --enable-memtype
--enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining --enable-trace-linking
--enable-all-optimizations --enable-pci --enable-long-phy-address --enable-protection-keys --enable-cet
--enable-perfmon --disable-large-ramfile --disable-show-ips --disable-debugger --disable-debugger-gui
--disable-docbook --disable-plugins --disable-stats --with-nogui --without-x --without-x11
""".split()
# At a fixed address tables of handlers are reached without a register for their base.
FLAGS = "-O2 -fno-pie -no-pie"
CONFIGURE += [f"CFLAGS={FLAGS}", f"CXXFLAGS={FLAGS}"]


@functools.lru_cache(maxsize=None)
def identity():
    """Names what is built: another patch is another emulator, another comment or layout is not."""
    code = re.sub(r"//.*|\s+", "", HOSTIO.read_text())
    changes = PATCH.read_text().partition("\n--- ")[2]
    digest = hashlib.sha256(f"{CONFIGURE} {code} {changes}".encode())
    return f"{VERSION}-{digest.hexdigest()[:12]}"


def directory():
    """Where the emulator is, or will be."""
    return paths.cache() / "bochs" / identity()


def is_built():
    """True when the cache has the emulator."""
    return (directory() / "bochs").exists()


def ensure():
    """The directory of the emulator and its BIOS, built when it is missing."""
    if not is_built():
        with paths.locked("bochs", waiting=lambda: say("waiting for another start, which builds the emulator")):
            if not is_built():
                try:
                    build()
                except MachineError as error:
                    raise CannotBuild(str(error), error.status) from error
    return directory()


class CannotBuild(MachineError):
    """There is no Bochs 3.0, but there may be another emulator."""


def build():
    """Fetches, checks, patches and compiles; about a minute on two cores."""
    started = time.monotonic()
    log = paths.cache() / "bochs-build.log"
    log.unlink(missing_ok=True)
    say(f"building the emulator Bochs {VERSION}, once, about a minute")
    with paths.made_whole(directory()) as target:
        source = target / "source"
        source.mkdir()
        tarball = Apt("trixie").source_tarball("bochs", target)
        call(["tar", "-xf", tarball, "-C", source, "--strip-components=1"], "cannot unpack Bochs", log)
        call(["patch", "-p1", "-i", PATCH], "cannot patch Bochs", log, directory=source)
        shutil.copy(HOSTIO, source / "iodev/hostio.h")
        call(["./configure", *CONFIGURE], "cannot configure Bochs", log, directory=source)
        compile_with_progress(source, log)
        call(["strip", "-o", target / "bochs", source / "bochs"], "cannot strip Bochs", log)
        firmware(target)
        shutil.rmtree(source)
        tarball.unlink()
    paths.keep_newest(directory().parent, 2)
    say(f"built Bochs {VERSION} in {time.monotonic() - started:.0f} s")


def firmware(target):
    """Adds the BIOS images."""
    bios, vga = Apt("bookworm").unpacked(Apt("bookworm").candidates(["bochsbios", "vgabios"]))
    shutil.copy(bios / "usr/share/bochs/BIOS-bochs-latest", target / "bios.bin")
    shutil.copy(vga / "usr/share/vgabios/vgabios.bin", target / "vgabios.bin")


def compile_with_progress(source, log):
    """Runs make and says every ten seconds how many files are done."""
    total = sum(1 for path in source.rglob("*.cc") if "gui" not in path.parts)
    with open(log, "ab") as file:
        make = emulator.start(["make", f"-j{os.cpu_count()}"], file, {"LC_ALL": "C"}, directory=source)
    try:
        while make.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                make.wait(PROGRESS_SECONDS)
                break
            done = sum(1 for _ in source.rglob("*.o"))
            say(f"  {min(done, total)} of about {total} files compiled")
    finally:
        emulator.stop(make)
    if make.returncode != 0:
        raise MachineError(failed("cannot compile Bochs", log.read_text(errors="replace"), log))
