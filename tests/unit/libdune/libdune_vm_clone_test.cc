// SPDX-License-Identifier: MIT
//
// Copy-on-write copies of page tables, and the faults that follow.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "fake_backing.h"
#include "mm/fault.h"
#include "vm_model.h"

namespace dune::test {
namespace {

constexpr std::uint64_t kVa = 0x5555'0000'0000;

class VmClone : public ::testing::Test {
  protected:
    void SetUp() override { root_ = static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed())); }
    void TearDown() override { dune_vm_free(root_); }

    static ptent_t* slot(ptent_t* root, std::uint64_t va) {
        ptent_t* out = nullptr;
        return dune_vm_lookup(root, at(va), CREATE_NONE, &out) == 0 ? out : nullptr;
    }
    static char* memory(ptent_t* root, std::uint64_t va) {
        page* const pg = dune_vm_lookup_page(root, at(va));
        return pg == nullptr ? nullptr : static_cast<char*>(dune_page2va(pg)) + va % k4K;
    }
    /// A store as the CPU does it: with as many faults as it takes, or -EFAULT.
    static int store(ptent_t* root, std::uint64_t va, char value) {
        for (int tries = 0; tries < 3; ++tries) {
            ptent_t* const entry = slot(root, va);
            if (entry != nullptr && (*entry & (PTE_P | PTE_W)) == (PTE_P | PTE_W)) {
                *memory(root, va) = value;
                return 0;
            }
            const std::uint64_t present = entry != nullptr && (*entry & PTE_P) != 0 ? FEC_P : 0;
            if (const int rc = mm::resolve_fault(root, va, FEC_W | present); rc != 0)
                return rc;
        }
        return -ELOOP;
    }

    FakeBacking backing_;
    ptent_t* root_ = nullptr;
};

TEST_F(VmClone, SharesPagesUntilOneSideWrites) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 3 * k4K, PERM_R | PERM_W), 0);
    for (char i = 0; i < 3; ++i)
        ASSERT_EQ(store(root_, kVa + static_cast<std::uint64_t>(i) * k4K, i), 0);
    const std::size_t used = mm::pool_stats().used;
    fake().forget_flushes();
    ptent_t* const copy = dune_vm_clone(root_);
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(fake().flushed_all, 1U) << "pages became read only";
    EXPECT_EQ(mm::pool_stats().used, used + 4) << "tables only";
    EXPECT_TRUE(same(read_tables(root_), read_tables(copy)));
    EXPECT_EQ(visible(*slot(copy, kVa)), PTE_P | PTE_NX | PTE_POOL | PTE_COW);
    EXPECT_EQ(dune_vm_lookup_page(copy, at(kVa))->ref, 2U);

    ASSERT_EQ(store(copy, kVa + 5, 'c'), 0);
    EXPECT_EQ(*memory(copy, kVa), 0) << "the rest of the page was copied";
    EXPECT_EQ(*memory(root_, kVa + 5), 0);
    EXPECT_EQ(mm::pool_stats().used, used + 5);
    EXPECT_EQ(visible(*slot(copy, kVa)), PTE_P | PTE_W | PTE_NX | PTE_POOL);
    EXPECT_TRUE(fake().was_flushed(kVa + 5));

    // The other side is alone with its page now: it keeps it.
    page* const mine = dune_vm_lookup_page(root_, at(kVa));
    ASSERT_EQ(store(root_, kVa, 'r'), 0);
    EXPECT_EQ(dune_vm_lookup_page(root_, at(kVa)), mine);
    EXPECT_EQ(mm::pool_stats().used, used + 5);
    dune_vm_free(copy);
    EXPECT_EQ(mm::pool_stats().used, used);
    ASSERT_EQ(store(root_, kVa + k4K, 'x'), 0);
    EXPECT_EQ(mm::pool_stats().used, used) << "no copy for the last user";
}

