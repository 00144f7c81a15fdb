// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "fake_backing.h"

namespace dune::test {
namespace {

constexpr std::size_t kChunk = mm::kPagesPerChunk;

class Pool : public ::testing::Test {
  protected:
    std::vector<page*> take(std::size_t n) {
        std::vector<page*> pages;
        for (std::size_t i = 0; i < n; ++i) {
            pages.push_back(dune_page_alloc());
            EXPECT_NE(pages.back(), nullptr);
        }
        return pages;
    }
    static void give(std::vector<page*>& pages) {
        for (page* pg : pages)
            dune_page_put(pg);
        pages.clear();
    }

    FakeBacking backing_;
};

using PoolDeathTest = Pool;

TEST_F(Pool, PagesAreDistinctMemory) {
    std::vector<page*> pages = take(3 * kChunk);
    EXPECT_EQ(std::set<page*>(pages.begin(), pages.end()).size(), pages.size());
    for (page* pg : pages) {
        EXPECT_EQ(pg->ref, 1U);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(dune_page2va(pg)) % mm::kPageSize, 0U);
        *static_cast<page**>(dune_page2va(pg)) = pg;
    }
    for (page* pg : pages)
        EXPECT_EQ(*static_cast<page**>(dune_page2va(pg)), pg);
    EXPECT_EQ(mm::pool_stats().used, pages.size());
    give(pages);
    EXPECT_EQ(mm::pool_stats().used, 0U);
}

TEST_F(Pool, AddressesOfAPage) {
    page* const pg = dune_page_alloc();
    const physaddr_t pa = dune_page2pa(pg);
    EXPECT_EQ(dune_pa2page(pa), pg);
    EXPECT_EQ(dune_pa2page(pa + 4095), pg);
    EXPECT_GE(pa, PAGEBASE);
    EXPECT_LT(pa, PAGEBASE + MAX_PAGES * mm::kPageSize);
    EXPECT_TRUE(dune_page_isfrompool(pa));
    EXPECT_FALSE(dune_page_isfrompool(PAGEBASE - 1));
    EXPECT_FALSE(dune_page_isfrompool(PAGEBASE + MAX_PAGES * mm::kPageSize));
    EXPECT_FALSE(dune_page_isfrompool(PAGEBASE + 4 * kChunk * mm::kPageSize)) << "no memory there";
    EXPECT_FALSE(dune_page_isfrompool(0));
    dune_page_free(pg);
}

TEST_F(Pool, ReferencesAreCounted) {
    page* const pg = dune_page_alloc();
    EXPECT_EQ(dune_page_get(pg), pg);
    EXPECT_EQ(pg->ref, 2U);
    dune_page_put(pg);
    EXPECT_EQ(pg->ref, 1U);
    EXPECT_TRUE(mm::page_is_live(pg));
    dune_page_put(pg);
    EXPECT_FALSE(mm::page_is_live(pg));
    EXPECT_EQ(mm::pool_stats().used, 0U);
}

TEST_F(Pool, MemoryIsTakenInChunksAndGivenBack) {
    std::vector<page*> pages = take(kChunk);
    EXPECT_EQ(fake().commits, 1U);
    std::vector<page*> more = take(kChunk * 3);
    EXPECT_EQ(fake().commits, 4U);
    EXPECT_EQ(mm::pool_stats().committed, 4 * kChunk);
    give(more);
    give(pages);
    // The pages freed last wait for the next allocation: make the pool look at them.
    page* const big = mm::page_alloc_big();
    ASSERT_NE(big, nullptr);
    EXPECT_EQ(fake().decommits, 3U) << "one empty chunk is kept";
    EXPECT_EQ(mm::pool_stats().committed, 2 * kChunk);
    EXPECT_LT(big - dune_pages, static_cast<std::ptrdiff_t>(2 * kChunk)) << "lowest first";
    for (std::size_t i = 0; i < kChunk; ++i)
        dune_page_free(big + i);
}

TEST_F(Pool, MemoryThatComesBackIsZero) {
    std::vector<page*> pages = take(2 * kChunk);
    for (page* pg : pages)
        std::memset(dune_page2va(pg), 0x55, mm::kPageSize);
    give(pages);
    for (std::size_t i = 0; i < 3 * kChunk; ++i) {
        page* const pg = mm::page_alloc_zeroed();
        ASSERT_NE(pg, nullptr);
        const auto* const bytes = static_cast<const unsigned char*>(dune_page2va(pg));
        ASSERT_TRUE(std::all_of(bytes, bytes + mm::kPageSize, [](auto b) { return b == 0; })) << i;
        pages.push_back(pg);
    }
    give(pages);
    for (page* pg = mm::page_alloc_big(); pg != nullptr; pg = nullptr)
        for (std::size_t i = 0; i < kChunk; ++i) {
            const auto* const bytes = static_cast<const unsigned char*>(dune_page2va(pg + i));
            EXPECT_TRUE(std::all_of(bytes, bytes + mm::kPageSize, [](auto b) { return b == 0; }));
            dune_page_put(pg + i);
        }
}

TEST_F(Pool, OutOfMemoryIsAnErrorAndNotForever) {
    fake().refuse_commits_after = 1;
    std::vector<page*> pages = take(kChunk);
    EXPECT_EQ(dune_page_alloc(), nullptr);
    EXPECT_EQ(mm::page_alloc_zeroed(), nullptr);
    EXPECT_EQ(mm::page_alloc_big(), nullptr);
    mm::PageList list;
    EXPECT_EQ(list.fill(1, true), -ENOMEM);
    dune_page_put(pages.back());
    pages.pop_back();
    EXPECT_EQ(list.fill(2, true), -ENOMEM) << "all or nothing";
    EXPECT_TRUE(list.empty());
    EXPECT_EQ(mm::pool_stats().used, kChunk - 1);
    EXPECT_EQ(list.fill(1, true), 0);
    fake().refuse_commits_after = -1;
    pages.push_back(dune_page_alloc());
    EXPECT_NE(pages.back(), nullptr);
    list.release();
    give(pages);
}

TEST_F(Pool, TheLimitCountsPagesThatWaitAsFree) {
    std::vector<page*> pages = take(10);
    EXPECT_EQ(mm::pool_set_limit(12), MAX_PAGES);
    give(pages);
    for (int i = 0; i < 12; ++i)
        pages.push_back(mm::page_alloc_zeroed());
    EXPECT_NE(pages.back(), nullptr);
    EXPECT_EQ(dune_page_alloc(), nullptr);
    EXPECT_EQ(mm::page_alloc_big(), nullptr);
    give(pages);
    pages = take(12);
    EXPECT_EQ(mm::page_alloc_zeroed(), nullptr);
    give(pages);
}

TEST_F(Pool, ListsAreInOrder) {
    mm::PageList list;
    ASSERT_EQ(list.fill(200, false), 0);
    page* last = list.pop();
    dune_page_put(last);
    for (int i = 1; i < 200; ++i) {
        ASSERT_FALSE(list.empty());
        page* const pg = list.pop();
        EXPECT_EQ(pg, last + 1) << "fresh pages come in ascending order";
        last = pg;
        dune_page_put(pg);
    }
    EXPECT_TRUE(list.empty());
}

TEST_F(Pool, SameCallsGiveSamePages) {
    std::vector<std::size_t> runs[2];
    for (auto& run : runs) {
        std::mt19937 random(7);
        std::vector<page*> pages;
        for (int i = 0; i < 5000; ++i) {
            if (random() % 3 != 0 || pages.empty()) {
                pages.push_back(dune_page_alloc());
                run.push_back(static_cast<std::size_t>(pages.back() - dune_pages));
            } else {
                std::swap(pages[random() % pages.size()], pages.back());
                dune_page_put(pages.back());
                pages.pop_back();
            }
        }
        give(pages);
        mm::pool_destroy();
    }
    EXPECT_EQ(runs[0], runs[1]);
}

TEST_F(Pool, RandomUseAgainstASet) {
    std::mt19937 random(11);
    std::vector<page*> pages;
    std::set<page*> live;
    for (int i = 0; i < 100'000; ++i) {
        const bool grow = (i / 10'000) % 2 == 0;
        if (pages.empty() || random() % 8 < (grow ? 6U : 2U)) {
            page* const pg = random() % 2 == 0 ? dune_page_alloc() : mm::page_alloc_zeroed();
            ASSERT_TRUE(live.insert(pg).second) << "given out twice";
            pages.push_back(pg);
        } else {
            std::swap(pages[random() % pages.size()], pages.back());
            live.erase(pages.back());
            dune_page_free(pages.back());
            pages.pop_back();
        }
        if (i % 1000 == 0) {
            ASSERT_EQ(mm::pool_stats().used, live.size());
            ASSERT_LE(live.size(), mm::pool_stats().committed);
        }
    }
    give(pages);
}

TEST_F(Pool, ThreadsShareIt) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 20'000;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([t] {
            std::mt19937 random(static_cast<unsigned>(t));
            std::vector<page*> pages;
            for (int i = 0; i < kRounds; ++i) {
                if (pages.size() < 200 && random() % 2 == 0) {
                    page* const pg =
                        random() % 4 == 0 ? mm::page_alloc_zeroed() : dune_page_alloc();
                    ASSERT_NE(pg, nullptr);
                    ASSERT_EQ(pg->ref, 1U);
                    *static_cast<int*>(dune_page2va(pg)) = t;
                    pages.push_back(pg);
                } else if (!pages.empty()) {
                    ASSERT_EQ(*static_cast<int*>(dune_page2va(pages.back())), t);
                    dune_page_put(pages.back());
                    pages.pop_back();
                }
            }
            give(pages);
        });
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(mm::pool_stats().used, 0U);
}

