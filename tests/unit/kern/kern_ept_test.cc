// SPDX-License-Identifier: MIT
//
// EPT tables: what is mapped is found as mapped, what is taken out is gone, and tables come and go
// with it.

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "logic.h"

namespace {

constexpr uint64_t kPage = 1 << 12, k2M = 1 << 21, k1G = 1 << 30;
constexpr unsigned kRw = LOGIC_READ | LOGIC_WRITE | LOGIC_MEMTYPE_WB;

uint64_t size_of(int level) {
    return uint64_t{1} << (12 + 9 * (level - 1));
}

class Ept : public testing::Test {
  protected:
    void start(int max_level, bool accessed_bits = true) {
        logic_end();
        logic_start(max_level, accessed_bits, 40);
    }
    void SetUp() override { logic_start(3, true, 40); }
    void TearDown() override {
        EXPECT_EQ(logic_tables(), logic_reachable_tables());
        EXPECT_EQ(logic_end(), 0U) << "pages are left";
    }

    static void expect_mapped(uint64_t gpa, uint64_t pa, int level, unsigned access) {
        const logic_found walk = logic_walk(gpa);
        ASSERT_TRUE(walk.present) << std::hex << gpa;
        EXPECT_FALSE(walk.malformed);
        EXPECT_EQ(walk.pa, pa) << std::hex << gpa;
        EXPECT_EQ(walk.level, level);
        EXPECT_EQ(walk.access, access);
        EXPECT_TRUE(walk.ignore_pat) << "the guest does not choose the memory type";
        EXPECT_TRUE(walk.accessed);
    }
    static bool present(uint64_t gpa) { return logic_walk(gpa).present; }
};

TEST_F(Ept, LeavesOfEachSize) {
    for (int level = 1; level <= 3; level++) {
        const uint64_t size = size_of(level), gpa = static_cast<uint64_t>(level) << 35;
        EXPECT_TRUE(logic_map(gpa + 0x123, 8 * size, level, kRw));
        expect_mapped(gpa, 8 * size, level, kRw);
        expect_mapped(gpa + size - 1, 9 * size - 1, level, kRw);
        EXPECT_FALSE(present(gpa + size));
        EXPECT_FALSE(present(gpa - 1));
    }
    EXPECT_EQ(logic_tables(), 2U + 2 + 1) << "two for all, two more for 4 KiB, one for 2 MiB";
}

TEST_F(Ept, RightsAreTheLeafs) {
    for (unsigned access = 1; access < 8; access++) {
        const uint64_t gpa = k1G + access * kPage;
        EXPECT_TRUE(logic_map(gpa, gpa + k1G, 1, access | LOGIC_MEMTYPE_WB));
        expect_mapped(gpa, gpa + k1G, 1, access | LOGIC_MEMTYPE_WB);
    }
    // And change in place, also where the table is known from the last time.
    EXPECT_TRUE(logic_map(k1G + kPage, 7 * kPage, 1, kRw));
    expect_mapped(k1G + kPage, 7 * kPage, 1, kRw);
    EXPECT_TRUE(logic_map(k1G + kPage, 7 * kPage, 1, LOGIC_READ));
    expect_mapped(k1G + kPage, 7 * kPage, 1, LOGIC_READ);
}

TEST_F(Ept, OfALargerPageOnlyThePartThatTheCpuCan) {
    start(2);  // no 1-GiB leaves
    EXPECT_TRUE(logic_map(3 * k1G + 5 * k2M + 0x1234, 16 * k1G, 3, kRw));
    expect_mapped(3 * k1G + 5 * k2M, 16 * k1G + 5 * k2M, 2, kRw);
    EXPECT_FALSE(present(3 * k1G + 4 * k2M));
    EXPECT_FALSE(present(3 * k1G + 6 * k2M));
    start(1);  // nor 2-MiB ones
    EXPECT_TRUE(logic_map(3 * k1G + 5 * k2M + 0x1234, 16 * k1G, 3, kRw));
    expect_mapped(3 * k1G + 5 * k2M + 0x1000, 16 * k1G + 5 * k2M + 0x1000, 1, kRw);
    EXPECT_FALSE(present(3 * k1G + 5 * k2M));
}

TEST_F(Ept, CodeInSmallPagesWhereTheCpuAsksForIt) {
    logic_small_code();
    for (const int level : {1, 2, 3}) {
        const uint64_t gpa = static_cast<uint64_t>(level) << 35;
        const uint64_t at = size_of(level) - kPage, pa = 8 * k1G;
        EXPECT_TRUE(logic_map(gpa + at + 0x12, pa, level, kRw | LOGIC_EXEC));
        expect_mapped(gpa + at, pa + at, 1, kRw | LOGIC_EXEC);
        EXPECT_FALSE(level > 1 && present(gpa));
        EXPECT_TRUE(logic_zap(gpa, gpa + k1G));
        EXPECT_TRUE(logic_map(gpa + at, pa, level, kRw));
        expect_mapped(gpa + at, pa + at, level, kRw);
    }
}

TEST_F(Ept, ATableStaysWhereALargePageBelongsNow) {
    EXPECT_TRUE(logic_map(k1G, kPage, 1, LOGIC_READ));
    EXPECT_TRUE(logic_map(k1G + 3 * kPage, 8 * k2M, 2, kRw));
    expect_mapped(k1G, kPage, 1, LOGIC_READ);
    expect_mapped(k1G + 3 * kPage, 8 * k2M + 3 * kPage, 1, kRw);
    EXPECT_FALSE(present(k1G + 4 * kPage));
}

TEST_F(Ept, ASmallPageDoesNotGoBelowALargeOne) {
    EXPECT_TRUE(logic_map(k1G, 8 * k2M, 2, kRw));
    EXPECT_FALSE(logic_map(k1G + kPage, kPage, 1, kRw))
        << "the caller has to wait, not to try again";
    expect_mapped(k1G + kPage, 8 * k2M + kPage, 2, kRw);
    EXPECT_TRUE(logic_zap(k1G + 2 * kPage, k1G + 3 * kPage)) << "all of it goes";
    EXPECT_FALSE(present(k1G));
    EXPECT_TRUE(logic_map(k1G + kPage, kPage, 1, kRw));
}

TEST_F(Ept, ZapTakesNoMoreThanAskedAndTablesWithIt) {
    for (uint64_t i = 0; i < 512; i++) {
        EXPECT_TRUE(logic_map(k1G + i * kPage, i * kPage, 1, kRw));
    }
    EXPECT_EQ(logic_tables(), 4U);
    EXPECT_TRUE(logic_zap(k1G + 5 * kPage, k1G + 7 * kPage));
    for (uint64_t i = 0; i < 512; i++) {
        EXPECT_EQ(present(k1G + i * kPage), i != 5 && i != 6) << i;
    }
    EXPECT_FALSE(logic_zap(k1G + 5 * kPage, k1G + 7 * kPage)) << "nothing was there to flush";
    EXPECT_FALSE(logic_zap(2 * k1G, 3 * k1G));
    EXPECT_EQ(logic_tables(), 4U);
    EXPECT_TRUE(logic_zap(k1G, k1G + k2M));
    EXPECT_EQ(logic_tables(), 3U) << "the table of a range that went as a whole";
    EXPECT_FALSE(present(k1G));
    EXPECT_TRUE(logic_zap(0, uint64_t{1} << 40));
    EXPECT_EQ(logic_tables(), 1U);
}

TEST_F(Ept, UnmappedPieceByPieceTablesGoToo) {
    // Whichever entry is the last, near to the one that goes or far from it.
    for (const uint64_t last : {0, 1, 7, 255, 256, 257, 263, 264, 510, 511}) {
        for (const uint64_t i : {uint64_t{7}, last}) {
            EXPECT_TRUE(logic_map(k1G + i * kPage, i * kPage, 1, kRw));
            EXPECT_TRUE(logic_map(3 * k1G + i * k2M, i * k2M, 2, kRw));
        }
        if (last != 7) {
            EXPECT_TRUE(logic_unmap(k1G + 7 * kPage, k1G + 8 * kPage));
            EXPECT_TRUE(logic_unmap(3 * k1G + 7 * k2M, 3 * k1G + 8 * k2M));
            EXPECT_TRUE(present(k1G + last * kPage)) << last;
            EXPECT_TRUE(present(3 * k1G + last * k2M)) << last;
            EXPECT_EQ(logic_tables(), 1U + 1 + 2 + 1);
        }
        EXPECT_TRUE(logic_unmap(k1G + last * kPage, k1G + (last + 1) * kPage));
        EXPECT_EQ(logic_tables(), 1U + 1 + 1) << last;
        EXPECT_TRUE(logic_unmap(3 * k1G + last * k2M, 3 * k1G + (last + 1) * k2M));
        EXPECT_EQ(logic_tables(), 1U) << last;
    }
    // What is only taken out comes back soon: its table stays, until it is unmapped as well.
    EXPECT_TRUE(logic_map(k1G, kPage, 1, kRw));
    EXPECT_TRUE(logic_zap(k1G, k1G + kPage));
    EXPECT_EQ(logic_tables(), 4U);
    EXPECT_FALSE(logic_unmap(5 * k1G, 5 * k1G + kPage)) << "elsewhere";
    EXPECT_TRUE(logic_unmap(k1G + kPage, k1G + 2 * kPage)) << "CPUs may still know the table";
    EXPECT_EQ(logic_tables(), 1U);
    EXPECT_FALSE(logic_unmap(k1G, k1G + kPage));
}

TEST_F(Ept, ATableThatWentIsNotWrittenTo) {
    // The table of the last small page is remembered; after a zap it is somebody else's memory.
    EXPECT_TRUE(logic_map(k1G, kPage, 1, kRw));
    EXPECT_TRUE(logic_zap(k1G, k1G + k2M));
    EXPECT_TRUE(logic_map(k1G + kPage, 2 * kPage, 1, kRw));
    expect_mapped(k1G + kPage, 2 * kPage, 1, kRw);
    EXPECT_FALSE(present(k1G));
}

TEST_F(Ept, AccessedBits) {
    bool flush;
    EXPECT_TRUE(logic_map(k1G, kPage, 1, kRw));
    EXPECT_TRUE(logic_map(2 * k1G, k2M, 2, kRw));
    EXPECT_TRUE(logic_young(k1G, k1G + kPage, false, &flush));
    EXPECT_FALSE(flush) << "only asked";
    EXPECT_TRUE(logic_young(k1G, k1G + kPage, true, &flush));
    EXPECT_TRUE(flush);
    EXPECT_FALSE(logic_young(k1G, k1G + kPage, true, &flush));
    EXPECT_FALSE(flush);
    EXPECT_TRUE(present(k1G)) << "it stays mapped";
    EXPECT_TRUE(logic_young(2 * k1G + 5 * kPage, 2 * k1G + 6 * kPage, true, &flush));
    EXPECT_FALSE(logic_young(2 * k1G, 2 * k1G + k2M, false, &flush)) << "a large page is one";
    EXPECT_FALSE(logic_young(5 * k1G, 6 * k1G, true, &flush));
}

TEST_F(Ept, WithoutAccessedBitsClearingUnmaps) {
    start(3, false);
    bool flush;
    EXPECT_TRUE(logic_map(k1G, kPage, 1, kRw));
    EXPECT_TRUE(logic_young(k1G, k1G + kPage, false, &flush));
    EXPECT_TRUE(present(k1G));
    EXPECT_TRUE(logic_young(k1G, k1G + kPage, true, &flush));
    EXPECT_TRUE(flush);
    EXPECT_FALSE(present(k1G));
    EXPECT_FALSE(logic_young(k1G, k1G + kPage, true, &flush));
}

TEST_F(Ept, AnyOrderOfChanges) {
    // Each step is checked on every page of 6 MiB: what it was to change, and nothing else.
    constexpr uint64_t kBase = 7 * k1G + 509 * k2M;  // over the end of a table
    constexpr uint64_t kPages = 6 * k2M / kPage / 2;
    struct Seen {
        uint64_t pa = 0;
        unsigned access = 0;
        int level = 0;
        bool operator==(const Seen&) const = default;
    };
    std::mt19937_64 random(1);
    const auto below = [&](uint64_t n) { return random() % n; };
    const auto look = [&] {
        std::vector<Seen> seen(kPages);
        for (uint64_t i = 0; i < kPages; i++) {
            const logic_found walk = logic_walk(kBase + i * kPage);
            EXPECT_FALSE(walk.malformed);
            seen[i] = {walk.pa, walk.present ? walk.access : 0, walk.level};
        }
        return seen;
    };
    std::vector<Seen> before = look();
    for (int step = 0; step < 1500 && !HasFailure(); step++) {
        const uint64_t at = below(kPages), gpa = kBase + at * kPage;
        if (below(4) != 0) {
            const int level = below(8) == 0 ? 2 : 1;
            const uint64_t size = size_of(level), pa = below(1 << 20) * size;
            const auto access = static_cast<unsigned>(1 + below(7)) | LOGIC_MEMTYPE_WB;
            const bool done = logic_map(gpa, pa, level, access);
            EXPECT_EQ(done, before[at].level <= level) << "unless a larger page is in the way";
            const std::vector<Seen> after = look();
            for (uint64_t i = 0; i < kPages; i++) {
                const uint64_t here = kBase + i * kPage;
                const bool inside = done && here / size == gpa / size;
                const Seen wanted = {pa + here % size, access, after[i].level};
                EXPECT_TRUE(after[i] == before[i] || (inside && after[i] == wanted)) << i;
                EXPECT_TRUE(!done || i != at || after[i] == wanted) << i;
            }
            before = after;
        } else {
            const uint64_t end = gpa + (1 + below(below(2) ? 8 : 700)) * kPage;
            bool there = false;
            for (uint64_t i = at; i < kPages && kBase + i * kPage < end; i++) {
                there |= before[i].access != 0;
            }
            const bool flush = below(2) ? logic_zap(gpa, end) : logic_unmap(gpa, end);
            EXPECT_TRUE(flush || !there);
            const std::vector<Seen> after = look();
            for (uint64_t i = 0; i < kPages; i++) {
                const uint64_t here = kBase + i * kPage;
                const uint64_t first = before[i].level == 2 ? here / k2M * k2M : here;
                const uint64_t last = before[i].level == 2 ? first + k2M : here + kPage;
                const bool hit = first < end && last > gpa;
                EXPECT_TRUE(hit ? after[i].access == 0 : after[i] == before[i]) << i;
            }
            before = after;
        }
        EXPECT_EQ(logic_tables(), logic_reachable_tables());
    }
}

}  // namespace
