# SPDX-License-Identifier: MIT
"""Saved states of booted machines: one for each emulator, kernel, command line, CPUs, memory and root file system."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time

from . import bochs_build, bootimage, emulator, paths, request as requests, rootfs
from .console import say
from .errors import STATUS_USAGE, MachineError

FORMAT = 2
BOOT_SECONDS = 300
POLL_SECONDS = 0.5
LAST_LINES = 50
MAX_STATES = 48
"""About 100 MB each."""
COMPLETE = "complete.json"
ENOUGH_BYTES = 1 << 20
"""With less space on the disk a failure has no other cause."""
BLOCK_KIB = 8192
"""Granularity of the emulator's memory: the time of a start grows with the square of the number of blocks."""

CONFIGURATION = """\
plugin_ctrl: unmapped=true, biosdev=true, speaker=false, extfpuirq=false, parallel=false, serial=true
config_interface: textconfig
display_library: nogui
romimage: file={bochs}/bios.bin, options=fastboot
vgaromimage: file={bochs}/vgabios.bin
vga: extension=vbe, update_freq=10, realtime=0
memory: guest={ram}, host={ram}, block_size={block}
cpu: model={cpu}, count={cpus}, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
cpu: exclude_features="rdrand,rdseed"
clock: sync=none, time0=1700000000, rtc_sync=0
ata0: enabled=0
ata1: enabled=0
boot: disk
com1: enabled=1, mode=file, dev={work}/console
pci: enabled=1, chipset=i440fx
log: {work}/bochs.log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
"""

IMAGES = """\
optromimage1: file={work}/boot.rom, address={rom:#x}
optramimage1: file={work}/kernel.flat, address={kernel:#x}
optramimage2: file={initrd}, address={initrd_address:#x}
optramimage3: file={work}/parameters.bin, address={parameters:#x}
"""


def stamp(file):
    """What tells a changed file from an unchanged one."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


class Snapshot:
    """The saved state that serves a request."""

    def __init__(self, request, kernel):
        self.request = request
        self.kernel = kernel
        self.root = rootfs.ensure(kernel, request.packages)
        self.memory = bootimage.with_disk(requests.memory_size(request, self.root), self.root.disk_size)
        self.command_line = requests.command_line(
            request, "bochs", f"machine_buffer={bootimage.buffer_address(self.memory):#x} {bootimage.disk_word(self.root)}")
        self.directory = paths.cache() / "snapshots" / self.key()

    def key(self):
        """Names the state by all that it depends on."""
        parts = [FORMAT, bochs_build.identity(), self.kernel.release, self.root.name, self.memory, self.request.cpus,
                 self.request.cpu, self.command_line, BLOCK_KIB, CONFIGURATION, IMAGES]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    def is_whole(self):
        """True when all files are there as they were saved: a write changes the time of a file."""
        try:
            saved = json.loads((self.directory / COMPLETE).read_text())
            return bool(saved) and all(stamp(self.directory / name) == wanted for name, wanted in saved.items())
        except (OSError, ValueError, AttributeError):
            return False

    def ensure(self):
        """Makes the state when it is missing or damaged; returns its directory."""
        if not self.is_whole():
            with paths.locked(f"snapshot-{self.directory.name}"):
                if not self.is_whole():
                    self.make()
        os.utime(self.directory)  # the states that were not used for longest are removed first
        paths.keep_newest(self.directory.parent, MAX_STATES)
        return self.directory

    def discard(self):
        """Forgets a state that turned out to be unusable."""
        with paths.locked(f"snapshot-{self.directory.name}"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def make(self):
        """Boots the machine once and saves its state."""
        bochs = bochs_build.ensure()
        self.check_cpu(bochs)
        say(f"booting {self.kernel.release} with {self.request.cpus} CPU{'s' if self.request.cpus > 1 else ''} and "
            f"{self.memory} MiB once, to save its state")
        started = time.monotonic()
        with paths.made_whole(self.directory) as work:
            image = work / "image"
            image.mkdir()
            address = bootimage.write(image, self.kernel, self.root.archive, self.memory, self.command_line,
                                      requests.randomizes(self.request), self.root.disk)
            (image / "bochsrc").write_text(self.configuration(image, bochs) + self.images(image, address))
            self.boot(bochs, work)
            (image / "console").rename(work / "console")
            shutil.rmtree(image)
            (work / COMPLETE).write_text(json.dumps({file.name: stamp(file) for file in work.iterdir()}))
        say(f"saved it in {time.monotonic() - started:.1f} s")

    def check_cpu(self, bochs):
        """Raises MachineError for a CPU model that the emulator does not have."""
        text = subprocess.run([bochs / "bochs", "--help", "cpu"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False).stdout
        models = re.findall(r"^\w+$", text, re.MULTILINE)
        if models and self.request.cpu not in models:
            raise MachineError(f"unknown CPU model {self.request.cpu}: the emulator has {', '.join(models)}", STATUS_USAGE)

    def configuration(self, work, bochs):
        """The emulator's configuration, for the first boot and for every start from the saved state."""
        hole = 1024 if self.memory > bootimage.PCI_HOLE // bootimage.MIB else 0
        return CONFIGURATION.format(bochs=bochs, ram=self.memory + hole, block=BLOCK_KIB, cpu=self.request.cpu,
                                    cpus=self.request.cpus, work=work)

    def images(self, image, initrd_address):
        """What the emulator puts into memory for the first boot."""
        images = IMAGES.format(work=image, initrd=self.root.archive, initrd_address=initrd_address, rom=bootimage.ROM_ADDRESS,
                               kernel=bootimage.KERNEL_ADDRESS, parameters=bootimage.BOOT_PARAMETERS)
        if self.root.disk:
            address = bootimage.disk_address(self.memory, self.root.disk_size)
            images += f"optramimage4: file={self.root.disk}, address={address:#x}\n"
        return images

    def boot(self, bochs, work):
        """Runs the emulator until it has saved the state."""
        image = work / "image"
        machine_console = emulator.Console(image / "console")
        started = time.monotonic()
        with open(image / "stdout", "wb") as output:
            process = emulator.start([bochs / "bochs", "-q", "-f", image / "bochsrc"], output,
                                     {"DUNE_SAVE_DIR": str(work)})
        try:
            status = None
            while status is None and time.monotonic() - started < BOOT_SECONDS and not machine_console.panicked():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(POLL_SECONDS)
        finally:
            emulator.stop(process)
        if status != 0:
            if shutil.disk_usage(work).free < ENOUGH_BYTES:
                raise MachineError(paths.no_space(work.parent))
            raise MachineError(f"{self.boot_failure(status, image)}\n{machine_console.last_lines(LAST_LINES)}")

    def boot_failure(self, status, image):
        """Keeps the logs of a boot that failed and says where they are."""
        kept = paths.cache() / "failed-boot"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in ("console", "bochs.log", "stdout", "bochsrc"):
            if (image / name).exists():
                shutil.copy(image / name, kept / name)
        log = "".join((kept / name).read_text(errors="replace") for name in ("stdout", "bochs.log")
                      if (kept / name).exists())
        panic = [line.strip() for line in log.splitlines() if ">>PANIC<<" in line]
        why = panic[0] if panic else ("it hung or panicked" if status is None else f"status {status}")
        return f"the machine did not boot: {why}; its console is {kept}/console"
