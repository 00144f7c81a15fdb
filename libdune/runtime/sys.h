// SPDX-License-Identifier: MIT
/**
 * @file
 * System calls that neither errno, nor cancellation, nor libdune's own view of signals come
 * between: by SYSCALL in host mode, by VMCALL in ring 0. Context: any but ring 3.
 */
#pragma once

#include <sys/syscall.h>

#include <cstdint>
#include <type_traits>

#include "libdune/cpu-x86.h"

extern "C" long dune_vmcall(long nr, long a, long b, long c, long d, long e, long f) noexcept;

namespace dune::rt {

inline long host_syscall(long nr, long a, long b, long c, long d, long e, long f) noexcept {
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "+a"(nr)
                 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return nr;
}

template <class T>
long word(T value) noexcept {
    if constexpr (std::is_pointer_v<T>)
        return static_cast<long>(reinterpret_cast<std::uintptr_t>(value));
    else if constexpr (std::is_null_pointer_v<T>)
        return 0;
    else
        return static_cast<long>(value);
}

/** @return the result of Linux: a negative errno on failure */
template <class A = long, class B = long, class C = long, class D = long, class E = long,
          class F = long>
long sys(long nr, A a = 0, B b = 0, C c = 0, D d = 0, E e = 0, F f = 0) noexcept {
    return ((read_cs() & 3) == 0 ? dune_vmcall : host_syscall)(nr, word(a), word(b), word(c),
                                                               word(d), word(e), word(f));
}

/** Linux' struct sigaction, which is not the C library's. */
struct KernelSigaction {
    std::uintptr_t handler;
    std::uint64_t flags;
    std::uintptr_t restorer;
    std::uint64_t mask;
};

constexpr std::uint64_t kSaRestorer = 0x04000000;
constexpr int kSignals = 64;

constexpr std::uint64_t sigbit(int sig) noexcept {
    return std::uint64_t{1} << (sig - 1);
}

inline long sys_sigaction(int sig, const KernelSigaction* act, KernelSigaction* old) noexcept {
    return sys(SYS_rt_sigaction, sig, act, old, sizeof(std::uint64_t));
}

inline long sys_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old) noexcept {
    return sys(SYS_rt_sigprocmask, how, set, old, sizeof(std::uint64_t));
}

}  // namespace dune::rt
