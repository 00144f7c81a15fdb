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

namespace dune::rt {
namespace {

constexpr std::size_t kMinStack = 2048;  // MINSIGSTKSZ of the kernel's interface

bool on_stack(const stack_t& stack, std::uintptr_t sp) noexcept {
    return (stack.ss_flags & SS_DISABLE) == 0 &&
           sp - reinterpret_cast<std::uintptr_t>(stack.ss_sp) < stack.ss_size;
}

long alternate_stack(const stack_t* wanted, stack_t* old, std::uintptr_t sp) noexcept {
    stack_t& stack = self()->altstack;
    const bool in_use = on_stack(stack, sp);
    if (old != nullptr) {
        *old = stack;
        if (in_use)
            old->ss_flags |= SS_ONSTACK;
    }
    if (wanted == nullptr)
        return 0;
    if (in_use)
        return -EPERM;
    if ((wanted->ss_flags & SS_DISABLE) != 0) {
        stack = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
        return 0;
    }
    constexpr int kAutoDisarm = static_cast<int>(1U << 31);
    if ((wanted->ss_flags & ~(SS_ONSTACK | kAutoDisarm)) != 0)
        return -EINVAL;
    if (wanted->ss_size < kMinStack)
        return -ENOMEM;
    stack = {.ss_sp = wanted->ss_sp,
             .ss_flags = wanted->ss_flags & kAutoDisarm,
             .ss_size = wanted->ss_size};
    return 0;
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
            *reinterpret_cast<std::uint64_t*>(value) = rdmsr(MSR_FS_BASE);
            return 0;
        case ARCH_GET_GS:
            *reinterpret_cast<std::uint64_t*>(value) = rdmsr(MSR_KERNEL_GS_BASE);
            return 0;
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
            return signal_action(static_cast<int>(a), reinterpret_cast<const KernelSigaction*>(b),
                                 reinterpret_cast<KernelSigaction*>(c));
        case SYS_sigaltstack:
            return alternate_stack(reinterpret_cast<const stack_t*>(a),
                                   reinterpret_cast<stack_t*>(b),
                                   reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
        default:
            return arch_prctl(static_cast<int>(a), b);
    }
}
