// SPDX-License-Identifier: MIT
//
// Looking at memory through the guest: a byte as it sees it, and what an access ends in.

#ifndef DUNE_TESTS_VM_KERN_MEMORY_SUPPORT_H
#define DUNE_TESTS_VM_KERN_MEMORY_SUPPORT_H

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include "guest.h"
#include "traps.h"

namespace memory {

using guest::End;
using guest::kWithTraps;
using guest::Options;
using guest::probe;
using guest::Trap;
using guest::Vcpu;

constexpr size_t kHuge = 2 << 20;
constexpr int kPf = 14;

// One byte, as the guest sees it.
inline int peek(const volatile char* p) {
    int value = -1;
    const End end = guest::enter([&] { value = static_cast<unsigned char>(*p); });
    EXPECT_TRUE(end.left()) << end;
    return value;
}

inline void poke(volatile char* p, char value) {
    const End end = guest::enter([&] { *p = value; });
    EXPECT_TRUE(end.left()) << end;
}

struct Fault {
    Trap trap;
    uint32_t signal;
    int code;
    uint64_t address;
};

// The first trap and the first ring 3 of a process map stacks: before a test counts on a hole.
inline void map_what_traps_need() {
    static char code[] = {static_cast<char>(0x0f), 0x0b};  // ud2
    guest::enter([] { probe([] {}); }, kWithTraps);
    guest::enter([] { guest::ring3(code, 0); }, kWithTraps);
}

// What the guest's access ends in: no trap, or a #PF and what the page says of it.
template <typename F>
Fault fault_of(F&& access, const Options& options = kWithTraps) {
    Fault fault = {};
    const End end = guest::enter([&] { fault.trap = probe(access); }, options);
    EXPECT_TRUE(end.left()) << end;
    const dune_vcpu_page& page = Vcpu::get().page();
    fault.signal = page.fault_signal;
    fault.code = page.fault_si_code;
    fault.address = page.fault_address;
    return fault;
}

inline void read_byte(const volatile char* p) {
    static_cast<void>(*p);
}

// Checks that Linux refuses an access to an address, and how.
template <typename F>
void expect_refused(F&& access, int signal, int code, const char* where) {
    const Fault fault = fault_of(access);
    EXPECT_EQ(fault.trap.vector, kPf);
    EXPECT_EQ(fault.trap.cr2, reinterpret_cast<uint64_t>(where));
    EXPECT_EQ(fault.address, reinterpret_cast<uint64_t>(where));
    EXPECT_TRUE(fault.trap.error & DUNE_PF_FROM_HOST) << std::hex << fault.trap.error;
    EXPECT_EQ(fault.signal, static_cast<uint32_t>(signal));
    EXPECT_EQ(fault.code, code);
}

}  // namespace memory

#define EXPECT_REFUSED(access, signal, code, where)                   \
    do {                                                              \
        SCOPED_TRACE(#access);                                        \
        memory::expect_refused([&] { access; }, signal, code, where); \
    } while (0)

#endif
