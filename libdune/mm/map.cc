// SPDX-License-Identifier: MIT
// dune_vm_map_phys, dune_vm_map_pages, dune_vm_insert_page: put leaves into the tables.
//
// All memory is reserved before the first entry changes, so that nothing can fail half way.
#include <cerrno>

#include "fastmap.h"
#include "perm.h"
#include "tables.h"
#include "tlb.h"

using namespace dune::mm;

namespace {

/** How many tables it takes to have entries of level T for a range. */
template <int T>
struct CountOp : WalkOp {
    static constexpr bool kVisitsEmpty = true;
    std::uint64_t tables = 0;

    template <int L>
    int entry(ptent_t*, ptent_t, std::uint64_t lo, std::uint64_t hi) noexcept {
        tables += tables_below<L, T>(lo, hi);
        return kNext;
    }
    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t, std::uint64_t) noexcept {
        return L > T + 1 ? kDescend : kNext;  // below are entries of level T
    }
};

/** Leaves for guest-physical memory of somebody else's. */
struct PhysSource {
    physaddr_t pa;
    template <int T>
    ptent_t next() noexcept {
        const ptent_t leaf = pa;
        pa += kSpan<T>;
        return leaf;
    }
};

/** Leaves for pages of the pool, whose references they take over. */
struct PageSource {
    PageList& pages;
    template <int T>
    ptent_t next() noexcept {
        return dune_page2pa(pages.pop()) | PTE_POOL;
    }
};

/** The leaf for a page of the pool that keeps its other references. */
struct InsertSource {
    page* pg;
    template <int T>
    ptent_t next() const noexcept {
        return dune_page2pa(dune_page_get(pg)) | PTE_POOL;
    }
};

template <int T, class Source>
struct MapOp : WalkOp {
    static constexpr bool kVisitsEmpty = true;
    const ptent_t* root;
    Source& source;
    ptent_t flags;
    PageList& tables;       // as many as CountOp found
    PageList& dead;         // pages and tables that were replaced
    bool replaced = false;  // something was mapped before

    MapOp(const ptent_t* of, Source& from, ptent_t bits, PageList& reserve, PageList& list) noexcept
        : root(of), source(from), flags(bits), tables(reserve), dead(list) {}

    void install(ptent_t* slot) noexcept {
        const ptent_t old = exchange(slot, source.template next<T>() | flags);
        if (is_leaf<T>(old)) {
            replaced = true;
            drop_leaf<T>(old, dead);
        }
    }

    int pte(ptent_t* slot, std::uint64_t) noexcept {
        if constexpr (T == 0)
            install(slot);
        return kNext;
    }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t, std::uint64_t) noexcept {
        if constexpr (L == T) {
            install(slot);
            return kNext;
        } else {
            replaced |= is_leaf<L>(e);
            insert_table<L>(slot, e, tables.pop());
            return kDescend;
        }
    }
    template <int L>
    int table(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t hi) noexcept {
        if constexpr (L == T && L > 0) {  // smaller pages give way to a large one
            exchange(slot, source.template next<T>() | flags);
            replaced = true;
            FreeOp free(root, dead);
            ptent_t* const child = PoolSpace::table(PTE_ADDR(e));
            walk<PoolSpace, L - 1>(child, lo, hi, free);
            free.leave<L>(slot, child, lo);
            return kNext;
        }
        return kDescend;
    }
};

template <int T, class Source>
int map_leaves(ptent_t* root, VaRange range, Source& source, int perm) noexcept {
    const ptent_t flags = perm_bits(perm) | PTE_EXCL | (T > 0 ? PTE_PS : 0);
    PageList dead;
    PageList tables;
    const SpinGuard guard(root_lock(root));
    CountOp<T> count;
    walk_root<PoolSpace>(root, range.first, range.last, count);
    if (const int rc = tables.fill(count.tables, true); rc != 0)
        return rc;
    MapOp<T, Source> map(root, source, flags, tables, dead);
    walk_root<PoolSpace>(root, range.first, range.last, map);
    if (map.replaced)  // before `dead` gives the pages back
        flush_tlb_range(canonical(range.first), canonical(range.last));
    return 0;
}

constexpr std::uint64_t leaf_size(int perm) noexcept {
    if ((perm & PERM_BIG_1GB) != 0)
        return kSpan<2>;
    return (perm & PERM_BIG) != 0 ? kSpan<1> : kSpan<0>;
}

void free_big(PageList& heads) noexcept {
    while (!heads.empty()) {
        page* const head = heads.pop();
        PageList pages;
        for (std::size_t i = 0; i < kPagesPerChunk; ++i)
            pages.append(head + i);
    }
}

int fill_big(PageList& heads, std::size_t n) noexcept {
    for (; n != 0; --n) {
        page* const head = page_alloc_big();
        if (head == nullptr) {
            free_big(heads);
            return -ENOMEM;
        }
        heads.append(head);
    }
    return 0;
}

}  // namespace

int dune_vm_map_phys(ptent_t* root, void* va, size_t len, void* pa, int perm) {
    const std::uint64_t align = leaf_size(perm);
    const auto first_pa = reinterpret_cast<physaddr_t>(pa);
    const physaddr_t last_pa = first_pa + len - 1;
    VaRange range;
    if (!perm_valid(perm) || !check_range(root, va, len, align, &range) ||
        (first_pa & (align - 1)) != 0 || last_pa < first_pa || last_pa > (PTE_ADDR_MASK | PGMASK))
        return -EINVAL;
    PhysSource source{first_pa};
    if ((perm & PERM_BIG_1GB) != 0)
        return map_leaves<2>(root, range, source, perm);
    if ((perm & PERM_BIG) != 0)
        return map_leaves<1>(root, range, source, perm);
    return map_leaves<0>(root, range, source, perm);
}

int dune_vm_map_pages(ptent_t* root, void* va, size_t len, int perm) {
    VaRange range;
    if (!perm_valid(perm) || (perm & PERM_BIG_1GB) != 0 ||
        !check_range(root, va, len, leaf_size(perm), &range))
        return -EINVAL;
    if (len > kPoolBytes)
        return -ENOMEM;
    PageList pages;
    PageSource source{pages};
    if ((perm & PERM_BIG) != 0) {
        if (const int rc = fill_big(pages, len >> BIG_PGSHIFT); rc != 0)
            return rc;
        const int rc = map_leaves<1>(root, range, source, perm);
        free_big(pages);
        return rc;
    }
    if (const int rc = pages.fill(len >> PGSHIFT, true); rc != 0)
        return rc;
    return map_leaves<0>(root, range, source, perm);
}

int dune_vm_insert_page(ptent_t* root, void* va, page* pg, int perm) {
    VaRange range;
    if (!perm_valid(perm) || (perm & kPermSize) != 0 ||
        !check_range(root, va, kPageSize, kPageSize, &range) || !page_is_live(pg))
        return -EINVAL;
    InsertSource source{pg};
    return map_leaves<0>(root, range, source, perm);
}
