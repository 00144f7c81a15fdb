# SPDX-License-Identifier: MIT
"""What `machine list` shows."""

import os

from . import backends, bochs_build, kernels, paths, toolchain


def size(path):
    """Bytes on disk of a file or of all below a directory; holes take none."""
    total = 0
    for directory, _, files in os.walk(path):
        total += sum(os.lstat(os.path.join(directory, name)).st_blocks * 512 for name in files)
    return total


def show():
    """Prints backends, kernels and the cache."""
    print("backends (auto takes the first of qemu, bochs that works):")
    for name, backend in backends.ALL.items():
        reason = backend.unavailable()
        print(f"  {name:8} {'cannot be used here: ' + reason if reason else 'works; ' + backend.ABOUT}")
    print(f"emulator:\n  Bochs {bochs_build.VERSION}: {'built' if bochs_build.is_built() else 'not built yet'}")
    print("kernels:")
    for version in kernels.KNOWN:
        print(f"  {version:8} {kernel_state(version)}")
    print(f"cache {paths.cache()}:")
    for entry in sorted(paths.cache().iterdir()):
        if entry.is_dir():
            count = f", {len(list(entry.iterdir()))} saved states" if entry.name == "snapshots" else ""
            print(f"  {entry.name:12} {size(entry) / 1e6:8.1f} MB{count}")
    return 0


def kernel_state(version):
    """One line about a kernel."""
    if not kernels.is_cached(version):
        return "not fetched yet"
    kernel = kernels.Kernel(version)
    if kernel.compiler is None and not toolchain.directory(kernel.family).is_dir():
        return f"{kernel.release}, cached; the compiler for its module is not fetched yet"
    return f"{kernel.release}, cached"
