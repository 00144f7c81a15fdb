// SPDX-License-Identifier: MIT

#include <gtest/gtest.h>

#include <array>
#include <bitset>

#include "monitor/layout.h"
#include "monitor/range_set.h"

namespace dune::sandbox {
namespace {

TEST(Layout, Checks) {
    EXPECT_TRUE(in_user(0, 0));
    EXPECT_TRUE(in_user(kUserEnd - 1, 1));
    EXPECT_FALSE(in_user(kUserEnd - 1, 2));
    EXPECT_FALSE(in_user(1, ~0ull));
    EXPECT_FALSE(in_user(~0ull, 1));
    EXPECT_TRUE(mappable(kMapEnd - 4096, 4096));
    EXPECT_FALSE(mappable(kMapEnd - 4096, 8192));
    EXPECT_FALSE(mappable(0, 4096));
    EXPECT_FALSE(starts_in_user(kUserEnd));
}

class Ranges : public ::testing::Test {
  protected:
    std::array<RangeSet::Range, 8> room{};
    RangeSet set{room.data(), room.size()};
};

TEST_F(Ranges, MergesNeighbours) {
    EXPECT_TRUE(set.add(10, 20));
    EXPECT_TRUE(set.add(30, 40));
    EXPECT_TRUE(set.add(20, 30));
    ASSERT_EQ(set.size(), 1u);
    EXPECT_EQ(set[0].start, 10u);
    EXPECT_EQ(set[0].end, 40u);
    EXPECT_TRUE(set.remove(15, 18));
    EXPECT_EQ(set.size(), 2u);
    EXPECT_TRUE(set.is_free(15, 18));
    EXPECT_FALSE(set.is_free(14, 18));
}

TEST_F(Ranges, FindsTheHighestGap) {
    set.add(100, 200);
    set.add(300, 400);
    EXPECT_EQ(set.find_free(50, 1, 0, 400), 250u);
    EXPECT_EQ(set.find_free(50, 64, 0, 400), 0u);  // 256 + 50 is too far
    EXPECT_EQ(set.find_free(150, 1, 0, 400), 0u);
    EXPECT_EQ(set.find_free(50, 1, 0, 1000), 950u);
    EXPECT_EQ(set.find_free(0, 1, 0, 1000), 0u);
    EXPECT_EQ(set.find_free(10, 1, 50, 40), 0u);
}

TEST_F(Ranges, FullIsAnError) {
    for (uint64_t i = 0; i < room.size(); i++) {
        EXPECT_TRUE(set.add(i * 10, i * 10 + 5));
    }
    EXPECT_FALSE(set.add(1000, 1001));
    EXPECT_FALSE(set.remove(1, 2));
    EXPECT_TRUE(set.add(5, 10));  // joins two
    EXPECT_TRUE(set.add(1000, 1001));
}

// Against a map of single addresses.
TEST(RangesModel, Random) {
    std::array<RangeSet::Range, 600> room{};
    RangeSet set(room.data(), room.size());
    std::bitset<1000> model;
    uint64_t state = 1;
    const auto next = [&state](uint64_t below) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (state >> 33) % below;
    };
    for (int round = 0; round < 20000; round++) {
        const uint64_t start = next(1000);
        const uint64_t end = start + next(1001 - start);
        const bool add = next(2) == 0;
        ASSERT_TRUE(add ? set.add(start, end) : set.remove(start, end));
        for (uint64_t i = start; i < end; i++) {
            model[i] = add;
        }
        const uint64_t length = 1 + next(20);
        const uint64_t found = set.find_free(length, 4, 4, 1000);
        uint64_t wanted = 0;
        for (uint64_t at = 996; at >= 4 && wanted == 0; at -= 4) {
            bool free = at + length <= 1000;
            for (uint64_t i = at; free && i < at + length; i++) {
                free = !model[i];
            }
            wanted = free ? at : 0;
        }
        ASSERT_EQ(found, wanted) << "round " << round;
    }
}

}  // namespace
}  // namespace dune::sandbox
