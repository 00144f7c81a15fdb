// SPDX-License-Identifier: MIT
//
// The page-table functions one by one.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "fake_backing.h"
#include "vm_model.h"

namespace dune::test {
namespace {

constexpr std::uint64_t kVa = 0x5555'0000'0000;
constexpr physaddr_t kPa = 0x12'4000'0000;

class Vm : public ::testing::Test {
  protected:
    void SetUp() override {
        page* const pg = mm::page_alloc_zeroed();
        ASSERT_NE(pg, nullptr);
        root_ = static_cast<ptent_t*>(dune_page2va(pg));
    }
    void TearDown() override { dune_vm_free(root_); }

    ptent_t entry(std::uint64_t va, ptent_t* root = nullptr) {
        ptent_t* slot = nullptr;
        const int rc = dune_vm_lookup(root == nullptr ? root_ : root, at(va), CREATE_NONE, &slot);
        return rc == 0 ? *slot : 0;
    }

    FakeBacking backing_;
    ptent_t* root_ = nullptr;
};

TEST_F(Vm, EveryPermissionHasItsBits) {
    const struct {
        int perm;
        ptent_t bits;
    } cases[] = {
        {PERM_NONE, PTE_NX},
        {PERM_R, PTE_P | PTE_NX},
        {PERM_R | PERM_W, PTE_P | PTE_W | PTE_NX},
        {PERM_R | PERM_X, PTE_P},
        {PERM_R | PERM_W | PERM_X | PERM_U, PTE_P | PTE_W | PTE_U},
        {PERM_R | PERM_UC, PTE_P | PTE_NX | PTE_PCD | PTE_PWT},
        {PERM_R | PERM_COW, PTE_P | PTE_NX | PTE_COW},
        {PERM_R | PERM_W | PERM_COW, PTE_P | PTE_NX | PTE_COW},
        {PERM_R | PERM_USR1, PTE_P | PTE_NX | PTE_USR1},
        {PERM_R | PERM_USR2 | PERM_USR3, PTE_P | PTE_NX | PTE_USR2 | PTE_USR3},
        {PERM_SCODE, PTE_P},
        {PERM_STEXT, PTE_P | PTE_W | PTE_NX},
        {PERM_UCODE, PTE_P | PTE_U},
        {PERM_USTACK, PTE_P | PTE_W | PTE_U | PTE_NX},
    };
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa + k4K), k4K, at(kPa), PERM_R), 0);
    for (const auto& c : cases) {
        ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa), c.perm), 0);
        EXPECT_EQ(visible(entry(kVa)), c.bits) << "map_phys " << c.perm;
        EXPECT_EQ(PTE_ADDR(entry(kVa)), kPa);
        for (int time = 0; time < 2; ++time) {  // the slow way, then the fast one
            ASSERT_EQ(dune_vm_mprotect(root_, at(kVa + k4K), k4K, c.perm), 0);
            EXPECT_EQ(visible(entry(kVa + k4K)), c.bits) << "mprotect " << c.perm;
            EXPECT_EQ(PTE_ADDR(entry(kVa + k4K)), kPa);
        }
    }
}

