// SPDX-License-Identifier: MIT
//
// Calls that make, copy and close descriptors. Numbers of the runtime's descriptors do not exist
// for the program; the rest is the kernel's.

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/syscall.h>

#include <algorithm>

#include "monitor/dispatch.h"

namespace dune::sandbox {

namespace {

// Closing, copying and replacing must not hit a descriptor that the monitor is using for a moment.
// With one thread nobody else can be.
long locked(const Call& call) {
    if (process.threads.load(std::memory_order_relaxed) == 1) {
        return pass(call);
    }
    LockGuard guard(process.fd_lock);
    return host_call6(call.number, call.args[0], call.args[1], call.args[2], call.args[3],
                      call.args[4], call.args[5]);
}

// close_range(2) up to the runtime's descriptors.
long do_close_range(Call& call) {
    const uint32_t first = static_cast<uint32_t>(call.args[0]);
    const uint32_t last = static_cast<uint32_t>(call.args[1]);
    const uint64_t flags = call.args[2];
    const uint32_t low = static_cast<uint32_t>(process.fd_base);
    if (first > last || (flags & ~static_cast<uint64_t>(CLOSE_RANGE_CLOEXEC)) != 0) {
        return -EINVAL;  // CLOSE_RANGE_UNSHARE would leave the monitor with two tables
    }
    LockGuard guard(process.fd_lock);
    return first < low ? host_call(SYS_close_range, first, std::min(last, low - 1), flags) : 0;
}

long do_fcntl(Call& call) {
    const int command = static_cast<int>(call.args[1]);
    switch (command) {
        case F_DUPFD:
        case F_DUPFD_CLOEXEC:
            // The limit says the same, but not while the runtime makes one (see RuntimeNumbers).
            return is_reserved(call.args[2]) ? -EINVAL : locked(call);
        case F_GETFD:
        case F_SETFD:
        case F_GETFL:
        case F_SETFL:
        case F_GETPIPE_SZ:
        case F_SETPIPE_SZ:
        case F_GET_SEALS:
        case F_ADD_SEALS:
        case F_GETLEASE:
        case F_SETLEASE:
        case F_NOTIFY:
        case F_GETSIG:
            return pass(call);
        case F_GETLK:
        case F_SETLK:
        case F_SETLKW:
        case F_OFD_GETLK:
        case F_OFD_SETLK:
        case F_OFD_SETLKW:
        case F_GET_RW_HINT:
        case F_SET_RW_HINT:
        case F_GET_FILE_RW_HINT:
        case F_SET_FILE_RW_HINT:
        case F_GETOWN_EX:
            return starts_in_user(call.args[2]) ? pass(call) : -EFAULT;
        case F_GETOWN:
            return pass(call);
        case F_SETOWN: {
            // SIGIO goes to the program itself, not to processes outside of the sandbox.
            const int owner = static_cast<int>(call.args[2]);
            return owner == process.pid || owner == 0 ? pass(call) : -EPERM;
        }
        default:
            return -EINVAL;
    }
}

}  // namespace

long do_descriptors(Call& call) {
    switch (call.number) {
        case SYS_close:
        case SYS_dup:
        case SYS_dup2:
        case SYS_dup3:
            return locked(call);
        case SYS_close_range:
            return do_close_range(call);
        case SYS_fcntl:
            return do_fcntl(call);
        default:  // pipe, pipe2: the lowest free numbers
            return pass(call);
    }
}

}  // namespace dune::sandbox
