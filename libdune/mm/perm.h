// SPDX-License-Identifier: MIT
/**
 * @file
 * PERM_* as bits of a leaf entry.
 */
#pragma once

#include <array>
#include <cstddef>

#include "libdune/mmu.h"
#include "libdune/vm.h"

namespace dune::mm {

inline constexpr int kPermAccess = PERM_R | PERM_W | PERM_X | PERM_U | PERM_UC | PERM_COW;
inline constexpr int kPermSoft = PERM_USR1 | PERM_USR2 | PERM_USR3;
inline constexpr int kPermSize = PERM_BIG | PERM_BIG_1GB;

/** Bits of a leaf that permissions decide, and what is kept when they change. */
inline constexpr ptent_t kPermBits = PTE_PERM_BITS;
inline constexpr ptent_t kPermKeep = ~kPermBits;

/** Can x86 express it? It has no entry that can be written or executed, but not read. */
constexpr bool perm_valid(int perm) noexcept {
    if ((perm & ~(kPermAccess | kPermSoft | kPermSize)) != 0)
        return false;
    if ((perm & kPermSize) == kPermSize)
        return false;
    return (perm & PERM_R) != 0 || (perm & (PERM_W | PERM_X | PERM_COW)) == 0;
}

/** The bits of a leaf. */
constexpr ptent_t perm_bits(int perm) noexcept {
    return dune_perm_bits(perm);
}

/**
 * For each set of access permissions the mask m with which (entry | kPermBits) & m is the
 * entry with those permissions. PTE_EXCL is in the result if the permissions are valid and
 * the entry had it: nothing else needs a look then.
 */
inline constexpr auto kPermMasks = [] {
    std::array<ptent_t, kPermAccess + 1> masks{};
    for (int perm = 0; perm <= kPermAccess; ++perm)
        masks[static_cast<std::size_t>(perm)] = perm_valid(perm) ? kPermKeep | perm_bits(perm) : 0;
    return masks;
}();

}  // namespace dune::mm