TEST_F(Vm, BadArgumentsAreRefusedAndChangeNothing) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), 4 * k4K, at(kPa), PERM_R), 0);
    const Model before = read_tables(root_);
    const struct {
        std::uint64_t va;
        std::uint64_t len;
    } ranges[] = {
        {kVa + 1, k4K},
        {kVa + 0x800, k4K},
        {kVa, 0},
        {kVa, k4K - 1},
        {kVa, k4K + 1},
        {~0ULL - k4K + 1, 2 * k4K},                 // overflows
        {kVa, ~0ULL - k4K + 1},                     // overflows
        {0x8000'0000'0000, k4K},                    // not canonical
        {0xffff'7fff'ffff'f000, k4K},               // not canonical
        {0x7fff'ffff'f000, 2 * k4K},                // becomes non-canonical
        {0x7fff'ffff'f000, 0xffff'0000'0000'2000},  // over all that is not
        {kVa | 1ULL << 62, k4K},
        {kVa | 1ULL << 48, k4K},
    };
    for (const auto& r : ranges) {
        EXPECT_EQ(dune_vm_map_phys(root_, at(r.va), r.len, at(kPa), PERM_R), -EINVAL) << r.va;
        EXPECT_EQ(dune_vm_map_pages(root_, at(r.va), r.len, PERM_R), -EINVAL) << r.va;
        EXPECT_EQ(dune_vm_mprotect(root_, at(r.va), r.len, PERM_R), -EINVAL) << r.va;
        EXPECT_EQ(dune_vm_unmap(root_, at(r.va), r.len), -EINVAL) << r.va;
    }
    for (const int perm : {PERM_W, PERM_X, PERM_W | PERM_X, PERM_COW, PERM_BIG | PERM_BIG_1GB,
                           1 << 20, -1, PERM_R | 0x40}) {
        EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa), perm), -EINVAL) << perm;
        EXPECT_EQ(dune_vm_map_pages(root_, at(kVa), k4K, perm), -EINVAL) << perm;
        EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, perm), -EINVAL) << perm;
    }
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa + 1), PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(1ULL << 52), PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), 2 * k4K, at((1ULL << 52) - k4K), PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), k2M, at(kPa + k4K), PERM_R | PERM_BIG), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa + k4K), k2M, at(kPa), PERM_R | PERM_BIG), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(root_, at(kVa), k2M, at(kPa), PERM_R | PERM_BIG_1GB), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(root_, at(kVa), k1G, PERM_R | PERM_BIG_1GB), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(nullptr, at(kVa), k4K, at(kPa), PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_mprotect(nullptr, at(kVa), k4K, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_unmap(root_ + 1, at(kVa), k4K), -EINVAL);
    EXPECT_TRUE(same(before, read_tables(root_)));
}

TEST_F(Vm, UnmappedRangesAreRefused) {
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_unmap(root_, at(kVa), k1G), -EINVAL);
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa), PERM_R), 0);
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa + k4K), k4K, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_unmap(root_, at(kVa + k4K), k4K), -EINVAL);
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k1G, PERM_R | PERM_W), 0) << "holes are skipped";
    EXPECT_EQ(dune_vm_unmap(root_, at(kVa), k1G), 0);
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R), -EINVAL);
}

TEST_F(Vm, MapsBothHalvesOfTheAddressSpace) {
    const std::uint64_t addresses[] = {0, 0x7fff'ffff'f000, 0xffff'8000'0000'0000,
                                       0xffff'ffff'ffff'f000};
    for (const std::uint64_t va : addresses)
        ASSERT_EQ(dune_vm_map_phys(root_, at(va), k4K, at(kPa), PERM_R), 0);
    const Model model = read_tables(root_);
    ASSERT_EQ(model.size(), 4U);
    for (const std::uint64_t va : addresses)
        EXPECT_TRUE(model.contains(va));
    for (const std::uint64_t va : addresses)
        for (int time = 0; time < 2; ++time)
            EXPECT_EQ(dune_vm_mprotect(root_, at(va), k4K, PERM_NONE), 0);
}

TEST_F(Vm, LargePagesAreSplitWhereARangeEndsInThem) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), 2 * k1G, at(kPa), PERM_R | PERM_W | PERM_BIG_1GB),
              0);
    EXPECT_EQ(PTE_ADDR(entry(kVa + k1G + 123)), kPa + k1G);
    // From the middle of one to the middle of the other.
    const std::uint64_t first = kVa + k1G - k2M - k4K;
    const std::uint64_t len = 2 * k2M + 3 * k4K;
    const std::size_t used = mm::pool_stats().used;
    ASSERT_EQ(dune_vm_mprotect(root_, at(first), len, PERM_R), 0);
    EXPECT_EQ(mm::pool_stats().used - used, 4U) << "two directories and two tables";
    const Model model = read_tables(root_);
    ASSERT_EQ(model.size(), 2 * k1G / k4K);
    for (const auto& [va, page] : model) {
        const bool inside = va >= first && va < first + len;
        ASSERT_EQ(page.pa, kPa + (va - kVa));
        ASSERT_EQ(page.flags, inside ? PTE_P | PTE_NX : PTE_P | PTE_W | PTE_NX) << std::hex << va;
    }
    EXPECT_EQ(model.at(kVa).size, k2M);
    EXPECT_EQ(model.at(first).size, k4K);
    EXPECT_EQ(model.at(first + k4K).size, k2M);
}

