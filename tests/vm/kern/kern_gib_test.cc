// SPDX-License-Identifier: MIT
//
// Pages of 1 GiB, in a machine that has one to give.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "guest.h"
#include "memory_support.h"
#include "support.h"

namespace {

using guest::End;
using guest::Machine;
using memory::kHuge;
using memory::read_byte;
using support::kPage;

constexpr size_t kGib = 1 << 30;

TEST(Gib, Hugetlbfs) {
    void* memory = mmap(nullptr, kGib, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 30 << MAP_HUGE_SHIFT, -1, 0);
    ASSERT_NE(memory, MAP_FAILED) << strerror(errno);
    auto* p = static_cast<char*>(memory);
    Machine& machine = Machine::get();
    machine.show(p, kGib);
    guest::enter([] {});
    const dune_stats before = machine.stats();
    const End end = guest::enter([&] {
        for (size_t i = 0; i < kGib; i += kHuge) {
            p[i + i / kHuge * 8 % kPage] = static_cast<char>(i / kHuge);
        }
    });
    ASSERT_TRUE(end.left()) << end;
    const dune_stats after = machine.stats();
    ASSERT_TRUE(machine.has(DUNE_FEAT_EPT_1G));
    // What the test itself touches besides, as ASLR has it lie.
    constexpr uint64_t kOthers = 16;
    EXPECT_LE(after.ept_faults - before.ept_faults, 1U + kOthers);
    EXPECT_LE(after.ept_bytes - before.ept_bytes, kOthers * kPage);
    for (size_t i = 0; i < kGib; i += kHuge) {
        ASSERT_EQ(p[i + i / kHuge * 8 % kPage], static_cast<char>(i / kHuge)) << i;
    }
    // A right is taken from all of it at once, and what is unmapped is gone.
    ASSERT_EQ(mprotect(p, kGib, PROT_READ), 0);
    EXPECT_REFUSED(p[kGib - kPage] = 1, SIGSEGV, SEGV_ACCERR, p + kGib - kPage);
    EXPECT_EQ(memory::peek(p + kGib - kHuge + 511 * 8), static_cast<unsigned char>(511));
    ASSERT_EQ(munmap(p, kGib), 0);
    EXPECT_REFUSED(read_byte(p + kHuge), SIGSEGV, SEGV_MAPERR, p + kHuge);
}

}  // namespace
