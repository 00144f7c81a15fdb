// SPDX-License-Identifier: MIT
// dune_vm_mprotect and dune_vm_unmap: change and remove leaves.
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

/** Calls change(level, slot, entry) for each leaf; cuts leaves that are partly in the range. */
template <class Change>
struct ChangeOp : WalkOp {
    Change change;
    PageList& tables;
    bool found = false;

    ChangeOp(Change fn, PageList& reserve) noexcept : change(fn), tables(reserve) {}

    template <int L>
    void apply(ptent_t* slot, std::uint64_t lin) noexcept {
        found = true;
        const ptent_t old = change.template operator()<L>(slot);
        if ((old & PTE_G) != 0) [[unlikely]]
            flush_tlb_one(canonical(lin));
    }
    int pte(ptent_t* slot, std::uint64_t lin) noexcept {
        if (is_leaf<0>(load(slot))) [[likely]]
            apply<0>(slot, lin);
        return kNext;
    }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t hi) noexcept {
        if constexpr (L < kTopLevel) {
            if (!is_leaf<L>(e))
                return kNext;
            if (is_whole<L>(lo, hi)) {
                apply<L>(slot, lo);
                return kNext;
            }
            insert_table<L>(slot, e, tables.pop());
            return kDescend;
        }
        return kNext;
    }
};

/** Under the lock: change all leaves of a range, invalidate. */
template <class Change>
int change_leaves(ptent_t* root, VaRange range, Change change) noexcept {
    PageList tables;
    if (!is_whole<2>(range.first, range.last)) {
        CountSplitsOp count;
        walk<PoolSpace>(root, range.first, range.last, count);
        if (const int rc = tables.fill(count.tables, true); rc != 0)
            return rc;
    }
    ChangeOp<Change> op(change, tables);
    walk<PoolSpace>(root, range.first, range.last, op);
    if (!op.found)
        return -EINVAL;
    flush_tlb_range(canonical(range.first), canonical(range.last));
    return 0;
}

[[gnu::noinline]] int protect_slow(ptent_t* root, void* va, std::size_t len, int perm) noexcept {
    VaRange range;
    if (!perm_valid(perm) || !check_range(root, va, len, kPageSize, &range))
        return -EINVAL;
    const ptent_t mask = kPermKeep | perm_bits(perm);
    const SpinGuard guard(root_lock(root));
    if (len == kPageSize) {  // next time it will be the fast way
        const Found found = find<PoolSpace>(root, reinterpret_cast<std::uintptr_t>(va));
        if (found.level == 0)
            fastmap().set(root, reinterpret_cast<std::uintptr_t>(va),
                          reinterpret_cast<ptent_t*>(PGADDR(found.slot)));
    }
    return change_leaves(root, range, [mask, perm]<int L>(ptent_t* slot) noexcept {
        ptent_t old = load(slot);
        ptent_t to;
        do {
            to = (old | kPermBits) & mask;
            if ((to & PTE_EXCL) == 0) [[unlikely]]
                to = protect_leaf(L, old, perm);
        } while (!replace(slot, old, to));
        return old;
    });
}

}  // namespace

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

int dune_vm_unmap(ptent_t* root, void* va, size_t len) {
    VaRange range;
    if (!check_range(root, va, len, kPageSize, &range))
        return -EINVAL;
    PageList dead;  // given back after the TLB is flushed and the lock released
    const SpinGuard guard(root_lock(root));
    return change_leaves(root, range, [&dead]<int L>(ptent_t* slot) noexcept {
        const ptent_t old = exchange(slot, 0);
        drop_leaf<L>(old, dead);
        return old;
    });
}