TEST_F(Vm, SplittingKeepsPat) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k1G, at(kPa), PERM_R | PERM_BIG_1GB), 0);
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa), CREATE_NONE, &slot), 0);
    *slot |= 1ULL << 12;  // PAT of a large page
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), k4K), 0);
    EXPECT_NE(entry(kVa + k4K) & PTE_PAT, 0U);
    EXPECT_EQ(PTE_ADDR(entry(kVa + k4K)), kPa + k4K);
    EXPECT_EQ(entry(kVa + k2M) & (1ULL << 12 | PTE_PS), 1ULL << 12 | PTE_PS);
}

TEST_F(Vm, LargePagesReplaceSmallOnesAndTheirTables) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 2 * k2M, PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k2M, at(kPa), PERM_R | PERM_BIG), 0);
    EXPECT_TRUE(fake().was_flushed(kVa));
    EXPECT_EQ(mm::pool_stats().used, 4 + 512U) << "root, 3 tables, the pages of the second half";
    EXPECT_EQ(PTE_ADDR(entry(kVa + k4K)), kPa) << "a large page";
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k1G, at(kPa), PERM_R | PERM_BIG_1GB), 0);
    EXPECT_EQ(mm::pool_stats().used, 2U);
    // And back: the map of tables must not remember the freed one.
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa + k2M), PERM_R), 0);
    EXPECT_EQ(PTE_ADDR(entry(kVa)), kPa + k2M);
    EXPECT_EQ(PTE_ADDR(entry(kVa + k4K)), kPa + k4K) << "the rest of the large page stayed";
}

TEST_F(Vm, LookupCreatesWhatItIsAskedFor) {
    ptent_t* slot = nullptr;
    EXPECT_EQ(dune_vm_lookup(root_, at(kVa), CREATE_NONE, &slot), -ENOENT);
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + 5), CREATE_NORMAL, &slot), 0);
    EXPECT_EQ(*slot, 0U);
    EXPECT_EQ(dune_vm_lookup(root_, at(kVa), CREATE_NONE, &slot), -ENOENT);
    *slot = kPa | PTE_P;
    ptent_t* again = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + 0xfff), CREATE_NONE, &again), 0);
    EXPECT_EQ(again, slot);

    EXPECT_EQ(dune_vm_lookup(root_, at(kVa + k4K), CREATE_BIG, &slot), -EEXIST);
    EXPECT_EQ(dune_vm_lookup(root_, at(kVa + k4K), CREATE_BIG_1GB, &slot), -EEXIST);
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + k2M), CREATE_BIG, &slot), 0);
    *slot = kPa | PTE_P | PTE_PS;
    for (const int create : {CREATE_NONE, CREATE_NORMAL, CREATE_BIG, CREATE_BIG_1GB}) {
        ASSERT_EQ(dune_vm_lookup(root_, at(kVa + k2M + k4K), create, &again), 0);
        EXPECT_EQ(again, slot) << "the large page that is there";
    }
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + k1G), CREATE_BIG_1GB, &slot), 0);
    *slot = kPa | PTE_P | PTE_PS;
    EXPECT_EQ(entry(kVa + 2 * k1G - 1), kPa | PTE_P | PTE_PS);

    EXPECT_EQ(dune_vm_lookup(root_, at(1ULL << 47), CREATE_NONE, &slot), -EINVAL);
    EXPECT_EQ(dune_vm_lookup(root_, at(kVa + k1G * 5), 4, &slot), -EINVAL);
    EXPECT_EQ(dune_vm_lookup(root_, at(kVa + k1G * 5), -1, &slot), -EINVAL);
    EXPECT_EQ(dune_vm_lookup(nullptr, at(kVa), CREATE_NONE, &slot), -EINVAL);
}

TEST_F(Vm, MappedPagesAreZeroedAndCounted) {
    // Dirty pages first, so that zero is no accident.
    page* dirty[8];
    for (page*& pg : dirty) {
        pg = dune_page_alloc();
        std::memset(dune_page2va(pg), 0xaa, k4K);
    }
    for (page* pg : dirty)
        dune_page_put(pg);
    const std::size_t used = mm::pool_stats().used;
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 8 * k4K, PERM_R | PERM_W), 0);
    EXPECT_EQ(mm::pool_stats().used, used + 8 + 3);
    for (std::uint64_t i = 0; i < 8; ++i) {
        page* const pg = dune_vm_lookup_page(root_, at(kVa + i * k4K + 77));
        ASSERT_NE(pg, nullptr);
        EXPECT_EQ(pg->ref, 1U);
        const auto* const bytes = static_cast<const unsigned char*>(dune_page2va(pg));
        for (std::size_t b = 0; b < k4K; ++b)
            ASSERT_EQ(bytes[b], 0) << i << " " << b;
    }
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), 8 * k4K), 0);
    EXPECT_EQ(mm::pool_stats().used, used + 3) << "tables stay";
}

