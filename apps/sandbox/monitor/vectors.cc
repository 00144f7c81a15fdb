// SPDX-License-Identifier: MIT
//
// Calls whose arguments hold pointers. The structure is copied, the pointers in the copy are
// checked, and the kernel gets the copy: another thread can change the program's memory, but not
// what was checked.

#include "monitor/vectors.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

namespace dune::sandbox {

namespace {

#ifndef SYS_futex_requeue
constexpr long SYS_futex_requeue = 456;
#endif

long do_iovec_call(Call& call) {
    iovec* const copy = reinterpret_cast<iovec*>(call.thread.bytes);
    if (const long error = copy_iovec(call.args[1], call.args[2], copy, kMaxIovec)) {
        return error;
    }
    call.args[1] = reinterpret_cast<uint64_t>(copy);
    return pass(call);
}

// pselect6(2): its last argument points to a structure with a pointer to the signal mask.
long do_pselect(Call& call) {
    if (call.args[5] == 0) {
        return pass(call);
    }
    struct {
        uint64_t mask;
        uint64_t size;
    } argument;
    if (!engine::copy_in(&argument, call.args[5], sizeof(argument))) {
        return -EFAULT;
    }
    if (argument.mask == 0) {
        call.args[5] = 0;
        return pass(call);
    }
    uint64_t mask;
    if (argument.size != sizeof(mask)) {
        return -EINVAL;
    }
    if (!engine::copy_in(&mask, argument.mask, sizeof(mask))) {
        return -EFAULT;
    }
    argument.mask = reinterpret_cast<uint64_t>(&mask);
    call.args[5] = reinterpret_cast<uint64_t>(&argument);
    const long result = pass(call);
    if (result == -EINTR) {
        call.thread.temp_mask = mask;
        call.thread.has_temp_mask = true;
    }
    return result;
}

// futex_waitv(2) and futex_requeue(2): an array of struct futex_waitv.
long do_futex_array(Call& call) {
    futex_waitv* const copy = reinterpret_cast<futex_waitv*>(call.thread.bytes);
    const uint64_t count = call.number == SYS_futex_requeue ? 2 : call.args[1];
    if (count == 0 || count > FUTEX_WAITV_MAX) {
        return -EINVAL;
    }
    if (!engine::copy_in(copy, call.args[0], count * sizeof(futex_waitv))) {
        return -EFAULT;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!starts_in_user(copy[i].uaddr)) {
            return -EFAULT;
        }
    }
    call.args[0] = reinterpret_cast<uint64_t>(copy);
    return pass(call);
}

}  // namespace

long copy_iovec(uint64_t from, uint64_t count, iovec* to, size_t room) {
    if (count > IOV_MAX || count > room) {
        return -EINVAL;
    }
    if (!in_user(from, count * sizeof(iovec)) ||
        !engine::copy_in(to, from, count * sizeof(iovec))) {
        return -EFAULT;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!in_user(reinterpret_cast<uint64_t>(to[i].iov_base), to[i].iov_len)) {
            return -EFAULT;
        }
    }
    return 0;
}

long do_vectors(Call& call) {
    switch (call.number) {
        case SYS_pselect6:
            return do_pselect(call);
        case SYS_futex_waitv:
        case SYS_futex_requeue:
            return do_futex_array(call);
        default:
            return do_iovec_call(call);
    }
}

}  // namespace dune::sandbox
