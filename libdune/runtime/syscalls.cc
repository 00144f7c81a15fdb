// SPDX-License-Identifier: MIT
/*
 * System calls of ring 0 that Linux cannot do alone, because it does not see the guest's registers
 * and the program's signal handlers. Compiled without vector registers: SYSCALL preserves them.
 */
#include <asm/prctl.h>
#include <csignal>

#include <cerrno>
#include <cstdint>

#include "signals.h"
#include "sys.h"
#include "thread.h"
#include "trap.h"

namespace dune::rt {
namespace {

constexpr std::size_t kMinStack = 2048;  // MINSIGSTKSZ of the kernel's interface

bool on_stack(const stack_t& stack, std::uintptr_t sp) noexcept {
    return (stack.ss_flags & SS_DISABLE) == 0 &&
           sp - reinterpret_cast<std::uintptr_t>(stack.ss_sp) < stack.ss_size;
}

/** Copy what the program points to, as Linux does: false, not a fault, if it cannot be touched. */
bool copy(void* to, const void* from, std::size_t len) noexcept {
    const std::uintptr_t ends =
        reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from);
    return ends >> 47 == 0 && dune_copy_user(to, from, len) == 0;
}

long set_alternate_stack(const stack_t& wanted, bool in_use) noexcept {
    stack_t& stack = self()->altstack;
    if (in_use)
        return -EPERM;
    if ((wanted.ss_flags & SS_DISABLE) != 0) {
        stack = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
        return 0;
    }
    constexpr int kAutoDisarm = static_cast<int>(1U << 31);
    if ((wanted.ss_flags & ~(SS_ONSTACK | kAutoDisarm)) != 0)
        return -EINVAL;
    if (wanted.ss_size < kMinStack)
        return -ENOMEM;
    stack = {.ss_sp = wanted.ss_sp,
             .ss_flags = wanted.ss_flags & kAutoDisarm,
             .ss_size = wanted.ss_size};
    return 0;
}

long alternate_stack(const stack_t* wanted, stack_t* old, std::uintptr_t sp) noexcept {
    stack_t before = self()->altstack;
    const bool in_use = on_stack(before, sp);
    if (in_use)
        before.ss_flags |= SS_ONSTACK;
    if (wanted != nullptr) {
        stack_t now;
        if (!copy(&now, wanted, sizeof(now)))
            return -EFAULT;
        if (const long ret = set_alternate_stack(now, in_use); ret != 0)
            return ret;
    }
    return old == nullptr || copy(old, &before, sizeof(before)) ? 0 : -EFAULT;
}

long action(int sig, const KernelSigaction* wanted, KernelSigaction* old) noexcept {
    KernelSigaction now;
    KernelSigaction before;
    if (wanted != nullptr && !copy(&now, wanted, sizeof(now)))
        return -EFAULT;
    const long ret = signal_action(sig, wanted != nullptr ? &now : nullptr, &before);
    return ret != 0 || old == nullptr || copy(old, &before, sizeof(before)) ? ret : -EFAULT;
}

/** A segment base, to where the program wants it. */
long get_base(std::uint32_t msr, void* to) noexcept {
    const std::uint64_t base = rdmsr(msr);
    return copy(to, &base, sizeof(base)) ? 0 : -EFAULT;
}

/** FS is ring 0's own; GS as the program knows it is what SWAPGS swaps in for ring 3. */
long set_base(int which, std::uint64_t value) noexcept {
    if (value >> 47 != 0)
        return -EPERM;
    if (which == ARCH_SET_FS)
        self()->kernel_fs = value;
    wrmsrl(which == ARCH_SET_FS ? MSR_FS_BASE : MSR_KERNEL_GS_BASE, value);
    return 0;
}

long arch_prctl(int code, std::uint64_t value) noexcept {
    switch (code) {
        case ARCH_SET_FS:
        case ARCH_SET_GS:
            return set_base(code, value);
        case ARCH_GET_FS:
            return get_base(MSR_FS_BASE, reinterpret_cast<void*>(value));
        case ARCH_GET_GS:
            return get_base(MSR_KERNEL_GS_BASE, reinterpret_cast<void*>(value));
        default:
            return sys(SYS_arch_prctl, code, value);
    }
}

}  // namespace
}  // namespace dune::rt

/** Called by the SYSCALL entry, on the caller's stack. */
extern "C" __attribute__((visibility("hidden"))) long dune_special_syscall(
    std::uintptr_t a, std::uintptr_t b, std::uintptr_t c, std::uintptr_t d, std::uint32_t nr) {
    using namespace dune::rt;
    switch (nr) {
        case SYS_rt_sigaction:
            if (d != sizeof(std::uint64_t))
                return -EINVAL;
            return action(static_cast<int>(a), reinterpret_cast<const KernelSigaction*>(b),
                          reinterpret_cast<KernelSigaction*>(c));
        case SYS_sigaltstack:
            return alternate_stack(reinterpret_cast<const stack_t*>(a),
                                   reinterpret_cast<stack_t*>(b),
                                   reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
        default:
            return arch_prctl(static_cast<int>(a), b);
    }
}
