// SPDX-License-Identifier: MIT
#include "fault.h"

#include <cerrno>
#include <cstring>

#include "backing.h"
#include "tables.h"
#include "tlb.h"

namespace dune::mm {
namespace {

/** Opens the pages of ring 3 to ring 0 where CR4.SMAP closes them. */
class UserAccess {
  public:
    UserAccess() noexcept {
        if (!in_ring0())
            return;
        std::uint64_t cr4;
        asm volatile("movq %%cr4, %0" : "=r"(cr4));
        smap_ = (cr4 & kSmap) != 0;
        if (smap_)
            asm volatile("stac" ::: "memory");
    }
    ~UserAccess() {
        if (smap_)
            asm volatile("clac" ::: "memory");
    }
    UserAccess(const UserAccess&) = delete;
    UserAccess& operator=(const UserAccess&) = delete;

  private:
    static constexpr std::uint64_t kSmap = 1U << 21;
    bool smap_ = false;
};

/** Would the hardware allow the access now? */
bool allows(ptent_t e, std::uint64_t fec) noexcept {
    return (e & PTE_P) != 0 && ((fec & FEC_W) == 0 || (e & PTE_W) != 0) &&
           ((fec & FEC_U) == 0 || (e & PTE_U) != 0) && ((fec & FEC_I) == 0 || (e & PTE_NX) == 0);
}

/** The 4 KiB leaf in the place of a copy-on-write one, for a page of its own at pa. */
constexpr ptent_t own_leaf(ptent_t e, physaddr_t pa) noexcept {
    return (PTE_FLAGS(e) & ~PTE_COW) | pa | PTE_W | PTE_POOL | PTE_EXCL;
}

/** What the page at `addr` holds. In ring 0 it is read where it is mapped: that may be all. */
int copy_page(void* to, ptent_t from, std::uintptr_t addr) noexcept {
    const void* source = reinterpret_cast<const void*>(PGADDR(addr));
    if ((from & PTE_POOL) != 0) {
        source = dune_page2va(dune_pa2page(PTE_ADDR(from)));
    } else if (!in_ring0()) {
        const Result<std::uintptr_t> va = backing().pa_to_va(PTE_ADDR(from));
        if (!va)
            return -EFAULT;
        source = reinterpret_cast<const void*>(*va);
    }
    const UserAccess access;
    std::memcpy(to, source, kPageSize);
    return 0;
}

/** Under the lock: make a large leaf smaller until a 4 KiB one maps lin. */
int split_around(ptent_t* root, Found* found, std::uintptr_t addr) noexcept {
    while (found->level != 0) {
        page* const pg = page_alloc_zeroed();
        if (pg == nullptr)
            return -ENOMEM;
        const ptent_t e = load(found->slot);
        if (found->level == 2)
            insert_table<2>(found->slot, e, pg);
        else
            insert_table<1>(found->slot, e, pg);
        *found = find<PoolSpace>(root, addr);
    }
    return 0;
}

struct CowPage {
    ptent_t* slot;
    ptent_t leaf;  // to be copied; if it holds references, one more was taken
    bool done;     // nothing is to be copied (any more)
};

/** Find out what is to be done, and do it if it is no more than setting a bit. */
int begin(ptent_t* root, std::uintptr_t addr, std::uint64_t fec, CowPage* cow) noexcept {
    const SpinGuard guard(root_lock(root));
    Found found = find<PoolSpace>(root, addr);
    const ptent_t e = load(found.slot);
    if (!is_leaf_at(found.level, e))
        return -EFAULT;
    cow->done = true;
    if (allows(e, fec))  // another thread was quicker, or the TLB is behind
        return 0;
    if ((fec & FEC_W) == 0 || (e & (PTE_COW | PTE_P)) != (PTE_COW | PTE_P) ||
        !allows(e | PTE_W, fec))
        return -EFAULT;
    if (const int rc = split_around(root, &found, addr); rc != 0)
        return rc;

    ptent_t old = load(found.slot);
    if ((old & PTE_POOL) != 0) {
        page* const pg = dune_pa2page(PTE_ADDR(old));
        if (__atomic_load_n(&pg->ref, __ATOMIC_ACQUIRE) == 1) {  // the others have their copies
            while (!replace(found.slot, old, own_leaf(old, PTE_ADDR(old)))) {
            }
            return 0;
        }
        dune_page_get(pg);
    }
    *cow = {.slot = found.slot, .leaf = old, .done = false};
    return 0;
}

}  // namespace

int resolve_fault(ptent_t* root, std::uintptr_t addr, std::uint64_t fec) noexcept {
    VaRange range;
    std::size_t pool_len = 0;
    const auto pool = reinterpret_cast<std::uintptr_t>(pool_range(&pool_len));
    // The tables themselves, if the program unmapped them: whoever looks at them has the lock.
    if ((fec & (FEC_RSV | FEC_PK)) != 0 || addr - pool < pool_len ||
        !check_range(root, reinterpret_cast<void*>(addr), 1, 1, &range))
        return -EFAULT;
    CowPage cow{};
    if (const int rc = begin(root, addr, fec, &cow); rc != 0)
        return rc;
    PageList dead;
    if (!cow.done) {
        // Without the lock: reading Linux' memory may fault.
        page* const pg = dune_page_alloc();
        int rc = pg == nullptr ? -ENOMEM : copy_page(dune_page2va(pg), cow.leaf, addr);
        const SpinGuard guard(root_lock(root));
        if ((cow.leaf & PTE_POOL) != 0)  // the one that begin() took
            drop(dune_pa2page(PTE_ADDR(cow.leaf)), dead);
        if (rc == 0) {
            // A and D may have been set meanwhile. If more has changed, the access tells.
            const Found found = find<PoolSpace>(root, addr);
            ptent_t old = load(found.slot);
            constexpr ptent_t kByCpu = PTE_A | PTE_D;
            bool installed = false;
            while (found.slot == cow.slot && ((old ^ cow.leaf) & ~kByCpu) == 0 && !installed)
                installed = replace(found.slot, old, own_leaf(old, dune_page2pa(pg)));
            if (installed && (cow.leaf & PTE_POOL) != 0)
                drop(dune_pa2page(PTE_ADDR(cow.leaf)), dead);
            if (!installed)
                drop(pg, dead);
        } else if (pg != nullptr) {
            drop(pg, dead);
        }
        if (rc != 0)
            return rc;
        flush_tlb_one(addr);
        return 0;
    }
    flush_tlb_one(addr);
    return 0;
}

}  // namespace dune::mm

void dune_vm_default_pgflt_handler(uintptr_t addr, uint64_t fec) {
    using namespace dune::mm;
    switch (resolve_fault(backing().current_root(), addr, fec)) {
        case 0:
            return;
        case -ENOMEM:
            fatal("no memory to copy a page on write", addr);
        default:
            fatal("page fault that no mapping explains, at address", addr);
    }
}