TEST_F(Pool, RangeCoversThePages) {
    std::size_t len = 1;
    EXPECT_EQ(mm::pool_range(&len), nullptr);
    EXPECT_EQ(len, 0U);
    ASSERT_TRUE(mm::pool_init().ok());
    EXPECT_EQ(mm::pool_range(&len), dune_pagebase_va);
    EXPECT_GT(len, mm::kPoolBytes);
    EXPECT_EQ(mm::pool_stats().committed, 0U);
    EXPECT_EQ(PAGEBASE, kFakePoolBase);
}

TEST_F(PoolDeathTest, MisuseEndsTheProcess) {
    page* const pg = dune_page_alloc();
    dune_page_get(pg);
    EXPECT_DEATH(dune_page_free(pg), "dune: dune_page_free of something");
    EXPECT_DEATH(dune_page_free(nullptr), "dune: dune_page_free of something");
    EXPECT_DEATH(dune_page_free(pg + 1), "dune: dune_page_free of something");
    EXPECT_DEATH(dune_page_release(pg), "dune: a page that is not in use");
    EXPECT_DEATH(dune_page_put(pg + 1), "dune: a page that is not in use");
    EXPECT_DEATH(mm::pool_destroy(), "dune: the page pool is destroyed");
    dune_page_put(pg);
    dune_page_put(pg);
}

TEST(PoolOnLinux, SystemBackingReservesCommitsAndGivesBack) {
    const mm::Backing& os = mm::system_backing();
    constexpr std::size_t kLen = 8UL << 20;
    constexpr std::size_t kAlign = 1UL << 30;
    auto* const va = static_cast<char*>(os.reserve(nullptr, kLen, kAlign));
    ASSERT_NE(va, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(va) % kAlign, 0U);
    ASSERT_EQ(os.commit(va + 4096, 4096), 0);
    va[4096] = 1;
    os.decommit(va + 4096, 4096);
    ASSERT_EQ(os.commit(va + 4096, 4096), 0);
    EXPECT_EQ(va[4096], 0);
    void* const other = os.reserve(va, kLen, kAlign);
    ASSERT_NE(other, nullptr);
    EXPECT_NE(other, va) << "a hint that is taken";
    os.unreserve(other, kLen);
    os.unreserve(va, kLen);
    void* const again = os.reserve(va, kLen, kAlign);
    EXPECT_EQ(again, va) << "a hint that is free";
    os.unreserve(again, kLen);
    EXPECT_EQ(os.reserve(nullptr, 1UL << 62, kAlign), nullptr);
}

}  // namespace
}  // namespace dune::test
