// SPDX-License-Identifier: MIT
//
// The C++ layer over the page-table functions.
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "dune/page_table.h"
#include "fake_backing.h"

namespace dune::test {
namespace {

constexpr std::size_t k4K = bytes(PageSize::Normal);
constexpr std::size_t k2M = bytes(PageSize::Big);
constexpr std::size_t k1G = bytes(PageSize::Big1G);

std::span<std::byte> memory(std::uintptr_t va, std::size_t len) {
    return {reinterpret_cast<std::byte*>(va), len};
}
const void* at(std::uintptr_t va) {
    return reinterpret_cast<const void*>(va);
}

class PageTableTest : public ::testing::Test {
  protected:
    void SetUp() override {
        Result<PageTable> made = PageTable::create();
        ASSERT_TRUE(made.ok());
        table_.emplace(*std::move(made));
    }
    FakeBacking backing_;
    std::optional<PageTable> table_;
};

TEST_F(PageTableTest, MapsAndLooksUpEverySize) {
    const PageTableRef table = table_->ref();
    const struct {
        PageSize size;
        std::uintptr_t va;
    } cases[] = {{PageSize::Normal, 0x1000}, {PageSize::Big, k2M}, {PageSize::Big1G, k1G}};
    for (const auto& c : cases) {
        ASSERT_TRUE(table.map(memory(c.va, bytes(c.size)), 5 * k1G, Perm::ReadWrite, c.size).ok());
        const Result<PteRef> pte = table.lookup(at(c.va + 0x123));
        ASSERT_TRUE(pte.ok());
        EXPECT_EQ(pte->size(), c.size);
        EXPECT_EQ(pte->address(), 5 * k1G);
        EXPECT_TRUE(pte->has(PteFlags::Present | PteFlags::Writable | PteFlags::NoExecute));
        EXPECT_FALSE(pte->has(PteFlags::User));
    }
    EXPECT_EQ(table.lookup(at(0x2000)).code(), -ENOENT);
    EXPECT_EQ(table.lookup(at(1ULL << 47)).code(), -EINVAL);
    EXPECT_EQ(table.map(memory(1, k4K), 0, Perm::Read).code(), -EINVAL);
    ASSERT_TRUE(table.unmap(memory(0x1000, k4K)).ok());
    EXPECT_EQ(table.unmap(memory(0x1000, k4K)).code(), -EINVAL);
}

TEST_F(PageTableTest, EntriesChangeAtomicallyAndTyped) {
    const PageTableRef table = table_->ref();
    ASSERT_TRUE(table.map_pages(memory(0x1000, k4K), Perm::Read | Perm::User).ok());
    PteRef pte = *table.lookup(at(0x1000));
    EXPECT_TRUE(pte.has(PteFlags::PoolPage | PteFlags::Exclusive | PteFlags::User));
    EXPECT_FALSE(pte.test_and_clear(PteFlags::Dirty));
    EXPECT_FALSE(any(pte.set(PteFlags::Dirty | PteFlags::Accessed) & PteFlags::Dirty));
    EXPECT_TRUE(pte.test_and_clear(PteFlags::Dirty));
    EXPECT_FALSE(pte.has(PteFlags::Dirty));
    EXPECT_TRUE(pte.has(PteFlags::Accessed));
    const physaddr_t address = pte.address();
    pte.clear(~PteFlags::Accessed & ~PteFlags::PoolPage);  // flags only, never the address
    EXPECT_EQ(pte.address(), address);
    EXPECT_FALSE(pte.has(PteFlags::Present));
    ASSERT_TRUE(table.protect(memory(0x1000, k4K), Perm::ReadExecute).ok());
    EXPECT_TRUE(pte.has(PteFlags::Present));
    EXPECT_FALSE(pte.has(PteFlags::NoExecute));
}

TEST_F(PageTableTest, VisitsWhatIsMapped) {
    const PageTableRef table = table_->ref();
    ASSERT_TRUE(table.map(memory(k1G - k4K, k4K), 0, Perm::Read).ok());
    ASSERT_TRUE(table.map(memory(k1G, 2 * k2M), 0, Perm::Read, PageSize::Big).ok());
    std::size_t bytes_mapped = 0;
    ASSERT_TRUE(table.for_each([&](void*, PteRef pte) { bytes_mapped += bytes(pte.size()); }).ok());
    EXPECT_EQ(bytes_mapped, k4K + 2 * k2M);
    int visits = 0;
    ASSERT_TRUE(table
                    .for_each([&](void* va, PteRef) {
                        ++visits;
                        return va != at(k1G);
                    })
                    .ok());
    EXPECT_EQ(visits, 2);
    visits = 0;
    ASSERT_TRUE(table.for_each(memory(k1G - k4K, k4K), [&](void*, PteRef) { ++visits; }).ok());
    ASSERT_TRUE(table.for_each(memory(k1G, 0), [&](void*, PteRef) { ++visits; }).ok());
    EXPECT_EQ(visits, 1);
}

TEST_F(PageTableTest, OwnersMoveCloneAndFree) {
    ASSERT_TRUE(table_->ref().map_pages(memory(0x1000, 3 * k4K), Perm::ReadWrite).ok());
    Result<PageTable> copy = PageTable::clone_of(table_->ref());
    ASSERT_TRUE(copy.ok());
    EXPECT_TRUE(copy->ref().lookup(at(0x1000))->has(PteFlags::CopyOnWrite));
    EXPECT_TRUE(dune_page_isfrompool(copy->cr3()));
    EXPECT_EQ(dune_page2va(dune_pa2page(copy->cr3())), copy->root());
    PageTable moved = *std::move(copy);
    PageTable other = std::move(moved);
    *table_ = std::move(other);
    EXPECT_TRUE(table_->ref().lookup(at(0x1000)).ok());
    mm::pool_set_limit(mm::pool_stats().used);
    EXPECT_EQ(PageTable::clone_of(table_->ref()).code(), -ENOMEM);
    EXPECT_EQ(PageTable::create().code(), -ENOMEM);
}

TEST_F(PageTableTest, PruningFreesWhatUnmappingLeft) {
    const PageTableRef table = table_->ref();
    ASSERT_TRUE(table.map_pages(memory(0, 4 * k2M), Perm::ReadWrite).ok());
    ASSERT_TRUE(table.map_pages(memory(k1G, k4K), Perm::ReadWrite).ok());
    ASSERT_TRUE(table.protect(memory(k1G, k4K), Perm::Read).ok());
    ASSERT_TRUE(table.unmap(memory(0, 3 * k2M)).ok());
    ASSERT_TRUE(table.unmap(memory(k1G, k4K)).ok());
    EXPECT_EQ(mm::pool_stats().used, 1 + 2 + 2 + 4 + 512U);
    fake().forget_flushes();
    ASSERT_TRUE(table.prune().ok());
    EXPECT_EQ(fake().flushed_all, 1U);
    EXPECT_EQ(mm::pool_stats().used, 1 + 2 + 1 + 512U);
    EXPECT_EQ(table.lookup(at(k1G)).code(), -ENOENT);
    ASSERT_TRUE(table.map(memory(k1G, k4K), k1G, Perm::Read).ok());
    ASSERT_TRUE(table.protect(memory(k1G, k4K), Perm::ReadWrite).ok());
    EXPECT_EQ(table.lookup(at(k1G))->address(), k1G);
    ASSERT_TRUE(table.unmap(memory(0, 2 * k1G)).ok());
    ASSERT_TRUE(table.prune().ok());
    EXPECT_EQ(mm::pool_stats().used, 1U);
}

}  // namespace
}  // namespace dune::test
