// SPDX-License-Identifier: MIT
/**
 * @file
 * Page tables whose tables are pages of the pool: what the functions of libdune/vm.h share.
 */
#pragma once

#include <cstdint>

#include "libdune/vm.h"
#include "pool.h"
#include "spinlock.h"
#include "walker.h"

namespace dune::mm {

/** The pool's guest-physical range and its virtual one are a constant apart. */
struct PoolSpace {
    static ptent_t* table(physaddr_t pa) noexcept {
        return reinterpret_cast<ptent_t*>(dune_pagebase_va + (pa - dune_pagebase));
    }
    static physaddr_t pa(const ptent_t* table) noexcept {
        return dune_pagebase +
               static_cast<physaddr_t>(reinterpret_cast<const char*>(table) - dune_pagebase_va);
    }
    static page* page_of(const ptent_t* table) noexcept { return dune_pa2page(pa(table)); }
};

/** Everything, for walk(). */
inline constexpr std::uint64_t kLinearFirst = 0;
inline constexpr std::uint64_t kLinearLast = kLinearEnd - 1;

/** The locks of roots, and what takes them all before fork(). */
inline constexpr unsigned kRootLocks = 64;
extern SpinLock root_locks[kRootLocks];

inline SpinLock& root_lock(const ptent_t* root) noexcept {
    return root_locks[reinterpret_cast<std::uintptr_t>(root) / kPageSize % kRootLocks];
}

/** A range of addresses that was found good. */
struct VaRange {
    std::uint64_t first;  ///< linear
    std::uint64_t last;
};

/** Check a root and a range: true, or false for what is to become -EINVAL. */
bool check_range(const ptent_t* root, const void* va, std::size_t len, std::uint64_t align,
                 VaRange* range) noexcept;

/** Drop a reference; a page without any goes on the list of those to be given back. */
inline void drop(page* pg, PageList& dead) noexcept {
    if (__atomic_fetch_sub(&pg->ref, 1, __ATOMIC_ACQ_REL) == 1)
        dead.append(pg);
}

/** Drop the references that a leaf of level L, which is in no table any more, holds. */
template <int L>
void drop_leaf(ptent_t e, PageList& dead) noexcept {
    if ((e & PTE_POOL) == 0)
        return;
    page* const pg = dune_pa2page(leaf_pa<L>(e));
    for (std::uint64_t i = 0; i < kSpan<L> / kPageSize; ++i)
        drop(pg + i, dead);
}

/** Does a clone share any page of a leaf of that level that holds references? */
bool is_shared(int level, ptent_t e) noexcept;

/** The leaf with other permissions (PERM_*, valid); a page that a clone shares stays COW. */
ptent_t protect_leaf(int level, ptent_t e, int perm) noexcept;

/** Put an empty table, or what the leaf there maps, behind an entry. */
template <int L>
void insert_table(ptent_t* slot, ptent_t old, page* pg) noexcept {
    auto* const table = static_cast<ptent_t*>(dune_page2va(pg));
    if constexpr (L < kTopLevel)
        if (is_leaf<L>(old))
            split_into<L>(table, old);
    exchange(slot, dune_page2pa(pg) | kTableFlags);
}

/** Free the tables below a root, or below one entry, and drop what their leaves refer to. */
struct FreeOp : WalkOp {
    const ptent_t* root;
    PageList& dead;

    FreeOp(const ptent_t* of, PageList& list) noexcept : root(of), dead(list) {}

    int pte(ptent_t* slot, std::uint64_t) noexcept {
        drop_leaf<0>(load(slot), dead);
        return kNext;
    }
    template <int L>
    int entry(ptent_t*, ptent_t e, std::uint64_t, std::uint64_t) noexcept {
        if (is_leaf<L>(e))
            drop_leaf<L>(e, dead);
        return kNext;
    }
    template <int L>
    int leave(ptent_t*, ptent_t* child, std::uint64_t lo) noexcept {
        if constexpr (L == 1)
            forget_table(lo);
        dead.append(PoolSpace::page_of(child));
        return kNext;
    }

  private:
    void forget_table(std::uint64_t lin) const noexcept;
};

}  // namespace dune::mm