TEST_F(Vm, BigPagesOfThePoolCanBeSplitAndFreedInParts) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 2 * k2M, PERM_R | PERM_W | PERM_BIG), 0);
    EXPECT_EQ(mm::pool_stats().used, 1 + 2 + 1024U);
    EXPECT_EQ(PTE_ADDR(entry(kVa)) % k2M, 0U);
    page* const pg = dune_vm_lookup_page(root_, at(kVa + 5 * k4K));
    EXPECT_EQ(dune_page2pa(pg), PTE_ADDR(entry(kVa)) + 5 * k4K);
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa + k4K), k4K), 0);
    EXPECT_EQ(mm::pool_stats().used, 1 + 3 + 1023U);
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), 2 * k2M), 0);
    EXPECT_EQ(mm::pool_stats().used, 1 + 3U);
}

TEST_F(Vm, InsertedPagesHaveAReferenceOfTheirOwn) {
    page* const pg = dune_page_alloc();
    ASSERT_EQ(dune_vm_insert_page(root_, at(kVa), pg, PERM_R), 0);
    ASSERT_EQ(dune_vm_insert_page(root_, at(kVa + k4K), pg, PERM_R | PERM_W), 0);
    EXPECT_EQ(pg->ref, 3U);
    ASSERT_EQ(dune_vm_insert_page(root_, at(kVa), pg, PERM_R), 0) << "in place of itself";
    EXPECT_EQ(pg->ref, 3U);
    EXPECT_EQ(dune_vm_lookup_page(root_, at(kVa)), pg);
    dune_page_put(pg);
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), k4K), 0);
    EXPECT_EQ(pg->ref, 1U);
    EXPECT_EQ(dune_vm_insert_page(root_, at(kVa), pg, PERM_R | PERM_BIG), -EINVAL);
    EXPECT_EQ(dune_vm_insert_page(root_, at(kVa + 1), pg, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_insert_page(root_, at(kVa), nullptr, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_insert_page(root_, at(kVa), pg + 100, PERM_R), -EINVAL) << "a free page";
    EXPECT_EQ(dune_vm_lookup_page(root_, at(kVa)), nullptr);
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa), PERM_R), 0);
    EXPECT_EQ(dune_vm_lookup_page(root_, at(kVa)), nullptr) << "not of the pool";
}

TEST_F(Vm, MemoryMappedByAddressIsNotCounted) {
    page* const pg = dune_page_alloc();
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(dune_page2pa(pg)), PERM_R), 0);
    EXPECT_EQ(pg->ref, 1U);
    EXPECT_EQ(dune_vm_lookup_page(root_, at(kVa)), pg);
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), k4K), 0);
    EXPECT_EQ(pg->ref, 1U);
    dune_page_put(pg);
}

TEST_F(Vm, ChangesFlushTheTlb) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), 100 * k4K, at(kPa), PERM_R), 0);
    EXPECT_TRUE(fake().flushed.empty()) << "nothing was there before";
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_NONE), 0);
    EXPECT_EQ(fake().flushed, std::vector<std::uintptr_t>{kVa});
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R), 0);
    EXPECT_EQ(fake().flushed, (std::vector<std::uintptr_t>{kVa, kVa})) << "the fast way";
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), 3 * k4K, PERM_NONE), 0);
    EXPECT_EQ(fake().flushed.size(), 3U);
    EXPECT_EQ(fake().flushed_all, 0U);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), 100 * k4K, PERM_NONE), 0);
    EXPECT_EQ(fake().flushed_all, 1U);
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), k4K), 0);
    EXPECT_TRUE(fake().was_flushed(kVa));
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa + k4K), k4K, at(kPa), PERM_R), 0);
    EXPECT_TRUE(fake().was_flushed(kVa + k4K)) << "something was there before";
    // A flush of everything spares global entries.
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + 50 * k4K), CREATE_NONE, &slot), 0);
    *slot |= PTE_G;
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), 100 * k4K, PERM_R), 0);
    EXPECT_EQ(std::ranges::count(fake().flushed, kVa + 50 * k4K), 1);
    EXPECT_NE(entry(kVa + 50 * k4K) & PTE_G, 0U) << "kept";
}

