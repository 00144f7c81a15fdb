# SPDX-License-Identifier: MIT
"""What the emulator puts into RAM before the boot ROM runs: kernel, initial RAM file system, boot parameters.

Two ways to boot: the kernel unpacked beforehand, which is quick, or the bzImage as it is, whose own decompressor then
places the kernel at random (KASLR). Field names are those of the kernel's Documentation/arch/x86/boot.rst and
zero-page.rst.
"""

import pathlib
import struct

from . import paths
from .console import call
from .errors import MachineError

MIB = 1 << 20
KERNEL_ADDRESS = 0x1000000
BOOT_PARAMETERS = 0x90000
COMMAND_LINE = 0x91000
LOADS_OFFSET = 456
ENTRY_OFFSET = 504
CHECKSUM_OFFSET = 511
SECTOR, TRACK, HEADS = 512, 63, 16
CYLINDER = SECTOR * TRACK * HEADS
ROM_ADDRESS = 0xd0000
PCI_HOLE = 3 << 30
"""RAM ends here at the latest and goes on at 4 GiB."""
ACPI_SIZE = 0x10000
"""The BIOS puts its ACPI tables at the end of the RAM below 4 GiB."""
BUFFER_SIZE = MIB
"""RAM for transfers between machine and host (guest/hostio.c)."""

INITRD_END = 2 << 30
"""initrd_addr_max of all kernels so far; the emulator's images end here too."""

E820_RAM, E820_RESERVED, E820_ACPI, E820_PERSISTENT = 1, 2, 3, 12

DISK_ALIGNMENT = 16 * MIB
"""Of the RAM that the kernel takes for a disk (drivers/nvdimm/e820.c)."""


def low_end(memory):
    """The end of the RAM below 4 GiB for memory MiB."""
    return min(memory * MIB, PCI_HOLE)


def buffer_address(memory):
    """Where the transfer buffer is."""
    return low_end(memory) - MIB - BUFFER_SIZE


