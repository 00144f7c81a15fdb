// SPDX-License-Identifier: MIT
// /dev/dune and the files that are had from it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "../mm/slots.h"
#include "process.h"
#include "sys.h"

namespace dune::rt {
namespace {

int bind_slot(void*, std::uint32_t virt, std::uint32_t phys) noexcept {
    dune_slots slots = {.size = sizeof(dune_slots),
                        .first = phys,
                        .count = 1,
                        .reserved = 0,
                        .va_slots = reinterpret_cast<std::uintptr_t>(&virt)};
    return static_cast<int>(sys(SYS_ioctl, process.device, DUNE_SET_SLOTS, &slots));
}

const char* advice(int error) noexcept {
    switch (error) {
        case ENOENT:
            return "the kernel module is not loaded: run 'modprobe dune' as root";
        case EACCES:
        case EPERM:
            return "no permission: run as root, or let your user read and write it (group of the "
                   "device)";
        case ENODEV:
        case ENXIO:
        case EOPNOTSUPP:
            return "this CPU has no usable VT-x, or the BIOS or the hypervisor around has it off";
        case EMFILE:
        case ENFILE:
            return "too many open files";
        default:
            return "see the kernel log ('dmesg') for why";
    }
}

/**
 * Give a file of libdune's a number that programs, which get the lowest that is free, do not expect
 * to have for themselves.
 */
int out_of_the_way(int fd) noexcept {
    constexpr int kFirst = 512;
    const long moved = sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, kFirst);
    if (moved < 0)
        return fd;
    sys(SYS_close, fd);
    return static_cast<int>(moved);
}

int open_device() noexcept {
    const int fd = static_cast<int>(sys(SYS_openat, AT_FDCWD, DUNE_DEVICE, O_RDWR | O_CLOEXEC, 0));
    if (fd < 0)
        complain("cannot open %s (error %d): %s", DUNE_DEVICE, -fd, advice(-fd));
    return fd < 0 ? fd : out_of_the_way(fd);
}

/** Is it what libdune opened? A program that closes all files gives the number to one of its own.
 */
bool is_device(int fd) noexcept {
    dune_info info = {};
    info.size = sizeof(info);
    return sys(SYS_ioctl, fd, DUNE_GET_INFO, &info) == 0;
}

}  // namespace

int device_open() noexcept {
    const int fd = open_device();
    if (fd < 0)
        return fd;
    dune_info info = {};
    info.size = sizeof(info);
    long ret = sys(SYS_ioctl, fd, DUNE_GET_INFO, &info);
    if (ret == 0 && info.abi_version != DUNE_ABI_VERSION)
        ret = -EPROTO;
    if (ret == -ENOTTY || ret == -EINVAL)
        ret = -EPROTO;
    if (ret == 0 && info.vcpu_page_size != kVcpuMapSize)
        ret = -EPROTO;
    if (ret != 0) {
        if (ret == -EPROTO)
            complain(
                "the kernel module has interface version %u, this library needs %u: install "
                "both from the same release",
                info.abi_version, DUNE_ABI_VERSION);
        else
            complain("%s does not answer (error %ld): %s", DUNE_DEVICE, -ret,
                     advice(static_cast<int>(-ret)));
        sys(SYS_close, fd);
        return static_cast<int>(ret);
    }
    process.device = fd;
    process.info = info;
    process.pid = static_cast<int>(sys(SYS_getpid));
    // The pool has slots already if dune_init() failed behind it before.
    const auto slots = pgroot == nullptr ? mm::slots().init(info.nr_slots, bind_slot, nullptr)
                                         : mm::slots().replay(bind_slot, nullptr);
    return slots.code();
}

int device_reopen() noexcept {
    // The parent's file is bound to the parent's memory.
    if (is_device(process.device))
        sys(SYS_close, process.device);
    const int fd = open_device();
    if (fd < 0)
        return fd;
    process.device = fd;
    process.pid = static_cast<int>(sys(SYS_getpid));
    return mm::slots().replay(bind_slot, nullptr).code();
}

int vcpu_open(Thread& thread) noexcept {
    dune_vcpu_create create = {};
    create.size = sizeof(create);
    long fd = sys(SYS_ioctl, process.device, DUNE_CREATE_VCPU, &create);
    if (fd < 0 && !is_device(process.device)) {  // the program closed it; any other will do
        if (const int device = open_device(); device >= 0) {
            process.device = device;
            fd = sys(SYS_ioctl, device, DUNE_CREATE_VCPU, &create);
        }
    }
    if (fd < 0) {
        complain("cannot make a vCPU (error %ld): %s", -fd, advice(static_cast<int>(-fd)));
        return static_cast<int>(fd);
    }
    thread.vcpu_fd = out_of_the_way(static_cast<int>(fd));
    const long page =
        sys(SYS_mmap, nullptr, kVcpuMapSize, PROT_READ | PROT_WRITE, MAP_SHARED, thread.vcpu_fd, 0);
    const long door = sys(SYS_mmap, nullptr, kVcpuMapSize, PROT_READ, MAP_SHARED, thread.vcpu_fd,
                          process.info.door_offset);
    if (page > 0)
        thread.page = reinterpret_cast<dune_vcpu_page*>(page);
    if (door > 0)
        thread.door_map = reinterpret_cast<void*>(door);
    if (page < 0 || door < 0) {
        thread_drop_vcpu(thread);
        return -ENOMEM;
    }
    // A forked child makes its own; it has no use for these, and must not write to them.
    sys(SYS_madvise, page, kVcpuMapSize, MADV_DONTFORK);
    sys(SYS_madvise, door, kVcpuMapSize, MADV_DONTFORK);
    return 0;
}

}  // namespace dune::rt
