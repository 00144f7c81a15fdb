// SPDX-License-Identifier: MIT
//
// The mirror: it shows what the host's page table lets user mode do, through slots, and follows
// the notifiers.

#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>
#include <cstdint>

#include "logic.h"

namespace {

constexpr uint64_t kPage = 1 << 12, k2M = 1 << 21, k1G = 1 << 30;

// Entries of the host's page table (SDM table 4-20).
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kPwt = 8, kPcd = 16, kDirty = 64,
                   kLarge = 128, kSpecial = 512, kNx = uint64_t{1} << 63;
constexpr uint64_t kAll = kPresent | kWritable | kUser | kDirty;

constexpr unsigned kR = LOGIC_READ, kW = LOGIC_WRITE, kX = LOGIC_EXEC;

alignas(4096) char memory[4 * kPage];

class Mirror : public testing::Test {
  protected:
    void SetUp() override {
        logic_start(3, true, 40);
        // Out of order, so that a virtual range is several guest-physical ones.
        const uint32_t slots[] = {101, 100, 103};
        ASSERT_EQ(logic_set_slots(1, 3, slots), 0);
        auto own = static_cast<uint32_t>(address() >> 30);
        ASSERT_EQ(logic_set_slots(9, 1, &own), 0);
    }
    void TearDown() override {
        EXPECT_EQ(logic_tables(), logic_reachable_tables());
        EXPECT_EQ(logic_end(), 0U) << "pages are left";
    }

    static uint64_t address() { return reinterpret_cast<uint64_t>(memory); }
    static uint64_t own_gpa() { return 9 * k1G + address() % k1G; }
    static bool present(uint64_t gpa) { return logic_walk(gpa).present; }
    // The access that the mirror gives for an entry of a 4-KiB page.
    static unsigned access_for(uint64_t entry) {
        logic_invalidate_start(100 * k1G, 100 * k1G + kPage);
        logic_invalidate_end(100 * k1G, 100 * k1G + kPage);
        logic_host_set(100 * k1G, 1, entry);
        // It has to have tables before it can map anything by itself.
        logic_fault(2 * k1G, kR);
        logic_try(2 * k1G, kR);
        const logic_found walk = logic_walk(2 * k1G);
        return walk.present ? walk.access : 0;
    }
};

TEST_F(Mirror, ShowsEachSizeAtItsPlace) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR | kW | kX);
    logic_host_set(100 * k1G + 5 * kPage, 1, 0x7000 | kAll);
    logic_host_set(101 * k1G + 3 * k2M, 2, 8 * k2M | kAll | kLarge);
    logic_host_set(103 * k1G, 3, 2 * k1G | kAll | kLarge);
    EXPECT_FALSE(logic_try(2 * k1G + 5 * kPage, kR)) << "no tables to map with";
    for (const uint64_t gpa : {2 * k1G + 5 * kPage, k1G + 3 * k2M + 0x5000, 3 * k1G + 0x123456}) {
        EXPECT_EQ(logic_fault(gpa, kR), 0);
        EXPECT_EQ(logic_fault(gpa, kR), 0) << "again";
        EXPECT_TRUE(logic_try(gpa, kR)) << "and by itself";
    }
    EXPECT_EQ(logic_walk(2 * k1G + 5 * kPage).pa, 0x7000U);
    EXPECT_EQ(logic_walk(2 * k1G + 5 * kPage).level, 1);
    EXPECT_FALSE(present(2 * k1G + 4 * kPage));
    EXPECT_EQ(logic_walk(k1G + 3 * k2M + 0x5000).pa, 8 * k2M + 0x5000);
    EXPECT_EQ(logic_walk(k1G + 3 * k2M + 0x5000).level, 2);
    EXPECT_EQ(logic_walk(3 * k1G + 0x123456).pa, 2 * k1G + 0x123456);
    EXPECT_EQ(logic_walk(3 * k1G + 0x123456).level, 3);
}

class FiveLevels : public Mirror {
  protected:
    void SetUp() override {
        logic_host_five_levels(true);
        Mirror::SetUp();
    }
    void TearDown() override {
        Mirror::TearDown();
        logic_host_five_levels(false);
    }
};

