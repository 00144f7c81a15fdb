// SPDX-License-Identifier: MIT
//
// GDT, IDT and TSS for a vCPU of a test, each vector on an IST stack; running a piece of
// code in ring 0 or ring 3 and telling which exception ended it.

#ifndef DUNE_TESTS_VM_KERN_TRAPS_H
#define DUNE_TESTS_VM_KERN_TRAPS_H

#include <cstdint>
#include <type_traits>

#include "kern/dune.h"

namespace guest {

// Linux' selectors, so that the host's STAR fits.
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kUserData = 0x2b;
constexpr uint16_t kUserCode = 0x33;
constexpr uint16_t kTssSelector = 0x40;

constexpr int kNoTrap = -1;
constexpr int kBackVector = 0x81;  // INT from ring 3 that ends ring3()

struct TrapFrame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

struct Trap {
    int vector = kNoTrap;
    uint64_t error = 0;
    uint64_t cr2 = 0;
    TrapFrame frame = {};
};

// Gets each trap first, on the IST stack; true: resume from the frame. May use only
// general-purpose registers' worth of C++: no floating point.
struct Cpu;
using TrapHandler = bool (*)(TrapFrame&, Cpu&);

struct Cpu {
    uint64_t probe_rsp;  // traps.S: offset 0
    uint64_t probing;    // traps.S: offset 8
    TrapHandler handler;
    Trap trap;                // the last one that ended a probe
    volatile uint64_t count;  // for handlers
    volatile uint64_t seen[4];
    uint64_t gdt[10];
    uint32_t tss[26];
    char* stacks;
};

// Host mode.
Cpu* make_cpu();
void free_cpu(Cpu* cpu);
// The page's first instructions install cpu's tables, then go on as they would have.
void start_with_traps(dune_vcpu_page& page, Cpu* cpu);

// In the guest, with Options::traps. The calling thread's.
Cpu& this_cpu();
// Runs fn(argument) until it returns or traps.
Trap probe(void (*fn)(void*), void* argument);
// Runs code in ring 3 with rdi = argument and a stack of its own until a trap. With IF if asked.
Trap ring3(const void* code, uint64_t argument = 0, uint64_t rflags = 2);

template <typename F>
Trap probe(F&& function) {
    using Plain = std::remove_reference_t<F>;
    return probe([](void* f) { (*static_cast<Plain*>(f))(); },
                 const_cast<void*>(static_cast<const void*>(&function)));
}

}  // namespace guest

#endif
