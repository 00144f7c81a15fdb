// SPDX-License-Identifier: MIT
//
// What the tests by instruction share: what a piece of guest code did, and the instructions.

#ifndef DUNE_TESTS_VM_KERN_CPU_H
#define DUNE_TESTS_VM_KERN_CPU_H

#include <cpuid.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>

#include "guest.h"
#include "traps.h"

namespace cpu {

using guest::End;
using guest::kWithTraps;
using guest::Machine;
using guest::probe;
using guest::Trap;

constexpr int kUd = 6;
constexpr int kGp = 13;
constexpr int kPf = 14;

constexpr uint32_t kEfer = 0xc0000080, kStar = 0xc0000081, kLstar = 0xc0000082, kCstar = 0xc0000083,
                   kFmask = 0xc0000084, kFsBase = 0xc0000100, kGsBase = 0xc0000101,
                   kKernelGsBase = 0xc0000102, kTscAux = 0xc0000103;

// VM exits that a piece of guest code caused by itself, by basic exit reason.
template <typename F>
std::map<int, uint64_t> exits_of(F&& code) {
    const dune_stats before = Machine::get().stats();
    const End end = guest::enter(code, kWithTraps);
    EXPECT_TRUE(end.left() && end.argument == 0) << end;
    const dune_stats after = Machine::get().stats();
    std::map<int, uint64_t> exits;
    for (int reason = 0; reason < DUNE_NR_EXITS; reason++) {
        // Not interrupts, the hypercall that leaves, and memory that is new.
        if (reason != 1 && reason != 18 && reason != 48 &&
            after.exits[reason] != before.exits[reason]) {
            exits[reason] = after.exits[reason] - before.exits[reason];
        }
    }
    return exits;
}

inline const std::map<int, uint64_t> kNone;

// The exception that a piece of ring-0 code raises.
template <typename F>
Trap trap_of(F&& code) {
    Trap trap;
    const End end = guest::enter([&] { trap = probe(code); }, kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    return trap;
}

#define EXPECT_GP(...)                                    \
    do {                                                  \
        const Trap trap_ = trap_of([&] { __VA_ARGS__; }); \
        EXPECT_EQ(trap_.vector, kGp) << #__VA_ARGS__;     \
        EXPECT_EQ(trap_.error, 0U) << #__VA_ARGS__;       \
    } while (0)
#define EXPECT_UD(...) EXPECT_EQ(trap_of([&] { __VA_ARGS__; }).vector, kUd) << #__VA_ARGS__

template <int N>
uint64_t read_cr() {
    uint64_t value;
    if constexpr (N == 0)
        asm volatile("mov %%cr0, %0" : "=r"(value));
    if constexpr (N == 2)
        asm volatile("mov %%cr2, %0" : "=r"(value));
    if constexpr (N == 3)
        asm volatile("mov %%cr3, %0" : "=r"(value));
    if constexpr (N == 4)
        asm volatile("mov %%cr4, %0" : "=r"(value));
    if constexpr (N == 8)
        asm volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}

template <int N>
void write_cr(uint64_t value) {
    if constexpr (N == 0)
        asm volatile("mov %0, %%cr0" : : "r"(value) : "memory");
    if constexpr (N == 2)
        asm volatile("mov %0, %%cr2" : : "r"(value) : "memory");
    if constexpr (N == 3)
        asm volatile("mov %0, %%cr3" : : "r"(value) : "memory");
    if constexpr (N == 4)
        asm volatile("mov %0, %%cr4" : : "r"(value) : "memory");
    if constexpr (N == 8)
        asm volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

inline uint64_t rdmsr(uint32_t msr) {
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return static_cast<uint64_t>(high) << 32 | low;
}

inline void wrmsr(uint32_t msr, uint64_t value) {
    asm volatile("wrmsr"
                 :
                 : "c"(msr), "a"(static_cast<uint32_t>(value)),
                   "d"(static_cast<uint32_t>(value >> 32))
                 : "memory");
}

struct CpuidResult {
    uint32_t eax, ebx, ecx, edx;
};

inline CpuidResult cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    CpuidResult r;
    __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
    return r;
}

}  // namespace cpu

#endif