TEST_F(FiveLevels, OfTheHostsAreWalked) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR | kW | kX);
    EXPECT_FALSE(logic_try(2 * k1G, kR));
    EXPECT_EQ(logic_fault(2 * k1G, kR), 0) << "nothing there yet: the guest tries again";
    EXPECT_FALSE(present(2 * k1G));
    logic_host_set(100 * k1G + kPage, 1, 0x7000 | kAll);
    logic_host_set(101 * k1G, 3, 5 * k1G | kAll | kLarge);
    EXPECT_EQ(logic_fault(2 * k1G + kPage, kR), 0);
    EXPECT_EQ(logic_fault(1 * k1G, kR), 0);
    EXPECT_EQ(logic_walk(2 * k1G + kPage).pa, 0x7000U);
    EXPECT_EQ(logic_walk(1 * k1G + kPage).pa, 5 * k1G + kPage);
}

TEST_F(Mirror, GivesWhatUserModeMayDo) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    constexpr unsigned kWb = LOGIC_MEMTYPE_WB;
    EXPECT_EQ(access_for(0x7000 | kAll), kR | kW | kX | kWb);
    EXPECT_EQ(access_for(0x7000 | kAll | kNx), kR | kW | kWb);
    EXPECT_EQ(access_for(0x7000 | kPresent | kUser | kNx), kR | kWb);
    EXPECT_EQ(access_for(0x7000 | kPresent | kUser | kWritable | kNx), kR | kWb)
        << "clean: the first write goes through Linux";
    EXPECT_EQ(access_for(0x7000 | kPresent | kUser | kWritable | kSpecial | kNx), kR | kW | kWb)
        << "a device's: nobody asks whether it is dirty";
    EXPECT_EQ(access_for(0x7000 | kPresent | kUser | kSpecial | kNx), kR | kWb);
    EXPECT_EQ(access_for(0x7000 | kPresent | kUser | kDirty | kNx), kR | kWb) << "a shadow stack";
    EXPECT_EQ(access_for(0x7000 | kPresent | kWritable | kDirty), 0U) << "the kernel's";
    EXPECT_EQ(access_for(0x7000 | (kAll & ~kPresent)), 0U) << "PROT_NONE";
    EXPECT_EQ(access_for(0x7000 | kAll | kNx | kPwt), kR | kW | 4U << 3) << "write-through";
    EXPECT_EQ(access_for(0x7000 | kAll | kNx | kPcd), kR | kW) << "UC-";
    EXPECT_EQ(access_for(0x7000 | kAll | kNx | kPcd | kPwt), kR | kW) << "UC";
}

TEST_F(Mirror, WhatNoSlotShowsIsAFault) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    for (const uint64_t gpa : {uint64_t{0}, 7 * k1G, k1G << 10, ~uint64_t{0} << 12}) {
        EXPECT_FALSE(logic_try(gpa, kR));
        EXPECT_EQ(logic_fault(gpa, kR), -EFAULT);
        EXPECT_EQ(logic_fault_signal(), static_cast<uint32_t>(SIGSEGV));
        EXPECT_EQ(logic_fault_code(), SEGV_MAPERR);
    }
}

// Linux, when it is asked for the page: it maps it, for reading clean and for writing dirty.
void map_on_fault(uint64_t va, bool write) {
    logic_host_set(va, 1, 0x9000 | kPresent | kUser | kWritable | kNx | (write ? kDirty : 0));
}

TEST_F(Mirror, WhatIsMissingLinuxIsAskedFor) {
    logic_host_vma(address(), address() + sizeof(memory), kR | kW);
    logic_host_on_fault(map_on_fault);
    EXPECT_FALSE(logic_try(own_gpa(), kR));
    EXPECT_EQ(logic_fault(own_gpa(), kR), 0);
    EXPECT_EQ(logic_walk(own_gpa()).access, kR | LOGIC_MEMTYPE_WB);
    EXPECT_FALSE(logic_try(own_gpa(), kW)) << "clean";
    EXPECT_EQ(logic_fault(own_gpa(), kW), 0);
    EXPECT_EQ(logic_walk(own_gpa()).access, kR | kW | LOGIC_MEMTYPE_WB);
}

// The slot changes while Linux maps what it showed, as it may take as long as userfaultfd likes.
void hide_on_fault(uint64_t va, bool write) {
    const uint32_t none = 0xffffffff;
    map_on_fault(va, write);
    EXPECT_EQ(logic_set_slots(9, 1, &none), 0);
}