TEST_F(Vm, RangesOfKnownTables) {
    const std::uint64_t first = kVa + k2M - 50 * k4K;
    constexpr std::uint64_t kPages = 100;
    ASSERT_EQ(dune_vm_map_phys(root_, at(first), kPages * k4K, at(kPa), PERM_R | PERM_W), 0);
    // From now on the tables on both sides of the border are known.
    ASSERT_EQ(dune_vm_mprotect(root_, at(first), k4K, PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa + k2M), k4K, PERM_R), 0);
    for (const std::uint64_t len : {1, 7, 8, 9, 17, 98}) {
        ASSERT_EQ(dune_vm_mprotect(root_, at(first), kPages * k4K, PERM_R | PERM_W), 0);
        fake().forget_flushes();
        ASSERT_EQ(dune_vm_mprotect(root_, at(first + k4K), len * k4K, PERM_R), 0);
        for (std::uint64_t i = 0; i < kPages; ++i) {
            const bool inside = i >= 1 && i < 1 + len;
            const std::uint64_t va = first + i * k4K;
            ASSERT_EQ(visible(entry(va)), inside ? PTE_P | PTE_NX : PTE_P | PTE_W | PTE_NX) << i;
            ASSERT_TRUE(!inside || fake().was_flushed(va)) << i;
        }
    }
    // A global entry among them, which a flush of everything spares.
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa + k2M), CREATE_NONE, &slot), 0);
    *slot |= PTE_G;
    fake().forget_flushes();
    ASSERT_EQ(dune_vm_mprotect(root_, at(first), kPages * k4K, PERM_R), 0);
    EXPECT_EQ(std::ranges::count(fake().flushed, kVa + k2M), 1);
    // A hole among them.
    ASSERT_EQ(dune_vm_unmap(root_, at(first + 5 * k4K), k4K), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(first), kPages * k4K, PERM_R | PERM_W), 0);
    EXPECT_EQ(entry(first + 5 * k4K), 0U);
    EXPECT_NE(entry(first + 6 * k4K) & PTE_W, 0U);
}

TEST_F(Vm, NothingIsProtectedIfALargePageCannotBeSplit) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k2M, at(kPa), PERM_R | PERM_W), 0);
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa + k2M), k2M, at(kPa), PERM_R | PERM_W | PERM_BIG), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R | PERM_W), 0);  // a known table
    const Model before = read_tables(root_);
    fake().refuse_commits_after = 0;
    std::vector<page*> all;
    while (page* const pg = dune_page_alloc())
        all.push_back(pg);
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k2M + k4K, PERM_R), -ENOMEM);
    EXPECT_TRUE(same(before, read_tables(root_)));
    for (page* const pg : all)
        dune_page_free(pg);
    fake().refuse_commits_after = -1;
    EXPECT_EQ(dune_vm_mprotect(root_, at(kVa), k2M + k4K, PERM_R), 0);
}

TEST_F(Vm, ProtectingKeepsAccessedAndDirty) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa), PERM_R | PERM_W), 0);
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa), CREATE_NONE, &slot), 0);
    *slot |= PTE_A | PTE_D;
    for (const int perm : {PERM_R, PERM_NONE, PERM_R | PERM_W | PERM_USR1}) {
        ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, perm), 0);
        EXPECT_EQ(*slot & (PTE_A | PTE_D), PTE_A | PTE_D);
    }
}

TEST_F(Vm, EntriesWrittenByHandAreRespected) {
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root_, at(kVa), CREATE_NORMAL, &slot), 0);
    page* const pg = dune_page_alloc();
    *slot = dune_page2pa(pg) | PTE_P;
    for (int time = 0; time < 2; ++time) {
        ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
        EXPECT_EQ(PTE_ADDR(*slot), dune_page2pa(pg));
        EXPECT_EQ(visible(*slot), PTE_P | PTE_W | PTE_NX);
    }
    ASSERT_EQ(dune_vm_unmap(root_, at(kVa), k4K), 0);
    EXPECT_EQ(pg->ref, 1U) << "an entry without PTE_POOL holds no reference";
    dune_page_put(pg);
}

