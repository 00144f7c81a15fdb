// SPDX-License-Identifier: MIT
// dune_vm_clone, dune_vm_free and the copy on write that follows a clone.
#include <cerrno>
#include <cstring>

#include "backing.h"
#include "fastmap.h"
#include "fault.h"
#include "tables.h"
#include "tlb.h"

using namespace dune::mm;

namespace {

struct CountTablesOp : WalkOp {
    std::uint64_t upper = 0;
    std::uint64_t lowest = 0;  // of level 0

    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t, std::uint64_t) noexcept {
        ++(L == 1 ? lowest : upper);
        return L > 1 ? kDescend : kNext;
    }
};

/** Both sides get the leaf without PTE_EXCL, and with PTE_COW for PTE_W. */
constexpr ptent_t shared_leaf(ptent_t e) noexcept {
    constexpr int kCowFromW = __builtin_ctzl(PTE_COW) - __builtin_ctzl(PTE_W);
    return (e & ~(PTE_W | PTE_EXCL)) | (e & PTE_W) << kCowFromW;
}

/** The CPU may set A and D meanwhile. @return the leaf as it is then */
[[gnu::noinline]] ptent_t share_leaf(ptent_t* slot) noexcept {
    ptent_t e = load(slot);
    while (!replace(slot, e, shared_leaf(e))) {
    }
    return shared_leaf(e);
}

/**
 * Share the 4 KiB leaves [from, last] with those at `to`: the loop that a clone consists of, so
 * addresses of struct page are computed here without a subtraction.
 * @return the bits of all leaves of pages of the pool
 */
[[gnu::noinline]] ptent_t share_table(ptent_t* from, const ptent_t* last, ptent_t* to) noexcept {
    static_assert(sizeof(page) == kPageSize >> 8);
    constexpr ptent_t kOwn = PTE_W | PTE_EXCL;
    char* pages = reinterpret_cast<char*>(dune_pages) - (dune_pagebase >> 8);
    const std::ptrdiff_t distance = reinterpret_cast<char*>(to) - reinterpret_cast<char*>(from);
    ptent_t change = PTE_W | PTE_EXCL | PTE_COW;
    asm("" : "+r"(pages), "+r"(change));  // or the compiler makes them again in the loop
    ptent_t seen = 0;
    for (;; ++from) {
        ptent_t e = load(from);
        if ((e & PTE_POOL) != 0) {  // else Linux' memory, or nothing
            dune_page_get(reinterpret_cast<page*>(pages + (PTE_ADDR(e) >> 8)));
            seen |= e;
            // Nothing is to change if it was shared before.
            const ptent_t own = e & kOwn;
            if (own == kOwn) [[likely]] {
                const ptent_t shared = e ^ change;
                e = replace(from, e, shared) ? shared : share_leaf(from);
            } else if (own != 0) {
                e = share_leaf(from);
            }
        }
        *reinterpret_cast<ptent_t*>(reinterpret_cast<char*>(from) + distance) = e;
        if (from == last)
            return seen;
    }
}

/** Copies each table into a page of `tables`: those of level 0 whole, others entry by entry. */
struct CloneOp : WalkOp {
    PageList& upper;               // zeroed
    PageList& lowest;              // of level 0, not zeroed: all of it is copied
    ptent_t* copy[kTopLevel + 1];  // of the table of each level that is being walked

    CloneOp(PageList& tables, PageList& leaf_tables, ptent_t* root) noexcept
        : upper(tables), lowest(leaf_tables), copy{} {
        copy[kTopLevel] = root;
    }

    template <int L>
    void put(const ptent_t* slot, ptent_t e) noexcept {
        copy[L][PGOFF(slot) / sizeof(ptent_t)] = e;
    }

    int ptes(ptent_t* slot, ptent_t* last, std::uint64_t lin) noexcept {
        if ((share_table(slot, last, copy[0]) & PTE_G) != 0) [[unlikely]] {
            for (; slot <= last; ++slot, lin += kSpan<0>)  // a flush of everything spares those
                flush_tlb_one(canonical(lin));
        }
        return kNext;
    }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t) noexcept {
        if (!is_leaf<L>(e))
            return kNext;
        if ((e & PTE_POOL) != 0) {
            page* const pg = dune_pa2page(leaf_pa<L>(e));
            for (std::uint64_t i = 0; i < kSpan<L> / kPageSize; ++i)
                dune_page_get(pg + i);
            while (!replace(slot, e, shared_leaf(e))) {
            }
            if ((e & PTE_G) != 0)
                flush_tlb_one(canonical(lo));
            e = shared_leaf(e);
        }
        put<L>(slot, e);
        return kNext;
    }
    template <int L>
    int table(ptent_t* slot, ptent_t e, std::uint64_t, std::uint64_t) noexcept {
        page* const pg = (L == 1 ? lowest : upper).pop();
        copy[L - 1] = static_cast<ptent_t*>(dune_page2va(pg));
        put<L>(slot, dune_page2pa(pg) | PTE_FLAGS(e));
        return kDescend;
    }
};

/** Takes tables without entries out of the tables above them. */
struct PruneOp : WalkOp {
    const ptent_t* root;
    PageList& dead;

    PruneOp(const ptent_t* of, PageList& list) noexcept : root(of), dead(list) {}

    template <int L>
    int leave(ptent_t* slot, const ptent_t* child, std::uint64_t lo) noexcept {
        for (unsigned i = 0; i < NPTENTRIES; ++i)
            if (load(child + i) != 0)
                return kNext;
        if constexpr (L == 1)
            fastmap().clear(root, canonical(lo));
        exchange(slot, 0);
        dead.append(PoolSpace::page_of(child));
        return kNext;
    }
};

}  // namespace

ptent_t* dune_vm_clone(ptent_t* root) {
    if (root == nullptr || PGOFF(root) != 0)
        return nullptr;
    PageList upper;
    PageList lowest;
    const SpinGuard guard(root_lock(root));
    CountTablesOp count;
    walk_root<PoolSpace>(root, kLinearFirst, kLinearLast, count);
    if (upper.fill(count.upper + 1, true) != 0 || lowest.fill(count.lowest, false) != 0)
        return nullptr;
    auto* const copy = static_cast<ptent_t*>(dune_page2va(upper.pop()));
    CloneOp op(upper, lowest, copy);
    walk_root<PoolSpace>(root, kLinearFirst, kLinearLast, op);
    flush_tlb_all();
    return copy;
}

void dune_vm_free(ptent_t* root) {
    if (root == nullptr || PGOFF(root) != 0)
        return;
    PageList dead;
    const SpinGuard guard(root_lock(root));
    FreeOp op(root, dead);
    walk_root<PoolSpace>(root, kLinearFirst, kLinearLast, op);
    fastmap().drop(root);
    const physaddr_t pa = PoolSpace::pa(root);
    if (dune_page_isfrompool(pa))
        drop(dune_pa2page(pa), dead);
    else  // the program's own page
        std::memset(root, 0, kPageSize);
}

int dune_vm_prune(ptent_t* root) {
    if (root == nullptr || PGOFF(root) != 0)
        return -EINVAL;
    PageList dead;
    const SpinGuard guard(root_lock(root));
    PruneOp op(root, dead);
    walk_root<PoolSpace>(root, kLinearFirst, kLinearLast, op);
    flush_tlb_all();  // and with it the paging-structure caches
    return 0;
}
