# SPDX-License-Identifier: MIT
"""Building kern/ for a kernel into build/kern/VERSION, without writing to kern/."""

import hashlib
import os
import shutil

from . import paths, toolchain
from .console import call, say
from .errors import MachineError

SOURCE = paths.PROJECT / "kern"


def directory(kernel):
    """Where the module for a kernel is built."""
    return paths.PROJECT / "build/kern" / kernel.version


def sources():
    """The files that make the module, relative to kern/."""
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*")
                  if path.is_file() and (path.suffix in (".c", ".h", ".S", ".lds") or path.name in ("Kbuild", "Makefile")))


def identity(kernel, arguments):
    """Changes when the module has to be built again."""
    digest = hashlib.sha256(f"{kernel.headers} {arguments}".encode())
    for path in sources():
        digest.update(os.fsencode(path) + b"\0" + (SOURCE / path).read_bytes() + b"\0")
    return digest.hexdigest()


def has_sources():
    """True when there is a module to build."""
    return (SOURCE / "Kbuild").exists()


def ensure(kernel):
    """The path of dune.ko for a kernel, built when it is missing or stale."""
    if not has_sources():
        raise MachineError(f"{SOURCE} has no Kbuild file: nothing to build")
    build = directory(kernel)
    module, stamp = build / "dune.ko", build / "identity"
    arguments = make_arguments(kernel)
    with paths.locked(f"module-{hashlib.sha256(os.fsencode(build)).hexdigest()[:16]}"):
        wanted = identity(kernel, arguments)
        if not module.exists() or not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            say(f"building dune.ko for {kernel.release}")
            copy_sources(build)
            call(make_command(kernel, build, arguments), f"cannot build dune.ko for {kernel.release}", build / "log")
            stamp.write_text(wanted)
    return module


def copy_sources(build):
    """Brings the sources into the build directory; what did not change keeps its time, so that make skips it."""
    build.mkdir(parents=True, exist_ok=True)
    (build / "log").unlink(missing_ok=True)
    wanted = sources()
    for path in list(build.rglob("*.[chS]")):
        if path.relative_to(build) not in wanted and not path.name.endswith(".mod.c"):
            path.unlink()
    for path in wanted:
        target = build / path
        if not target.exists() or target.read_bytes() != (SOURCE / path).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(SOURCE / path, target)


def make_arguments(kernel):
    """Kbuild's variables for a kernel; BTF of modules would need the kernel's own uncompressed image."""
    compiler = [f"CC={kernel.compiler}"] if kernel.compiler else []
    return ["CONFIG_DEBUG_INFO_BTF_MODULES=", *compiler]


def make_command(kernel, build, arguments):
    """The command line that builds the module, where the kernel's compiler is."""
    make = ["make", "-C", kernel.headers, f"M={build}", f"-j{os.cpu_count()}", *arguments, "modules"]
    if kernel.compiler:
        return make
    root = toolchain.ensure(kernel.family)
    toolchain.check(root)
    return toolchain.enter(root, [kernel.directory, build], make)