TEST_F(VmClone, ProtectionCannotBreakTheSharing) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    ptent_t* const copy = dune_vm_clone(root_);
    ASSERT_NE(copy, nullptr);
    for (ptent_t* root : {root_, copy})
        for (const int perm : {PERM_R, PERM_NONE, PERM_R | PERM_W, PERM_R | PERM_W | PERM_U}) {
            ASSERT_EQ(dune_vm_mprotect(root, at(kVa), k4K, perm), 0);
            EXPECT_EQ(*slot(root, kVa) & PTE_W, 0U);
            EXPECT_EQ((*slot(root, kVa) & PTE_COW) != 0, (perm & PERM_W) != 0);
        }
    ASSERT_EQ(store(copy, kVa, 'c'), 0);
    EXPECT_EQ(*memory(root_, kVa), 0);
    EXPECT_NE(*slot(copy, kVa) & PTE_U, 0U);
    dune_vm_free(copy);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    EXPECT_NE(*slot(root_, kVa) & PTE_W, 0U) << "alone again";
}

TEST_F(VmClone, ReadOnlyPagesStayReadOnly) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 2 * k4K, PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa + k4K), k4K, PERM_NONE), 0);
    ptent_t* const copy = dune_vm_clone(root_);
    EXPECT_EQ(store(copy, kVa, 1), -EFAULT);
    EXPECT_EQ(store(copy, kVa + k4K, 1), -EFAULT);
    ASSERT_EQ(dune_vm_mprotect(copy, at(kVa + k4K), k4K, PERM_R | PERM_W), 0);
    EXPECT_EQ(store(copy, kVa + k4K, 1), 0);
    EXPECT_EQ(*memory(root_, kVa + k4K), 0);
    dune_vm_free(copy);
}

TEST_F(VmClone, LinuxMemoryIsSharedAsItIs) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), k4K, at(0x12'3000), PERM_R | PERM_W), 0);
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa + k1G), k1G, at(0), PERM_R | PERM_W | PERM_BIG_1GB),
              0);
    const Model before = read_tables(root_);
    ptent_t* const copy = dune_vm_clone(root_);
    EXPECT_TRUE(same(before, read_tables(copy)));
    EXPECT_TRUE(same(before, read_tables(root_)));
    dune_vm_free(copy);
}

TEST_F(VmClone, BigPagesOfThePoolAreCopiedInSmallOnes) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), k2M, PERM_R | PERM_W | PERM_BIG), 0);
    ASSERT_EQ(store(root_, kVa + 7 * k4K, 7), 0);
    const std::size_t used = mm::pool_stats().used;
    ptent_t* const copy = dune_vm_clone(root_);
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(mm::pool_stats().used, used + 3);
    ASSERT_EQ(store(copy, kVa + 7 * k4K + 1, 1), 0);
    EXPECT_EQ(mm::pool_stats().used, used + 3 + 2) << "a table and a page";
    EXPECT_EQ(*memory(copy, kVa + 7 * k4K), 7);
    EXPECT_EQ(*memory(root_, kVa + 7 * k4K + 1), 0);
    EXPECT_EQ(memory(copy, kVa + 8 * k4K), memory(root_, kVa + 8 * k4K));
    ASSERT_EQ(dune_vm_mprotect(copy, at(kVa), k2M, PERM_R), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k2M, PERM_R | PERM_W), 0);
    EXPECT_NE(*slot(root_, kVa) & PTE_COW, 0U) << "still shared";
    dune_vm_free(copy);
    EXPECT_EQ(mm::pool_stats().used, used);
    ASSERT_EQ(store(root_, kVa + k4K, 3), 0);
}

