// SPDX-License-Identifier: MIT
/**
 * @file
 * A flat map from addresses to leaf tables, so that the entry of a page is found by one load.
 *
 * Programs that trap on protected pages change the entries of single pages more often than
 * anything else; a walk over four levels costs three times as much as the rest of it. The map
 * has a word for every 2 MiB of the lower half of the address space, in sparse memory, and serves
 * one root: the first that asks, which is the process' own. dune_leaf_map points to it, for the
 * inline part of dune_vm_mprotect().
 *
 * Words are written under the lock of the root and read without. That is safe because a leaf
 * table goes away only with its root, or when a large page replaces all that it maps: a
 * program that does this while another thread changes pages there is wrong in any case.
 */
#pragma once

#include <cstddef>
#include <cstdint>

#include "backing.h"
#include "libdune/mmu.h"
#include "libdune/vm.h"

namespace dune::mm {

class FastMap {
  public:
    static constexpr std::uint64_t kWords = std::uint64_t{1} << (47 - BIG_PGSHIFT);
    static constexpr std::size_t kBytes = kWords * sizeof(std::uint64_t);
    /** Before the words: an empty table, for addresses that have none, and the root. */
    static constexpr std::size_t kHeader = DUNE_LEAF_MAP_EMPTY;
    static constexpr std::size_t kReserve = kHeader + kBytes;

    /** memory: kReserve bytes, reserved. If Linux refuses memory for it, there is no map. */
    void init(char* memory, const Backing& os) noexcept;
    void reset() noexcept;

    /** Under the lock of root: remember the table that maps the 2 MiB around va. */
    void set(const ptent_t* root, std::uintptr_t va, ptent_t* table) noexcept;
    /** Under the lock of root: forget it. */
    void clear(const ptent_t* root, std::uintptr_t va) noexcept;
    /** The root goes away; all its tables were cleared. */
    void drop(const ptent_t* root) noexcept;

    /** Under the lock of root: is the table that maps the 2 MiB around va in the map? */
    bool knows(const ptent_t* root, std::uintptr_t va) const noexcept {
        const std::uint64_t number = va >> BIG_PGSHIFT;
        const std::uint64_t* const base = dune_leaf_map;
        return number < kWords && base[-1] == reinterpret_cast<std::uint64_t>(root) &&
               base[number] != 0;
    }

    /**
     * The entry of the page numbered `vpn` (va >> 12), whose vpn >> 9 is below kWords: null if
     * root is not the map's, an entry that is 0 if no table is known.
     */
    ptent_t* entry(const ptent_t* root, std::uint64_t vpn) const noexcept {
        std::uint64_t* const base = __atomic_load_n(&dune_leaf_map, __ATOMIC_RELAXED);
        if (__atomic_load_n(&base[-1], __ATOMIC_RELAXED) != reinterpret_cast<std::uint64_t>(root))
            [[unlikely]]
            return nullptr;
        // A word is the distance of the table from the empty one, so 0 finds that.
        const std::uint64_t word = __atomic_load_n(&base[vpn >> NPTBITS], __ATOMIC_ACQUIRE);
        char* const table = reinterpret_cast<char*>(base) + word - kHeader;
        ptent_t* const slot = reinterpret_cast<ptent_t*>(table) + (vpn & PDXMASK);
        if (slot == nullptr)
            __builtin_unreachable();  // spares the callers' check a comparison
        return slot;
    }
};

inline FastMap process_fastmap;

inline FastMap& fastmap() noexcept {
    return process_fastmap;
}

}  // namespace dune::mm
