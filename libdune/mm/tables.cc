// SPDX-License-Identifier: MIT
#include "tables.h"

#include "fastmap.h"
#include "perm.h"

ptent_t* pgroot = nullptr;

namespace dune::mm {

constinit SpinLock root_locks[kRootLocks];

bool check_range(const ptent_t* root, const void* va, std::size_t len, std::uint64_t align,
                 VaRange* range) noexcept {
    const auto first = reinterpret_cast<std::uintptr_t>(va);
    const std::uintptr_t last = first + len - 1;
    if (root == nullptr || PGOFF(root) != 0 || len == 0 || ((first | len) & (align - 1)) != 0)
        return false;
    if (last < first || canonical(linear(first)) != first || canonical(linear(last)) != last)
        return false;
    *range = {linear(first), linear(last)};
    // In one half: between them are addresses that do not exist.
    return first >> 63 == last >> 63;
}

bool is_shared(int level, ptent_t e) noexcept {
    const page* const pg = dune_pa2page(PTE_ADDR(e) & ~((std::uint64_t{1} << PDSHIFT(level)) - 1));
    for (std::uint64_t i = 0; i < std::uint64_t{1} << (NPTBITS * level); ++i)
        if (__atomic_load_n(&pg[i].ref, __ATOMIC_ACQUIRE) > 1)
            return true;
    return false;
}

ptent_t protect_leaf(int level, ptent_t e, int perm) noexcept {
    ptent_t to = (e & kPermKeep) | perm_bits(perm) | PTE_EXCL;
    if ((e & (PTE_POOL | PTE_EXCL)) == PTE_POOL && is_shared(level, e)) {
        to &= ~PTE_EXCL;
        if ((to & PTE_W) != 0)
            to = (to & ~PTE_W) | PTE_COW;
    }
    return to;
}

void FreeOp::forget_table(std::uint64_t lin) const noexcept {
    fastmap().clear(root, canonical(lin));
}

}  // namespace dune::mm
