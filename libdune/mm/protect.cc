// SPDX-License-Identifier: MIT
// dune_vm_mprotect and dune_vm_unmap: change and remove leaves.
//
// Compiled without vector registers: page-fault handlers for which they are not saved call
// dune_vm_mprotect. What may allocate or free memory goes by dune_keep_vectors().
#include "protect.h"

#include <algorithm>
#include <cerrno>

#include "fastmap.h"
#include "perm.h"
#include "tables.h"
#include "tlb.h"

using namespace dune::mm;

namespace {

/** How many tables it takes to cut a range out of the larger pages that hold its ends. */
struct CountSplitsOp : WalkOp {
    std::uint64_t tables = 0;

    template <int L>
    int entry(ptent_t*, ptent_t e, std::uint64_t lo, std::uint64_t hi) noexcept {
        if (is_leaf<L>(e))
            tables += tables_to_split<L>(lo, hi);
        return kNext;
    }
    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t lo, std::uint64_t hi) noexcept {
        // Level 0 splits nothing, nor does the inside of the range.
        return L > 1 && !is_whole<L>(lo, hi) ? kDescend : kNext;
    }
};

/** The change of permissions. */
struct Protect {
    ptent_t mask;
    int perm;

    explicit Protect(int to) noexcept : mask(kPermKeep | perm_bits(to)), perm(to) {}

    /** Change a leaf. @return the leaf before */
    template <int L>
    ptent_t apply(ptent_t* slot) const noexcept {
        ptent_t old = load(slot);
        ptent_t to;
        do {
            to = (old | kPermBits) & mask;
            if ((to & PTE_EXCL) == 0) [[unlikely]]  // shared, or empty, or made by the program
                to = is_leaf<L>(old) ? protect_leaf(L, old, perm) : old;
        } while (!replace(slot, old, to));
        return old;
    }

    /**
     * Change 4 KiB leaves as long as they need no look: those that have PTE_EXCL. One that lacks
     * it, or that the CPU or another thread changes meanwhile, is not what the exchange expects.
     * @param seen gets the bits of those that were changed
     * @return the first that was not, or end
     */
    ptent_t* apply_run(ptent_t* slot, ptent_t* end, ptent_t& seen) const noexcept {
        const ptent_t keep = mask & kPermKeep;
        const ptent_t rights = mask & kPermBits;
        ptent_t leaves = 0;
        const auto one = [keep, rights, &leaves](ptent_t* each) {
            ptent_t old = load(each) | PTE_EXCL;
            const bool done = replace(each, old, (old & keep) | rights);
            leaves |= done ? old : 0;
            return done;
        };
        // By hand: a compiler that unrolls a loop with a way out counts each round.
        while (end - slot >= 8 && one(slot) && one(slot + 1) && one(slot + 2) && one(slot + 3) &&
               one(slot + 4) && one(slot + 5) && one(slot + 6) && one(slot + 7))
            slot += 8;
        while (slot != end && one(slot))
            ++slot;
        seen |= leaves;
        return slot;
    }
};

/** The removal of leaves, whose pages go on a list when nobody else refers to them. */
struct Unmap {
    PageList& dead;

    template <int L>
    ptent_t apply(ptent_t* slot) const noexcept {
        if (!is_leaf<L>(load(slot)))
            return 0;
        const ptent_t old = exchange(slot, 0);
        drop_leaf<L>(old, dead);
        return old;
    }
};

/** Applies a change to each leaf; cuts leaves that are partly in the range. */
template <class Change>
struct ChangeOp : WalkOp {
    const Change change;
    PageList& tables;
    ptent_t seen = 0;  // of all leaves

    ChangeOp(const Change& what, PageList& reserve) noexcept : change(what), tables(reserve) {}

    int ptes(ptent_t* slot, ptent_t* last, std::uint64_t lin) noexcept {
        ptent_t leaves = 0;
        for (ptent_t* each = slot; each <= last; ++each)
            leaves |= change.template apply<0>(each);
        seen |= leaves;
        if ((leaves & PTE_G) != 0) [[unlikely]] {
            for (; slot <= last; ++slot, lin += kSpan<0>)
                flush_tlb_one(canonical(lin));
        }
        return kNext;
    }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t hi) noexcept {
        if constexpr (L < kTopLevel) {
            if (!is_leaf<L>(e))
                return kNext;
            if (!is_whole<L>(lo, hi)) {
                insert_table<L>(slot, e, tables.pop());
                return kDescend;
            }
            const ptent_t old = change.template apply<L>(slot);
            seen |= old;
            if ((old & PTE_G) != 0) [[unlikely]]
                flush_tlb_one(canonical(lo));
        }
        return kNext;
    }
};

