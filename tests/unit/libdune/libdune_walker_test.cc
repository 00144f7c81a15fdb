// SPDX-License-Identifier: MIT
//
// The walker by itself, over tables whose addresses have nothing to do with where they are.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "mm/walker.h"

namespace dune::test {
namespace {

using namespace dune::mm;

/// Guest-physical page numbers are indices of tables, scrambled.
struct ArenaSpace {
    using Table = std::array<ptent_t, NPTENTRIES>;
    static inline std::vector<std::unique_ptr<Table>> tables;
    static constexpr physaddr_t kScramble = 0xabcde;

    static ptent_t* table(physaddr_t pa) noexcept {
        return tables[(pa >> PGSHIFT) ^ kScramble]->data();
    }
    static physaddr_t make() {
        tables.push_back(std::make_unique<Table>());
        return ((tables.size() - 1) ^ kScramble) << PGSHIFT;
    }
};
static_assert(TableSpace<ArenaSpace>);

struct Visit {
    char what;
    int level;
    std::uint64_t lo;
    std::uint64_t hi;
    friend bool operator==(const Visit&, const Visit&) = default;
};

std::ostream& operator<<(std::ostream& os, const Visit& v) {
    return os << v.what << v.level << std::hex << " " << v.lo << "-" << v.hi << std::dec;
}

struct RecordOp : WalkOp {
    static constexpr bool kVisitsEmpty = true;
    std::vector<Visit> visits;
    int stop_after = -1;
    bool build = false;  // put a table into each empty entry

