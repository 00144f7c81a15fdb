// SPDX-License-Identifier: MIT
//
// Slots: which virtual GiB each guest-physical one shows, both ways, and that nothing of what a
// slot showed before stays.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <map>
#include <random>

#include "logic.h"

namespace {

constexpr uint32_t kNone = 0xffffffff;
constexpr uint32_t kSlots = 64;  // of 36-bit addresses
constexpr uint64_t k1G = 1 << 30;

class Slots : public testing::Test {
  protected:
    void SetUp() override { logic_start(3, true, 36); }
    void TearDown() override { EXPECT_EQ(logic_end(), 0U) << "pages are left"; }
    static int set(uint32_t slot, uint32_t va) { return logic_set_slots(slot, 1, &va); }
};

TEST_F(Slots, ShowAndHide) {
    EXPECT_EQ(logic_slot(5), kNone);
    EXPECT_EQ(set(5, 77), 0);
    EXPECT_EQ(logic_slot(5), 77U);
    EXPECT_EQ(logic_shown_in(77), 5U);
    EXPECT_EQ(set(5, 77), 0) << "again";
    EXPECT_EQ(set(5, 78), 0) << "another";
    EXPECT_EQ(logic_shown_in(77), 0U);
    EXPECT_EQ(logic_shown_in(78), 5U);
    EXPECT_EQ(set(5, kNone), 0);
    EXPECT_EQ(logic_slot(5), kNone);
    EXPECT_EQ(logic_shown_in(78), 0U);
}

TEST_F(Slots, WhatIsRefusedChangesNothing) {
    EXPECT_EQ(set(5, 77), 0);
    EXPECT_EQ(set(0, 1), -EINVAL);
    EXPECT_EQ(set(kSlots, 1), -EINVAL);
    EXPECT_EQ(set(kNone, 1), -EINVAL);
    EXPECT_EQ(set(6, 1 << 17), -EINVAL) << "beyond user space";
    EXPECT_EQ(set(6, kNone - 1), -EINVAL);
    EXPECT_EQ(set(6, 77), -EEXIST);
    EXPECT_EQ(set(5, 1 << 17), -EINVAL);
    EXPECT_EQ(logic_slot(5), 77U);
    EXPECT_EQ(logic_slot(6), kNone);
    EXPECT_EQ(logic_shown_in(77), 5U);
    EXPECT_EQ(logic_set_slots(kSlots - 1, 2, nullptr), -EINVAL) << "over the end";
    EXPECT_EQ(logic_set_slots(1, kNone, nullptr), -EINVAL);
}

TEST_F(Slots, ManyAtOnceUpToTheFirstThatIsRefused) {
    const uint32_t va[] = {10, 11, 10, 12};
    EXPECT_EQ(logic_set_slots(1, 4, va), -EEXIST);
    EXPECT_EQ(logic_slot(1), 10U);
    EXPECT_EQ(logic_slot(2), 11U);
    EXPECT_EQ(logic_slot(3), kNone);
    EXPECT_EQ(logic_slot(4), kNone);
}

TEST_F(Slots, AChangeTakesTheMappingsWithIt) {
    EXPECT_EQ(set(5, 77), 0);
    EXPECT_EQ(set(6, 78), 0);
    ASSERT_TRUE(logic_map(5 * k1G + 4096, 4096, 1, LOGIC_READ));
    ASSERT_TRUE(logic_map(6 * k1G, 0, 1, LOGIC_READ));
    const uint64_t gen = logic_flush_gen();
    const size_t kicks = logic_kicks();
    EXPECT_EQ(set(5, 77), 0);
    EXPECT_TRUE(logic_walk(5 * k1G + 4096).present) << "no change";
    EXPECT_EQ(set(5, 79), 0);
    EXPECT_FALSE(logic_walk(5 * k1G + 4096).present);
    EXPECT_TRUE(logic_walk(6 * k1G).present);
    EXPECT_EQ(logic_flush_gen(), gen + 1);
    EXPECT_EQ(logic_kicks(), kicks + 1);
    EXPECT_EQ(set(5, kNone), 0) << "nothing was mapped, nobody has to flush";
    EXPECT_EQ(logic_kicks(), kicks + 1);
}

TEST_F(Slots, AnyOrderOfChanges) {
    std::map<uint32_t, uint32_t> shown;  // slot -> virtual one
    std::mt19937 random(1);
    for (int step = 0; step < 20'000; step++) {
        const auto slot = static_cast<uint32_t>(random() % (kSlots + 2));
        const auto va = static_cast<uint32_t>(random() % 4 == 0 ? kNone : random() % 80);
        int wanted = 0;
        if (slot == 0 || slot >= kSlots) {
            wanted = -EINVAL;
        } else if (va != kNone) {
            for (const auto& [s, v] : shown) {
                wanted = v == va && s != slot ? -EEXIST : wanted;
            }
        }
        ASSERT_EQ(set(slot, va), wanted);
        if (wanted == 0) {
            shown.erase(slot);
            if (va != kNone) {
                shown[slot] = va;
            }
        }
        for (uint32_t s = 1; s < kSlots; s++) {
            ASSERT_EQ(logic_slot(s), shown.count(s) ? shown[s] : kNone);
        }
        uint32_t in = 0;
        for (const auto& [s, v] : shown) {
            in = v == 40 ? s : in;
        }
        ASSERT_EQ(logic_shown_in(40), in);
    }
}

}  // namespace