/** Does a large page reach from one side of this address to the other? */
bool cuts_leaf(ptent_t* root, std::uint64_t lin) noexcept {
    if ((lin & (kSpan<2> - 1)) == 0)
        return false;
    const Found found = find<PoolSpace>(root, lin);
    return found.level != 0 && is_leaf_at(found.level, load(found.slot)) &&
           (lin & ((std::uint64_t{1} << PDSHIFT(found.level)) - 1)) != 0;
}

/** Under the lock: change all leaves of a range, invalidate. */
template <class Change>
int change_leaves(ptent_t* root, VaRange range, const Change& change) noexcept {
    PageList tables;
    if (cuts_leaf(root, range.first) || cuts_leaf(root, range.last + 1)) {
        CountSplitsOp count;
        walk_root<PoolSpace>(root, range.first, range.last, count);
        if (const int rc = tables.fill(count.tables, true); rc != 0)
            return rc;
    }
    ChangeOp<Change> op(change, tables);
    walk_root<PoolSpace>(root, range.first, range.last, op);
    if (op.seen == 0)
        return -EINVAL;
    flush_tlb_range(canonical(range.first), canonical(range.last));
    return 0;
}

/**
 * Under the lock: change a range of usual pages whose tables are all known, without a walk.
 * @return whether that was all; if not, some of it may be done. Whoever walks then needs no memory:
 *         where something is done and the table at the end is known, no large page is cut.
 */
bool protect_known(ptent_t* root, std::uint64_t first, std::uint64_t last,
                   const Protect& change) noexcept {
    if (!fastmap().knows(root, last))
        return false;
    ptent_t seen = 0;
    for (std::uint64_t at = first; at < last;) {
        const std::uint64_t end = std::min(last, at | (kSpan<1> - 1)) + 1;
        ptent_t* const slot = fastmap().entry(root, at >> PGSHIFT);
        ptent_t* const stop = slot + ((end - at) >> PGSHIFT);
        if (change.apply_run(slot, stop, seen) != stop)
            return false;
        at = end;
    }
    return (seen & PTE_G) == 0;  // those are flushed one by one
}

[[gnu::noinline]] int protect_slow(ptent_t* root, void* va, std::size_t len, int perm) noexcept {
    VaRange range;
    if (!perm_valid(perm) || !check_range(root, va, len, kPageSize, &range))
        return -EINVAL;
    const Protect change(perm);
    const SpinGuard guard(root_lock(root));
    if (len == kPageSize) {
        const auto address = reinterpret_cast<std::uintptr_t>(va);
        const Found found = find<PoolSpace>(root, address);
        if (found.level == 0) {
            fastmap().set(root, address, reinterpret_cast<ptent_t*>(PGADDR(found.slot)));
            if (change.apply<0>(found.slot) == 0)
                return -EINVAL;
            flush_tlb_one(address);
            return 0;
        }
    }
    if (protect_known(root, range.first, range.last, change)) {
        flush_tlb_range(range.first, range.last);
        return 0;
    }
    // Large pages may have to be cut, which takes memory.
    struct Leaves {
        ptent_t* root;
        VaRange range;
        const Protect& change;
    } leaves{root, range, change};
    const auto change_them = [](void* argument) {
        const auto* const all = static_cast<Leaves*>(argument);
        return change_leaves(all->root, all->range, all->change);
    };
    return dune_keep_vectors(change_them, &leaves);
}

}  // namespace

#undef dune_vm_mprotect
int dune_vm_mprotect(ptent_t* root, void* va, size_t len, int perm) {
    // The low 12 bits of the address go to the top: one comparison finds misaligned and
    // non-canonical addresses, and those of the upper half.
    const auto address = reinterpret_cast<std::uintptr_t>(va);
    const std::uint64_t vpn = address >> PGSHIFT | address << (64 - PGSHIFT);
    if (vpn >> NPTBITS < FastMap::kWords && len == kPageSize &&
        static_cast<unsigned>(perm) < kPermMasks.size()) [[likely]] {
        ptent_t* const slot = fastmap().entry(root, vpn);
        if (slot != nullptr) [[likely]] {
            ptent_t old = load(slot);
            const ptent_t to = (old | kPermBits) & kPermMasks[static_cast<unsigned>(perm)];
            if ((to & PTE_EXCL) != 0 && replace(slot, old, to)) [[likely]] {
                flush_tlb_one(address);
                return 0;
            }
        }
    }
    return protect_slow(root, va, len, perm);
}

int dune_vm_mprotect_keeping_vectors(ptent_t* root, void* va, size_t len, int perm)
    __attribute__((alias("dune_vm_mprotect")));

int dune_vm_unmap(ptent_t* root, void* va, size_t len) {
    VaRange range;
    if (!check_range(root, va, len, kPageSize, &range))
        return -EINVAL;
    PageList dead;  // given back after the TLB is flushed and the lock released
    const SpinGuard guard(root_lock(root));
    return change_leaves(root, range, Unmap{dead});
}
