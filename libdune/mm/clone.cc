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
    std::uint64_t tables = 0;

    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t, std::uint64_t) noexcept {
        ++tables;
        return L > 1 ? kDescend : kNext;
    }
};

/** Copies each table into a page of `tables`, which need not be zeroed: every entry is visited. */
struct CloneOp : WalkOp {
    PageList& tables;
    ptent_t* copy[kTopLevel + 1];  // of the table of each level that is being walked

    CloneOp(PageList& reserve, ptent_t* root) noexcept : tables(reserve), copy{} {
        copy[kTopLevel] = root;
    }

    template <int L>
    void put(const ptent_t* slot, ptent_t e) noexcept {
        copy[L][PGOFF(slot) / sizeof(ptent_t)] = e;
    }

    /** Both sides get the leaf without PTE_EXCL, and with PTE_COW for PTE_W. */
    template <int L>
    ptent_t share(ptent_t* slot, std::uint64_t lin) noexcept {
        ptent_t old = load(slot);
        if ((old & PTE_POOL) == 0)  // Linux' memory, or nothing
            return old;
        page* const pg = dune_pa2page(leaf_pa<L>(old));
        for (std::uint64_t i = 0; i < kSpan<L> / kPageSize; ++i)
            dune_page_get(pg + i);
        constexpr int kCowFromW = __builtin_ctzl(PTE_COW) - __builtin_ctzl(PTE_W);
        ptent_t to;
        do
            to = (old & ~(PTE_W | PTE_EXCL)) | (old & PTE_W) << kCowFromW;
        while (to != old && !replace(slot, old, to));
        if ((old & PTE_G) != 0) [[unlikely]]
            flush_tlb_one(canonical(lin));
        return to;
    }

    int pte(ptent_t* slot, std::uint64_t lin) noexcept {
        put<0>(slot, share<0>(slot, lin));
        return kNext;
    }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t) noexcept {
        if constexpr (L < kTopLevel) {
            put<L>(slot, is_leaf<L>(e) ? share<L>(slot, lo) : 0);
        } else {
            put<L>(slot, 0);
        }
        return kNext;
    }
    template <int L>
    int table(ptent_t* slot, ptent_t e, std::uint64_t, std::uint64_t) noexcept {
        page* const pg = tables.pop();
        copy[L - 1] = static_cast<ptent_t*>(dune_page2va(pg));
        put<L>(slot, dune_page2pa(pg) | PTE_FLAGS(e));
        return kDescend;
    }
};

}  // namespace

ptent_t* dune_vm_clone(ptent_t* root) {
    if (root == nullptr || PGOFF(root) != 0)
        return nullptr;
    PageList tables;
    const SpinGuard guard(root_lock(root));
    CountTablesOp count;
    walk<PoolSpace>(root, kLinearFirst, kLinearLast, count);
    if (tables.fill(count.tables + 1, false) != 0)
        return nullptr;
    auto* const copy = static_cast<ptent_t*>(dune_page2va(tables.pop()));
    CloneOp op(tables, copy);
    walk<PoolSpace>(root, kLinearFirst, kLinearLast, op);
    flush_tlb_all();
    return copy;
}

void dune_vm_free(ptent_t* root) {
    if (root == nullptr || PGOFF(root) != 0)
        return;
    PageList dead;
    const SpinGuard guard(root_lock(root));
    FreeOp op(root, dead);
    walk<PoolSpace>(root, kLinearFirst, kLinearLast, op);
    fastmap().drop(root);
    const physaddr_t pa = PoolSpace::pa(root);
    if (dune_page_isfrompool(pa))
        drop(dune_pa2page(pa), dead);
    else  // the program's own page
        std::memset(root, 0, kPageSize);
}
