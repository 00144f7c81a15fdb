# SPDX-License-Identifier: MIT
"""Whether /dev/kvm gives its guests VT-x: asked of the kernel, since a /dev/kvm without it exists.

The calls and structs are those of the kernel's Documentation/virt/kvm/api.rst.
"""

import fcntl
import os
import struct

DEVICE = "/dev/kvm"
KVM_GET_API_VERSION = 0xae00
KVM_CREATE_VM = 0xae01
KVM_CREATE_VCPU = 0xae41
KVM_GET_SUPPORTED_CPUID = 0xc008ae05
KVM_GET_MSRS = 0xc008ae88
API_VERSION = 12
CPUID_ENTRIES = 256
CPUID_ENTRY = struct.Struct("<IIIIIII12x")  # function, index, flags, eax, ebx, ecx, edx, padding
CPUID_1_ECX_VMX = 1 << 5
MSR_IA32_VMX_PROCBASED_CTLS2 = 0x48b
SECONDARY_EPT, SECONDARY_VPID = 1 << 33, 1 << 37  # in the high half: what may be 1


def unavailable(device=DEVICE):
    """Why guests of KVM have no VT-x here, or None."""
    if not os.path.exists(device):
        return f"there is no {device}"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"cannot open {device}: {error.strerror}"
    try:
        return probe(descriptor)
    except OSError as error:
        return f"{device} does not work: {error.strerror}"
    finally:
        os.close(descriptor)


def probe(kvm):
    """The same, of an open device."""
    if fcntl.ioctl(kvm, KVM_GET_API_VERSION) != API_VERSION:
        return "/dev/kvm speaks another version"
    if not has_vmx(supported_cpuid(kvm)):
        return "/dev/kvm offers no VT-x to its guests (nested virtualisation is off, or the CPU is not Intel's)"
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    try:
        os.close(fcntl.ioctl(machine, KVM_CREATE_VCPU, 0))
    finally:
        os.close(machine)
    controls = feature_msr(kvm, MSR_IA32_VMX_PROCBASED_CTLS2)
    if controls is None or not controls & SECONDARY_EPT or not controls & SECONDARY_VPID:
        return "/dev/kvm offers VT-x to its guests, but without EPT and VPID"
    return None


def supported_cpuid(kvm):
    """{(function, index): (eax, ebx, ecx, edx)} that guests may have."""
    buffer = bytearray(struct.pack("<II", CPUID_ENTRIES, 0) + bytes(CPUID_ENTRIES * CPUID_ENTRY.size))
    fcntl.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, buffer)
    count = struct.unpack_from("<I", buffer)[0]
    entries = (CPUID_ENTRY.unpack_from(buffer, 8 + index * CPUID_ENTRY.size) for index in range(count))
    return {(entry[0], entry[1]): entry[3:] for entry in entries}


def has_vmx(cpuid):
    """CPUID.1:ECX.VMX."""
    return bool(cpuid.get((1, 0), (0, 0, 0, 0))[2] & CPUID_1_ECX_VMX)


def feature_msr(kvm, index):
    """The value of a feature MSR, or None when the kernel does not know it."""
    buffer = bytearray(struct.pack("<IIIIQ", 1, 0, index, 0, 0))
    try:
        count = fcntl.ioctl(kvm, KVM_GET_MSRS, buffer)
    except OSError:
        return None
    return struct.unpack_from("<Q", buffer, 16)[0] if count == 1 else None
