// SPDX-License-Identifier: MIT
/**
 * @file
 * The one walk over 4-level x86-64 page tables (SDM vol. 3, "4-Level Paging") that every
 * page-table function is an operation of.
 *
 * An operation derives from WalkOp and says what to do at an entry that is a leaf or empty
 * (entry), at a 4 KiB entry (pte), at a table (table) and after a table was walked (leave).
 * Levels are template arguments, so that each operation is compiled into four plain loops.
 *
 * Addresses are linear indices here: virtual addresses without their sign extension, so that
 * [0, 2^48) is one range; canonical() gives the virtual address back.
 */
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "libdune/mmu.h"

namespace dune::mm {

/** How a table that an entry points to is reached: guest-physical to virtual address. */
template <class S>
concept TableSpace = requires(physaddr_t pa) {
    { S::table(pa) }
    noexcept->std::same_as<ptent_t*>;
};

inline constexpr int kTopLevel = NPTLVLS;
inline constexpr std::uint64_t kLinearEnd = std::uint64_t{1} << PDSHIFT(kTopLevel + 1);

/** Bytes that one entry of level L maps. */
template <int L>
inline constexpr std::uint64_t kSpan = std::uint64_t{1} << PDSHIFT(L);

/** Flags of an entry that points to a table: leaves alone decide what is allowed. */
inline constexpr ptent_t kTableFlags = PTE_P | PTE_W | PTE_U | PTE_A;

constexpr std::uint64_t linear(std::uintptr_t va) noexcept {
    return va & (kLinearEnd - 1);
}

constexpr std::uintptr_t canonical(std::uint64_t lin) noexcept {
    constexpr int kUnused = 64 - PDSHIFT(kTopLevel + 1);
    return static_cast<std::uintptr_t>(static_cast<std::int64_t>(lin << kUnused) >> kUnused);
}

constexpr bool is_table(ptent_t e) noexcept {
    return (e & (PTE_P | PTE_PS)) == PTE_P;
}

/** Does it map something? Entries without PTE_P count: their page is kept for later. */
template <int L>
constexpr bool is_leaf(ptent_t e) noexcept {
    if constexpr (L == 0)
        return e != 0;
    else
        return L < kTopLevel && (e & PTE_PS) != 0;
}

/** Guest-physical address of the page that a leaf of level L maps. */
template <int L>
constexpr physaddr_t leaf_pa(ptent_t e) noexcept {
    return e & PTE_ADDR_MASK & ~(kSpan<L> - 1);
}

/** Is [lo, hi], which lies in the range of one entry of level L, all of it? */
template <int L>
constexpr bool is_whole(std::uint64_t lo, std::uint64_t hi) noexcept {
    return (lo & (kSpan<L> - 1)) == 0 && ((hi + 1) & (kSpan<L> - 1)) == 0;
}

inline ptent_t load(const ptent_t* slot) noexcept {
    return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

/** Entries change atomically: the CPU sets A and D, and dune_vm_mprotect takes no lock. */
inline ptent_t exchange(ptent_t* slot, ptent_t e) noexcept {
    return __atomic_exchange_n(slot, e, __ATOMIC_ACQ_REL);
}

/** If the entry still is `old`, make it e; else `old` becomes what it is. */
inline bool replace(ptent_t* slot, ptent_t& old, ptent_t e) noexcept {
    return __atomic_compare_exchange_n(slot, &old, e, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/** What an operation answers; a negative number is an errno and ends the walk, too. */
enum Step : int {
    kNext = 0,     ///< go on with the next entry
    kDescend = 1,  ///< the entry is, or has become, a table: walk it
    kStop = 2,     ///< end the walk
};

/** The operation that does nothing. */
struct WalkOp {
    /** Does it want to see entries that are 0? Most of a sparse address space is. */
    static constexpr bool kVisitsEmpty = false;

    /** An entry of level 1 or above that is empty or a leaf; [lo, hi] is what to walk of it. */
    template <int L>
    int entry(ptent_t*, ptent_t, std::uint64_t /*lo*/, std::uint64_t /*hi*/) noexcept {
        return kNext;
    }
    /**
     * An entry of level 0. An operation may have `int ptes(ptent_t* slot, ptent_t* last,
     * std::uint64_t lin)` instead, which gets [slot, last] at once.
     */
    int pte(ptent_t*, std::uint64_t /*lin*/) noexcept { return kNext; }
    /** An entry of level L that points to a table. */
    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t /*lo*/, std::uint64_t /*hi*/) noexcept {
        return kDescend;
    }
    /** The table behind that entry was walked to its end. */
    template <int L>
    int leave(ptent_t*, ptent_t* /*child*/, std::uint64_t /*lo*/) noexcept {
        return kNext;
    }
};

template <TableSpace S, int L, class Op>
int walk(ptent_t* table, std::uint64_t first, std::uint64_t last, Op& op);

/** One entry of level 1 or above, and what is below it. */
template <TableSpace S, int L, class Op>
int visit(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t hi, Op& op) {
    const int rc =
        is_table(e) ? op.template table<L>(slot, e, lo, hi) : op.template entry<L>(slot, e, lo, hi);
    if (rc != kDescend)
        return rc;
    ptent_t* const child = S::table(PTE_ADDR(load(slot)));
    const int below = walk<S, L - 1>(child, lo, hi, op);
    return below == kNext ? op.template leave<L>(slot, child, lo) : below;
}

/**
 * Walk the linear addresses [first, last] of a table of level L in ascending order.
 * @return 0, or what the operation ended the walk with
 */
template <TableSpace S, int L, class Op>
int walk(ptent_t* table, std::uint64_t first, std::uint64_t last, Op& op) {
    ptent_t* slot = table + PDX(L, first);
    ptent_t* const end = table + PDX(L, last);
    if constexpr (L == 0 && requires { op.ptes(slot, end, first); }) {
        return op.ptes(slot, end, first);
    } else if constexpr (L == 0) {
        for (;; ++slot, first += kSpan<0>) {
            if (Op::kVisitsEmpty || load(slot) != 0)
                if (const int rc = op.pte(slot, first); rc != kNext)
                    return rc;
            if (slot == end)
                return kNext;
        }
    } else {
        const std::uint64_t base = first & ~(kSpan<L + 1> - 1);
        for (;; ++slot) {
            const ptent_t e = load(slot);
            if (Op::kVisitsEmpty || e != 0) {
                const auto index = static_cast<std::uint64_t>(slot - table);
                const std::uint64_t lo = std::max(first, base + index * kSpan<L>);
                const std::uint64_t hi = std::min(last, lo | (kSpan<L> - 1));
                const int rc = visit<S, L>(slot, e, lo, hi, op);
                if (rc != kNext)
                    return rc;
            }
            if (slot == end)
                return kNext;
        }
    }
}

/** The same from the root. */
template <TableSpace S, class Op>
int walk_root(ptent_t* root, std::uint64_t first, std::uint64_t last, Op& op) {
    return walk<S, kTopLevel>(root, first, last, op);
}

/** An entry and its level. */
struct Found {
    ptent_t* slot;
    int level;
};

/** The entry that maps va, or would: the leaf or empty entry at which the walk ends. */
template <TableSpace S>
inline Found find(ptent_t* root, std::uintptr_t va) noexcept {
    ptent_t* table = root;
    for (int level = kTopLevel;; --level) {
        ptent_t* const slot = table + PDX(level, va);
        if (level == 0)
            return {slot, level};
        const ptent_t e = load(slot);
        if (!is_table(e))
            return {slot, level};
        table = S::table(PTE_ADDR(e));
    }
}

/** Does e, found at that level, map something? */
constexpr bool is_leaf_at(int level, ptent_t e) noexcept {
    return level == 0 ? is_leaf<0>(e) : level < kTopLevel && (e & PTE_PS) != 0;
}

/** Fill a table of level L - 1 with what a leaf of level L maps. */
template <int L>
void split_into(ptent_t* table, ptent_t leaf) noexcept {
    static_assert(L == 1 || L == 2);
    constexpr ptent_t kLargePat = ptent_t{1} << PGSHIFT;
    ptent_t flags = PTE_FLAGS(leaf);
    if constexpr (L == 1)
        flags = (flags & ~PTE_PS) | ((leaf & kLargePat) != 0 ? PTE_PAT : 0);
    else
        flags |= leaf & kLargePat;
    for (std::uint64_t i = 0; i < NPTENTRIES; ++i)
        table[i] = (leaf_pa<L>(leaf) + i * kSpan<L - 1>) | flags;
}

/** Tables of levels T … L - 1 that [lo, hi], in an empty entry of level L, needs to map at level T.
 */
template <int L, int T>
constexpr std::uint64_t tables_below(std::uint64_t lo, std::uint64_t hi) noexcept {
    if constexpr (L <= T)
        return 0;
    else
        return (hi >> PDSHIFT(L)) - (lo >> PDSHIFT(L)) + 1 + tables_below<L - 1, T>(lo, hi);
}

/** Tables that it takes to cut [lo, hi] out of a leaf of level L that is larger than that. */
template <int L>
constexpr std::uint64_t tables_to_split(std::uint64_t lo, std::uint64_t hi) noexcept {
    if constexpr (L == 0) {
        return 0;
    } else {
        if (is_whole<L>(lo, hi))
            return 0;
        if (lo >> PDSHIFT(L - 1) == hi >> PDSHIFT(L - 1))
            return 1 + tables_to_split<L - 1>(lo, hi);
        const std::uint64_t lo_end = lo | (kSpan<L - 1> - 1);
        const std::uint64_t hi_start = hi & ~(kSpan<L - 1> - 1);
        return 1 + tables_to_split<L - 1>(lo, lo_end) + tables_to_split<L - 1>(hi_start, hi);
    }
}

}  // namespace dune::mm