TEST_F(Vm, WalkStopsWithTheResultOfTheCallback) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), 10 * k4K, at(kPa), PERM_R), 0);
    static int calls;
    calls = 0;
    const auto third = [](const void* arg, ptent_t*, void* va) {
        ++calls;
        return va == arg ? -77 : 0;
    };
    EXPECT_EQ(dune_vm_page_walk(root_, VA_START, VA_END, third, at(kVa + 2 * k4K)), -77);
    EXPECT_EQ(calls, 3);
    EXPECT_EQ(dune_vm_page_walk(root_, at(kVa + k4K), at(kVa + 3 * k4K), third, nullptr), 0);
    EXPECT_EQ(calls, 6) << "the end is the last address";
    EXPECT_EQ(dune_vm_page_walk(root_, at(kVa + 10), at(kVa + 20), third, at(kVa)), -77)
        << "the page around";
    EXPECT_EQ(dune_vm_page_walk(root_, at(kVa), at(kVa - 1), third, nullptr), -EINVAL);
    EXPECT_EQ(dune_vm_page_walk(root_, VA_START, VA_END, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(dune_vm_page_walk(nullptr, VA_START, VA_END, third, nullptr), -EINVAL);
    EXPECT_EQ(dune_vm_page_walk(root_, at(1ULL << 47), VA_END, third, nullptr), -EINVAL);
}

TEST_F(Vm, RootsOfTheProgramsOwnAreLeftToIt) {
    alignas(4096) static ptent_t own[512];
    ASSERT_EQ(dune_vm_map_pages(own, at(kVa), k2M, PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(own, at(kVa), k4K, PERM_NONE), 0);
    EXPECT_EQ(read_tables(own).size(), 512U);
    dune_vm_free(own);
    EXPECT_EQ(mm::pool_stats().used, 1U);
    for (const ptent_t e : own)
        EXPECT_EQ(e, 0U);
}

TEST_F(Vm, TheFastWayFollowsTheRootThatIsFreed) {
    page* const pg = mm::page_alloc_zeroed();
    auto* const first = static_cast<ptent_t*>(dune_page2va(pg));
    ASSERT_EQ(dune_vm_map_phys(first, at(kVa), k4K, at(kPa), PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(first, at(kVa), k4K, PERM_NONE), 0);  // takes the map
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(kPa + k4K), PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    EXPECT_EQ(entry(kVa, first), kPa | PTE_NX | PTE_EXCL) << "the other root's is untouched";
    dune_vm_free(first);
    for (int time = 0; time < 2; ++time) {
        ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R), 0);
        EXPECT_EQ(PTE_ADDR(entry(kVa)), kPa + k4K);
        EXPECT_EQ(visible(entry(kVa)), PTE_P | PTE_NX);
    }
}

TEST_F(Vm, AddressesAreTranslated) {
    int here = 0;
    EXPECT_EQ(dune_va_to_pa(&here), reinterpret_cast<std::uintptr_t>(&here) + kFakeOffset);
    EXPECT_EQ(dune_stack_addr_to_pa(&here), dune_va_to_pa(&here));
    EXPECT_EQ(dune_mmap_addr_to_pa(&here), dune_va_to_pa(&here));
    EXPECT_EQ(dune_va_to_pa(at(1ULL << 60)), 0U);
}

TEST(VmWithoutMap, EverythingWorksWhenLinuxRefusesTheSparseMap) {
    const FakeBacking backing;
    fake().refuse_sparse = true;
    page* const pg = mm::page_alloc_zeroed();
    auto* const root = static_cast<ptent_t*>(dune_page2va(pg));
    ASSERT_EQ(dune_vm_map_pages(root, at(kVa), 2 * k4K, PERM_R), 0);
    for (int time = 0; time < 3; ++time)
        ASSERT_EQ(dune_vm_mprotect(root, at(kVa), k4K, PERM_R | PERM_W), 0);
    ptent_t* slot = nullptr;
    ASSERT_EQ(dune_vm_lookup(root, at(kVa), CREATE_NONE, &slot), 0);
    EXPECT_EQ(visible(*slot), PTE_P | PTE_W | PTE_NX | PTE_POOL);
    dune_vm_free(root);
}

}  // namespace
}  // namespace dune::test
