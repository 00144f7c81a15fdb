# SPDX-License-Identifier: MIT
"""What one run asks for."""

import dataclasses
import pathlib


@dataclasses.dataclass
class Request:
    """The options of `machine run` and `machine shell`; see docs/machine.md."""

    command: list
    kernel: str = "6.1"
    cpus: int = 1
    cpu: str = "corei7_skylake_x"
    memory: int = 0
    """MiB; 0 chooses by the size of the root file system."""
    backend: str = "auto"
    kvm: str = "absent"
    module: bool = True
    module_args: str = ""
    cmdline: str = None
    packages: list = dataclasses.field(default_factory=list)
    copy_in: list = dataclasses.field(default_factory=list)
    copy_out: list = dataclasses.field(default_factory=list)
    timeout: float = 0
    keep: bool = False
    dmesg: str = None
    emulator_log: str = None
    build_dir: pathlib.Path = None
    interactive: bool = False


FAST = "mitigations=off nokaslr"
"""The default for --cmdline: boots in half of the time."""

ALWAYS = "console=ttyS0,115200 panic=0 rdinit=/init nomodeset quiet"
"""What the machine relies on. A panic stops it; the console tells the host."""

BACKEND_WORDS = {
    # The emulator claims a time stamp counter of another frequency than its timers follow.
    "bochs": "no_timer_check tsc=reliable tsc_early_khz=50000 cryptomgr.notests",
    "qemu": "tsc=reliable cryptomgr.notests",
}


def command_line(request, backend, extra=""):
    """The kernel's whole command line."""
    chosen = FAST if request.cmdline is None else request.cmdline
    if backend == "bochs" and request.cpu == "sapphire_rapids" and request.kernel == "6.1":
        extra += " clearcpuid=fsrm"  # this kernel stops at boot in its own use of it
    if backend == "bochs" and request.cpus > 1:
        # Linux wakes a CPU that idles in MWAIT by a write to what it monitors, which the emulator may
        # miss: the other one then spins until the next timer interrupt, a second and more.
        extra += " idle=halt"
    modules = "machine_modules=kvm_intel" if request.kvm == "loaded" else ""
    return " ".join(f"{ALWAYS} {BACKEND_WORDS[backend]} {modules} {extra} {chosen}".split())


def randomizes(request):
    """True when the kernel is to be placed at random."""
    return "nokaslr" not in command_line(request, "bochs").split()


MIB = 1 << 20
SMALL = 512


def memory_size(request, root):
    """MiB of memory: what was asked for, or room for the root file system and as much again."""
    if request.memory:
        return request.memory
    needed = 256 + 3 * root.archive.stat().st_size // MIB
    return max(SMALL, -(-needed // 256) * 256)
