// SPDX-License-Identifier: MIT
// The page pool in ring 0: it grows, counts references, gives memory back to Linux and runs out of
// it.
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <vector>

#include "support.h"

namespace {

using namespace dune::test;

using RuntimePage = RuntimeTest;

/** Pages of this process that Linux keeps in memory. */
long resident() {
    long size = 0, pages = 0;
    std::FILE* const file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr || std::fscanf(file, "%ld %ld", &size, &pages) != 2)
        return -1;
    std::fclose(file);
    return pages;
}

/** Take pages until there are so many, for which the vector has room, or there is none. */
void take(std::vector<page*>& pages, std::size_t count) {
    while (pages.size() < count) {
        page* const pg = dune_page_alloc();
        if (pg == nullptr)
            break;
        pages.push_back(pg);
    }
}

TEST_F(RuntimePage, GrowsAndGivesBack) {
    constexpr std::size_t kPages = 4096;  // 16 MiB
    const long before = resident();
    std::vector<page*> pages;
    take(pages, kPages);
    ASSERT_EQ(pages.size(), kPages);
    EXPECT_EQ(std::set<page*>(pages.begin(), pages.end()).size(), kPages);
    for (std::size_t i = 0; i < kPages; ++i) {
        ASSERT_TRUE(dune_page_isfrompool(dune_page2pa(pages[i])));
        ASSERT_EQ(dune_pa2page(dune_page2pa(pages[i])), pages[i]);
        ASSERT_EQ(dune_va_to_pa(dune_page2va(pages[i])), dune_page2pa(pages[i]));
        std::memcpy(dune_page2va(pages[i]), &i, sizeof(i));
    }
    EXPECT_GT(resident(), before + static_cast<long>(kPages) / 2);
    for (std::size_t i = 0; i < kPages; ++i) {
        std::size_t found;
        std::memcpy(&found, dune_page2va(pages[i]), sizeof(found));
        ASSERT_EQ(found, i);
        dune_page_free(pages[i]);
    }
    // An empty chunk and one with the last tables are kept, and malloc() keeps what the test used.
    EXPECT_LT(resident(), before + 1536);
}

TEST_F(RuntimePage, CountsReferences) {
    auto* const at = reinterpret_cast<char*>(0x357000000000);
    page* const pg = dune_page_alloc();
    ASSERT_NE(pg, nullptr);
    std::memset(dune_page2va(pg), 7, PGSIZE);
    ASSERT_EQ(dune_vm_insert_page(pgroot, at, pg, PERM_R | PERM_W), 0);
    EXPECT_EQ(dune_vm_lookup_page(pgroot, at), pg);
    dune_page_put(pg);  // ours; the mapping has its own
    EXPECT_EQ(pg->ref, 1U);
    EXPECT_EQ(*static_cast<volatile char*>(at), 7);
    ASSERT_EQ(dune_vm_unmap(pgroot, at, PGSIZE), 0);
    EXPECT_EQ(pg->ref, 0U);
}

TEST_F(RuntimePage, MisuseIsSaid) {
    const Outcome twice = in_child([] {
        page* const pg = dune_page_alloc();
        dune_page_free(pg);
        dune_page_free(pg);
        return 0;
    });
    EXPECT_TRUE(twice.killed(SIGABRT)) << twice.status;
    EXPECT_NE(twice.stderr_.find("dune: "), std::string::npos) << twice.stderr_;
}

// Linux refuses more memory: an error of each function, and all goes on when there is some again.
TEST_F(RuntimePage, OutOfMemoryIsAnError) {
    const Outcome outcome = in_child([] {
        auto* const at = reinterpret_cast<char*>(0x358000000000);
        constexpr std::size_t kMany = 100'000;
        std::vector<page*> pages;
        pages.reserve(kMany);
        rlimit limit{};
        getrlimit(RLIMIT_DATA, &limit);
        const rlimit none = {1, limit.rlim_max};
        if (setrlimit(RLIMIT_DATA, &none) != 0)
            return 1;
        take(pages, kMany);
        if (pages.size() == kMany)
            return 2;
        if (dune_vm_map_pages(pgroot, at, PGSIZE, PERM_R | PERM_W) != -ENOMEM)
            return 3;
        if (dune_vm_clone(pgroot) != nullptr)
            return 4;
        ptent_t* entry = nullptr;
        if (dune_vm_lookup(pgroot, at, CREATE_NORMAL, &entry) != -ENOMEM)
            return 5;
        if (setrlimit(RLIMIT_DATA, &limit) != 0)
            return 6;
        if (dune_vm_map_pages(pgroot, at, 64 * PGSIZE, PERM_R | PERM_W) != 0)
            return 7;
        std::memset(at, 1, 64 * PGSIZE);
        for (page* const pg : pages)
            dune_page_free(pg);
        return 42;
    });
    EXPECT_TRUE(outcome.exited(42)) << outcome.status << outcome.stderr_;
}

}  // namespace