    int record(Visit visit, int step) {
        visits.push_back(visit);
        return --stop_after == 0 ? -77 : step;
    }
    int pte(ptent_t*, std::uint64_t lin) { return record({'p', 0, lin, lin}, kNext); }
    template <int L>
    int entry(ptent_t* slot, ptent_t, std::uint64_t lo, std::uint64_t hi) {
        if (build)
            *slot = ArenaSpace::make() | kTableFlags;
        return record({'e', L, lo, hi}, build ? kDescend : kNext);
    }
    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t lo, std::uint64_t hi) {
        return record({'t', L, lo, hi}, kDescend);
    }
    template <int L>
    int leave(ptent_t*, ptent_t* child, std::uint64_t lo) {
        EXPECT_NE(child, nullptr);
        return record({'l', L, lo, 0}, kNext);
    }
};

class WalkerTest : public ::testing::Test {
  protected:
    void SetUp() override {
        ArenaSpace::tables.clear();
        root_ = ArenaSpace::table(ArenaSpace::make());
    }
    ptent_t* root_ = nullptr;
};

constexpr std::uint64_t k4K = kSpan<0>;
constexpr std::uint64_t k2M = kSpan<1>;
constexpr std::uint64_t k1G = kSpan<2>;
constexpr std::uint64_t k512G = kSpan<3>;

TEST_F(WalkerTest, CutsARangeAtEveryLevel) {
    RecordOp op;
    ASSERT_EQ(walk_root<ArenaSpace>(root_, k512G - k4K, 2 * k512G + 5, op), 0);
    EXPECT_EQ(op.visits, (std::vector<Visit>{{'e', 3, k512G - k4K, k512G - 1},
                                             {'e', 3, k512G, 2 * k512G - 1},
                                             {'e', 3, 2 * k512G, 2 * k512G + 5}}));
    op = {};
    op.build = true;
    ASSERT_EQ(walk_root<ArenaSpace>(root_, k512G - k4K, k512G + k4K, op), 0);
    EXPECT_EQ(op.visits, (std::vector<Visit>{
                             {'e', 3, k512G - k4K, k512G - 1},
                             {'e', 2, k512G - k4K, k512G - 1},
                             {'e', 1, k512G - k4K, k512G - 1},
                             {'p', 0, k512G - k4K, k512G - k4K},
                             {'l', 1, k512G - k4K, 0},
                             {'l', 2, k512G - k4K, 0},
                             {'l', 3, k512G - k4K, 0},
                             {'e', 3, k512G, k512G + k4K},
                             {'e', 2, k512G, k512G + k4K},
                             {'e', 1, k512G, k512G + k4K},
                             {'p', 0, k512G, k512G},
                             {'p', 0, k512G + k4K, k512G + k4K},
                             {'l', 1, k512G, 0},
                             {'l', 2, k512G, 0},
                             {'l', 3, k512G, 0},
                         }));
}

TEST_F(WalkerTest, EndsWithWhatTheOperationSays) {
    RecordOp build;
    build.build = true;
    ASSERT_EQ(walk_root<ArenaSpace>(root_, 0, 0, build), 0);
    for (int stop = 1; stop <= 5; ++stop) {
        RecordOp op;
        op.stop_after = stop;
        EXPECT_EQ(walk_root<ArenaSpace>(root_, 0, k1G, op), -77);
        EXPECT_EQ(op.visits.size(), static_cast<std::size_t>(stop));
    }
}

TEST_F(WalkerTest, WalksTheWholeSpace) {
    RecordOp op;
    ASSERT_EQ(walk_root<ArenaSpace>(root_, 0, kLinearEnd - 1, op), 0);
    ASSERT_EQ(op.visits.size(), 512U);
    EXPECT_EQ(op.visits.back(), (Visit{'e', 3, kLinearEnd - k512G, kLinearEnd - 1}));
}

TEST_F(WalkerTest, FindsTheEntryOfAnAddress) {
    constexpr std::uint64_t kVa = 0xffff'8123'4567'8000;
    Found found = find<ArenaSpace>(root_, kVa);
    EXPECT_EQ(found.level, 3);
    EXPECT_EQ(found.slot, root_ + 258);
    RecordOp build;
    build.build = true;
    ASSERT_EQ(walk_root<ArenaSpace>(root_, linear(kVa), linear(kVa), build), 0);
    found = find<ArenaSpace>(root_, kVa);
    EXPECT_EQ(found.level, 0);
    EXPECT_EQ((reinterpret_cast<std::uintptr_t>(found.slot) & 7), 0U);
    *found.slot = 0x1000 | PTE_P;
    EXPECT_EQ(*find<ArenaSpace>(root_, kVa + 4095).slot, 0x1000 | PTE_P);
    EXPECT_EQ(find<ArenaSpace>(root_, kVa + k2M).level, 1);
}

TEST(WalkerMath, LinearAndCanonicalAreInverse) {
    for (const std::uint64_t va : {0ULL, 0x7fff'ffff'ffffULL, 0xffff'8000'0000'0000ULL, ~0ULL}) {
        EXPECT_EQ(canonical(linear(va)), va);
        EXPECT_LT(linear(va), kLinearEnd);
    }
    EXPECT_NE(canonical(linear(1ULL << 47)), 1ULL << 47);
}

TEST(WalkerMath, LeavesAndTables) {
    EXPECT_TRUE(is_table(PTE_P | 0x1000));
    EXPECT_FALSE(is_table(PTE_P | PTE_PS));
    EXPECT_FALSE(is_table(0x1000));
    EXPECT_TRUE(is_leaf<0>(PTE_NX));
    EXPECT_FALSE(is_leaf<0>(0));
    EXPECT_TRUE(is_leaf<1>(PTE_PS)) << "not present, but mapped";
    EXPECT_FALSE(is_leaf<2>(PTE_P | 0x1000));
    EXPECT_FALSE(is_leaf<3>(PTE_PS)) << "there are no 512 GiB pages";
    EXPECT_EQ(leaf_pa<1>(0x12345'0040'1000 | PTE_PS), 0x12345'0040'0000U) << "bit 12 is PAT";
}

/// The number of tables a range needs, counted the slow way.
template <int L, int T>
std::uint64_t count_tables(std::uint64_t lo, std::uint64_t hi) {
    std::uint64_t n = 0;
    for (int level = L; level > T; --level)
        n += (hi >> PDSHIFT(level)) - (lo >> PDSHIFT(level)) + 1;
    return n;
}

TEST(WalkerMath, CountsTables) {
    constexpr std::uint64_t kBase = 5 * k512G;
    const std::uint64_t points[] = {0,   k4K,       k2M - k4K,     k2M,        k2M + k4K,
                                    k1G, k1G - k4K, 3 * k1G + k2M, k512G - k4K};
    for (const std::uint64_t lo : points)
        for (const std::uint64_t end : points) {
            if (end <= lo)
                continue;
            const std::uint64_t first = kBase + lo;
            const std::uint64_t last = kBase + end - 1;
            EXPECT_EQ((tables_below<3, 0>(first, last)), (count_tables<3, 0>(first, last)));
            EXPECT_EQ((tables_below<3, 1>(first, last)), (count_tables<3, 1>(first, last)));
        }
    EXPECT_EQ((tables_below<1, 1>(0, k2M - 1)), 0U);
    EXPECT_EQ((tables_below<1, 0>(0, 0)), 1U);

    EXPECT_EQ(tables_to_split<2>(0, k1G - 1), 0U);
    EXPECT_EQ(tables_to_split<2>(0, k2M - 1), 1U);
    EXPECT_EQ(tables_to_split<2>(0, k4K - 1), 2U);
    EXPECT_EQ(tables_to_split<2>(k4K, k1G - 1), 2U);
    EXPECT_EQ(tables_to_split<2>(k4K, k1G - k4K - 1), 3U);
    EXPECT_EQ(tables_to_split<2>(k2M + k4K, 2 * k2M - k4K - 1), 2U) << "both ends in one";
    EXPECT_EQ(tables_to_split<1>(k4K, k4K * 2 - 1), 1U);
}

TEST(WalkerMath, SplitsALargeLeaf) {
    std::array<ptent_t, NPTENTRIES> table;
    constexpr ptent_t kFlags = PTE_P | PTE_W | PTE_NX | PTE_G | PTE_USR1 | PTE_D;
    split_into<2>(table.data(), 0x12'4000'0000 | kFlags | PTE_PS | 1U << 12);
    for (std::uint64_t i = 0; i < NPTENTRIES; ++i)
        ASSERT_EQ(table[i], (0x12'4000'0000 + i * k2M) | kFlags | PTE_PS | 1U << 12);
    split_into<1>(table.data(), table[3]);
    for (std::uint64_t i = 0; i < NPTENTRIES; ++i)
        ASSERT_EQ(table[i], (0x12'4060'0000 + i * k4K) | kFlags | PTE_PAT);
    split_into<1>(table.data(), 0x20'0000 | PTE_PS | PTE_NX);
    EXPECT_EQ(table[1], 0x20'1000 | PTE_NX) << "not present, still mapped";
}

}  // namespace
}  // namespace dune::test