TEST_F(Mirror, WhatTheSlotShowedBeforeTheFaultIsNotMapped) {
    logic_host_vma(address(), address() + sizeof(memory), kR | kW);
    logic_host_on_fault(hide_on_fault);
    EXPECT_EQ(logic_fault(own_gpa(), kW), 0) << "the guest tries again";
    EXPECT_FALSE(present(own_gpa())) << "no notifier would take it out any more";
    EXPECT_EQ(logic_fault(own_gpa(), kW), -EFAULT);
}

TEST_F(Mirror, WhatLinuxRefusesIsAFault) {
    logic_host_vma(address() + kPage, address() + sizeof(memory), kR);
    logic_host_on_fault(map_on_fault);
    EXPECT_EQ(logic_fault(own_gpa(), kR), -EFAULT) << "below the area";
    EXPECT_EQ(logic_fault_signal(), static_cast<uint32_t>(SIGSEGV));
    EXPECT_EQ(logic_fault_code(), SEGV_MAPERR);
    EXPECT_EQ(logic_fault(own_gpa() + kPage, kW), -EFAULT);
    EXPECT_EQ(logic_fault_code(), SEGV_ACCERR);
    EXPECT_EQ(logic_fault(own_gpa() + kPage, kX), -EFAULT) << "readable, not executable";
    EXPECT_EQ(logic_fault_code(), SEGV_ACCERR);
    EXPECT_FALSE(present(own_gpa() + kPage));
    EXPECT_EQ(logic_fault(own_gpa() + kPage, kR), 0);
}

TEST_F(Mirror, AnInvalidationTakesWhatItCoversInEachSlot) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    // The last page of virtual GiB 100 (slot 2), and the first two of 101 (slot 1).
    logic_host_set(101 * k1G - kPage, 1, 0x1000 | kAll);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    logic_host_set(101 * k1G + kPage, 1, 0x3000 | kAll);
    for (const uint64_t gpa : {3 * k1G - kPage, k1G, k1G + kPage}) {
        ASSERT_EQ(logic_fault(gpa, kR), 0);
    }
    const size_t kicks = logic_kicks();
    logic_invalidate_start(101 * k1G - kPage, 101 * k1G + kPage);
    EXPECT_EQ(logic_kicks(), kicks + 1);
    EXPECT_FALSE(present(3 * k1G - kPage));
    EXPECT_FALSE(present(k1G));
    EXPECT_TRUE(present(k1G + kPage));
    EXPECT_FALSE(logic_try(k1G, kR)) << "not while it is going";
    EXPECT_FALSE(present(k1G));
    EXPECT_TRUE(logic_try(k1G + kPage, kR)) << "beside it";
    logic_invalidate_end(101 * k1G - kPage, 101 * k1G + kPage);
    EXPECT_EQ(logic_fault(k1G, kR), 0);
    EXPECT_TRUE(present(k1G));
    logic_invalidate_start(50 * k1G, 60 * k1G);
    EXPECT_EQ(logic_kicks(), kicks + 1) << "nothing of it was mapped";
    logic_invalidate_end(50 * k1G, 60 * k1G);
}

TEST_F(Mirror, ALargePageIsNotMappedBesideWhatGoes) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 2, 8 * k2M | kAll | kLarge);
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    logic_invalidate_start(101 * k1G + 7 * kPage, 101 * k1G + 8 * kPage);
    EXPECT_FALSE(present(k1G)) << "the whole of it goes";
    EXPECT_FALSE(logic_try(k1G, kR)) << "the page at hand does not go, the leaf would";
    logic_invalidate_end(101 * k1G + 7 * kPage, 101 * k1G + 8 * kPage);
    EXPECT_EQ(logic_fault(k1G, kR), 0);
    EXPECT_TRUE(present(k1G));
}

TEST_F(Mirror, InvalidationsNest) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
    logic_invalidate_start(101 * k1G + 4 * kPage, 101 * k1G + 5 * kPage);
    logic_invalidate_end(101 * k1G + 4 * kPage, 101 * k1G + 5 * kPage);
    EXPECT_FALSE(logic_try(k1G, kR)) << "one is still under way";
    logic_invalidate_end(101 * k1G, 101 * k1G + kPage);
    EXPECT_EQ(logic_fault(k1G, kR), 0);
    EXPECT_TRUE(present(k1G));
}

