// SPDX-License-Identifier: MIT
//
// Linux' own system calls for the monitor, without the C library: no errno, no cancellation, usable
// in a trap. SYSCALL works in host mode and in ring 0 alike; engine::blocking_call() is the short
// way of the calls that the program makes.

#ifndef DUNE_APPS_SANDBOX_MONITOR_HOST_CALL_H
#define DUNE_APPS_SANDBOX_MONITOR_HOST_CALL_H

#include <cstdint>
#include <type_traits>

namespace dune::sandbox {

// The result, or a negative errno. Context: any but ring 3.
inline long host_call6(long number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5) {
    long result;
    register uint64_t r10 asm("r10") = a3;
    register uint64_t r8 asm("r8") = a4;
    register uint64_t r9 asm("r9") = a5;
    asm volatile("syscall"
                 : "=a"(result), "+D"(a0), "+S"(a1), "+d"(a2), "+r"(r10), "+r"(r8), "+r"(r9)
                 : "a"(number)
                 : "rcx", "r11", "memory");
    return result;
}

template <class T>
inline uint64_t as_argument(T value) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<uint64_t>(value);
    } else {
        return static_cast<uint64_t>(value);  // signed types are extended, as the kernel expects
    }
}

template <class... Args>
inline long host_call(long number, Args... args) {
    static_assert(sizeof...(args) <= 6);
    const uint64_t list[6] = {as_argument(args)...};
    return host_call6(number, list[0], list[1], list[2], list[3], list[4], list[5]);
}

constexpr bool is_error(long result) {
    return result < 0 && result >= -4095;
}

}  // namespace dune::sandbox

#endif