TEST_F(VmClone, ProgramsMarkLinuxMemoryForCopies) {
    alignas(4096) static char buffer[2 * k4K];
    std::memset(buffer, 'b', sizeof(buffer));
    ASSERT_EQ(
        dune_vm_map_phys(root_, at(kVa), 2 * k4K, at(dune_va_to_pa(buffer)), PERM_R | PERM_COW), 0);
    ASSERT_EQ(store(root_, kVa + k4K, 'x'), 0);
    EXPECT_EQ(buffer[k4K], 'b');
    EXPECT_EQ(*memory(root_, kVa + k4K + 1), 'b');
    EXPECT_EQ(*memory(root_, kVa + k4K), 'x');
    EXPECT_EQ(memory(root_, kVa), nullptr) << "still Linux' page";
}

TEST_F(VmClone, ClonesOfClones) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), 8 * k4K, PERM_R | PERM_W), 0);
    std::vector<ptent_t*> roots{root_};
    for (int i = 0; i < 5; ++i) {
        roots.push_back(dune_vm_clone(roots.back()));
        ASSERT_NE(roots.back(), nullptr);
        ASSERT_EQ(store(roots.back(), kVa + static_cast<std::uint64_t>(i) * k4K,
                        static_cast<char>(i + 1)),
                  0);
    }
    for (std::size_t r = 0; r < roots.size(); ++r)
        for (std::size_t i = 0; i < 5; ++i)
            EXPECT_EQ(*memory(roots[r], kVa + i * k4K), r > i ? static_cast<char>(i + 1) : 0)
                << r << " " << i;
    for (std::size_t r : {3U, 1U, 5U, 2U, 4U})
        dune_vm_free(roots[r]);
    EXPECT_EQ(mm::pool_stats().used, 1 + 3 + 8U);
}

TEST_F(VmClone, FaultsThatNothingExplains) {
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_W), -EFAULT) << "not mapped";
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_P | FEC_RSV), -EFAULT);
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_P | FEC_PK | FEC_W), -EFAULT);
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_P | FEC_U), -EFAULT);
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_P | FEC_I), -EFAULT);
    EXPECT_EQ(mm::resolve_fault(root_, 1ULL << 47, FEC_W), -EFAULT);
    EXPECT_EQ(mm::resolve_fault(root_, kVa, FEC_W), 0) << "somebody was quicker";
    ptent_t* const copy = dune_vm_clone(root_);
    EXPECT_EQ(mm::resolve_fault(copy, kVa, FEC_P | FEC_W | FEC_U), -EFAULT) << "not for ring 3";
    const std::size_t limit = mm::pool_set_limit(mm::pool_stats().used);
    EXPECT_EQ(mm::resolve_fault(copy, kVa, FEC_P | FEC_W), -ENOMEM);
    EXPECT_EQ(dune_vm_lookup_page(copy, at(kVa))->ref, 2U);
    mm::pool_set_limit(limit);
    dune_vm_free(copy);
}

TEST_F(VmClone, DefaultHandlerUsesTheCurrentRoot) {
    ASSERT_EQ(dune_vm_map_pages(root_, at(kVa), k4K, PERM_R | PERM_W), 0);
    ptent_t* const copy = dune_vm_clone(root_);
    fake().current_root = copy;
    dune_vm_default_pgflt_handler(kVa + 3, FEC_P | FEC_W);
    EXPECT_NE(*slot(copy, kVa) & PTE_W, 0U);
    EXPECT_EQ(*slot(root_, kVa) & PTE_W, 0U);
    EXPECT_DEATH(dune_vm_default_pgflt_handler(0x1000, FEC_W), "no mapping explains.*0x1000");
    mm::pool_set_limit(0);
    fake().current_root = root_;
    dune_page_get(dune_vm_lookup_page(root_, at(kVa)));
    EXPECT_DEATH(dune_vm_default_pgflt_handler(kVa, FEC_P | FEC_W), "no memory");
    dune_page_put(dune_vm_lookup_page(root_, at(kVa)));
    mm::pool_set_limit(MAX_PAGES);
    dune_vm_free(copy);
}

}  // namespace
}  // namespace dune::test