TEST_F(Mirror, OneThatFindsNothingWaitsForTheKickOfAnother) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    const size_t kicks = logic_kicks();
    logic_on_kick([] {
        // Another CPU's, as the first one's kick is on its way: who uses the page has not left it.
        const size_t before = logic_kicks();
        logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
        EXPECT_EQ(logic_kicks(), before + 1);
        logic_invalidate_end(101 * k1G, 101 * k1G + kPage);
    });
    logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
    EXPECT_EQ(logic_kicks(), kicks + 2);
    logic_invalidate_end(101 * k1G, 101 * k1G + kPage);
    logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
    EXPECT_EQ(logic_kicks(), kicks + 2) << "both are done";
    logic_invalidate_end(101 * k1G, 101 * k1G + kPage);
}

TEST_F(Mirror, TheLockIsGivenUpAfterASlotWhoseTablesWent) {
    // Others spin for it, with interrupts off.
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    for (const uint64_t va : {100 * k1G, 101 * k1G, 103 * k1G}) {
        logic_host_set(va, 1, 0x2000 | kAll);
    }
    for (const uint64_t gpa : {k1G, 2 * k1G, 3 * k1G}) {
        ASSERT_EQ(logic_fault(gpa, kR), 0);
    }
    size_t before = logic_locks();
    logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
    EXPECT_EQ(logic_locks(), before + 1) << "one page, one way";
    before = logic_locks();
    logic_invalidate_start(0, 128 * k1G);
    EXPECT_EQ(logic_locks(), before + 3);
    for (const uint64_t gpa : {k1G, 2 * k1G, 3 * k1G}) {
        EXPECT_FALSE(present(gpa));
    }
}

TEST_F(Mirror, ASlotIsHiddenOnlyAfterTheKickOfAnother) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    logic_host_set(100 * k1G, 1, 0x3000 | kAll);
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    ASSERT_EQ(logic_fault(2 * k1G, kR), 0) << "so that no table goes with the slot";
    const size_t kicks = logic_kicks();
    logic_on_kick([] {
        const uint32_t none = 0xffffffff;
        const size_t before = logic_kicks();
        EXPECT_EQ(logic_set_slots(1, 1, &none), 0);
        EXPECT_EQ(logic_kicks(), before + 1);
    });
    logic_invalidate_start(101 * k1G, 102 * k1G);
    EXPECT_EQ(logic_kicks(), kicks + 2);
    logic_invalidate_end(101 * k1G, 102 * k1G);
}

class OldMirror : public Mirror {
  protected:
    void SetUp() override {
        logic_start(1, false, 40);
        const uint32_t slot = 101;
        ASSERT_EQ(logic_set_slots(1, 1, &slot), 0);
    }
};

TEST_F(OldMirror, WhatWasTakenOutToSeeAnAccessIsStillInTheTlb) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    logic_invalidate_start(102 * k1G, 103 * k1G);
    logic_invalidate_end(102 * k1G, 103 * k1G);
    const size_t kicks = logic_kicks();
    EXPECT_TRUE(logic_clear_young(101 * k1G, 101 * k1G + kPage));
    EXPECT_FALSE(present(k1G)) << "no accessed bits: it goes, to be seen when it comes";
    EXPECT_EQ(logic_kicks(), kicks) << "not worth it";
    logic_invalidate_start(101 * k1G, 101 * k1G + kPage);
    EXPECT_EQ(logic_kicks(), kicks + 1) << "now it is";
    logic_invalidate_end(101 * k1G, 101 * k1G + kPage);
}

TEST_F(Mirror, TellsWhatWasAccessed) {
    logic_host_vma(0, ~uint64_t{0} >> 17, kR);
    logic_host_set(101 * k1G, 1, 0x2000 | kAll);
    EXPECT_FALSE(logic_test_young(101 * k1G));
    ASSERT_EQ(logic_fault(k1G, kR), 0);
    EXPECT_TRUE(logic_test_young(101 * k1G));
    EXPECT_TRUE(logic_clear_flush_young(101 * k1G, 101 * k1G + kPage));
    EXPECT_FALSE(logic_test_young(101 * k1G));
    EXPECT_TRUE(present(k1G));
}

}  // namespace