def aligned_disk(size):
    """Bytes of RAM that a disk of size bytes takes."""
    return -(-size // DISK_ALIGNMENT) * DISK_ALIGNMENT


def with_disk(memory, disk):
    """MiB of RAM of a machine that has memory MiB besides a disk of so many bytes in RAM."""
    return memory + aligned_disk(disk) // MIB


def disk_word(root):
    """The word of the command line that tells the first process of such a disk."""
    return "machine_disk=/dev/pmem0" if root.disk else ""


def disk_address(memory, disk):
    """Where a disk of so many bytes is in RAM."""
    return (min(buffer_address(memory), INITRD_END) - aligned_disk(disk)) & ~(DISK_ALIGNMENT - 1)


def e820(memory, disk=0):
    """The memory map: (address, size, type) of each region; disk: bytes of RAM that are a disk."""
    end, buffer = low_end(memory), buffer_address(memory)
    place, behind = disk_address(memory, disk), disk_address(memory, disk) + aligned_disk(disk)
    low = [(0x100000, buffer - 0x100000, E820_RAM)] if not disk else [
        (0x100000, place - 0x100000, E820_RAM),
        (place, aligned_disk(disk), E820_PERSISTENT),
        *([(behind, buffer - behind, E820_RAM)] if behind < buffer else []),
    ]
    regions = [
        (0, 0x9fc00, E820_RAM),
        (0x9fc00, 0x400, E820_RESERVED),
        (0xe8000, 0x18000, E820_RESERVED),
        *low,
        (buffer, BUFFER_SIZE, E820_RESERVED),
        (buffer + BUFFER_SIZE, end - ACPI_SIZE - buffer - BUFFER_SIZE, E820_RAM),
        (end - ACPI_SIZE, ACPI_SIZE, E820_ACPI),
        (0xfffc0000, 0x40000, E820_RESERVED),
    ]
    if memory * MIB > PCI_HOLE:
        regions.append((4 << 30, memory * MIB - PCI_HOLE, E820_RAM))
    return regions


def flatten(vmlinux):
    """(bytes to load at KERNEL_ADDRESS, entry point, end of the kernel's memory) of an ELF kernel."""
    elf = vmlinux.read_bytes()
    entry, table = struct.unpack_from("<QQ", elf, 24)
    count = struct.unpack_from("<H", elf, 56)[0]
    segments = []
    for index in range(count):
        kind, _, offset, _, address, size, memory, _ = struct.unpack_from("<IIQQQQQQ", elf, table + 56 * index)
        if kind == 1:
            segments.append((address, offset, size, memory))
    if min(segment[0] for segment in segments) != KERNEL_ADDRESS:
        raise MachineError(f"{vmlinux} is not linked for 16 MiB")
    image = bytearray(max(address + size for address, _, size, _ in segments) - KERNEL_ADDRESS)
    for address, offset, size, _ in segments:
        image[address - KERNEL_ADDRESS:address - KERNEL_ADDRESS + size] = elf[offset:offset + size]
    return bytes(image), entry, max(address + memory for address, _, _, memory in segments)


def protected_mode_part(bzimage):
    """The same for the part of a bzImage that decompresses itself; its 64-bit entry is 0x200 bytes into it."""
    data = bzimage.read_bytes()
    init_size = struct.unpack_from("<I", data, 0x260)[0]
    return data[((data[0x1f1] or 4) + 1) * 512:], KERNEL_ADDRESS + 0x200, KERNEL_ADDRESS + init_size


def boot_parameters(bzimage, memory, command_line, initrd_address, initrd_size, disk):
    """The zero page and, behind it, the command line."""
    with open(bzimage, "rb") as file:
        header = file.read(0x1000)
    page = bytearray(COMMAND_LINE - BOOT_PARAMETERS)
    end = header[0x201] + 0x202
    page[0x1f1:end] = header[0x1f1:end]
    page[0x210] = 0xff                                                # type_of_loader: none of the registered ones
    page[0x211] |= 0x01                                               # loadflags: LOADED_HIGH
    struct.pack_into("<II", page, 0x218, initrd_address, initrd_size)  # ramdisk_image, ramdisk_size
    struct.pack_into("<I", page, 0x228, COMMAND_LINE)                 # cmd_line_ptr
    regions = e820(memory, disk)
    page[0x1e8] = len(regions)                                        # e820_entries
    for index, region in enumerate(regions):
        struct.pack_into("<QQI", page, 0x2d0 + 20 * index, *region)
    page[6], page[7], page[14], page[15] = 3, 80, 25, 1               # screen_info: text mode 3, 80 columns, 25 lines
    struct.pack_into("<H", page, 16, 16)                              # orig_video_points
    limit = struct.unpack_from("<I", header, 0x238)[0]                # cmdline_size
    if len(command_line) > limit:
        raise MachineError(f"the kernel's command line may have {limit} bytes, not {len(command_line)}", 2)
    return bytes(page) + command_line.encode() + b"\0"


def boot_rom(entry, work, loads=()):
    """The option ROM that enters the kernel, assembled in the directory work; loads: (address, sector, sectors) each."""
    failure = "cannot assemble the boot ROM"
    call(["as", "--64", "-o", work / "boot.o", paths.LIBRARY / "boot/boot.S"], failure)
    call(["ld", f"-Ttext={ROM_ADDRESS:#x}", "--oformat=binary", "-o", work / "boot.bin", work / "boot.o"], failure)
    rom = bytearray((work / "boot.bin").read_bytes())
    for index, load in enumerate(loads):
        struct.pack_into("<III", rom, LOADS_OFFSET + 12 * index, *load)
    struct.pack_into("<I", rom, ENTRY_OFFSET, entry)
    rom[CHECKSUM_OFFSET] = -sum(rom) & 0xff
    return bytes(rom)


def write_disk(directory, kernel, initrd, memory, command_line, randomize):
    """Writes boot.rom and disk, which holds what the ROM loads; returns the number of the disk's cylinders."""
    address = write(directory, kernel, initrd, memory, command_line, randomize)
    entry = struct.unpack_from("<I", (directory / "boot.rom").read_bytes(), ENTRY_OFFSET)[0]
    loads, sector = [], 0
    with open(directory / "disk", "wb") as disk:
        for name, place in ((directory / "kernel.flat", KERNEL_ADDRESS), (initrd, address),
                            (directory / "parameters.bin", BOOT_PARAMETERS)):
            data = pathlib.Path(name).read_bytes()
            data += b"\0" * (-len(data) % SECTOR)
            disk.write(data)
            loads.append((place, sector, len(data) // SECTOR))
            sector += len(data) // SECTOR
        cylinders = -(-sector // (HEADS * TRACK))
        disk.truncate(cylinders * CYLINDER)
    (directory / "boot.rom").write_bytes(boot_rom(entry, directory, loads))
    return cylinders


def write(directory, kernel, initrd, memory, command_line, randomize, disk=None):
    """Writes kernel.flat, boot.bin and parameters.bin into a directory; returns where the initrd must be loaded.

    disk: an image that is to be in RAM at disk_address(), or None.
    """
    image, entry, end = protected_mode_part(kernel.image) if randomize else flatten(kernel.vmlinux)
    size = initrd.stat().st_size
    disk_size = disk.stat().st_size if disk else 0
    address = (disk_address(memory, disk_size) - size) & ~(MIB - 1)
    if address < end:
        raise MachineError(f"{memory} MiB of memory cannot hold the kernel and the root file system "
                           f"({(end + size + disk_size) // MIB} MiB): give more with --memory", 2)
    (directory / "kernel.flat").write_bytes(image)
    (directory / "boot.rom").write_bytes(boot_rom(entry, directory))
    (directory / "parameters.bin").write_bytes(
        boot_parameters(kernel.image, memory, command_line, address, size, disk_size))
    return address
