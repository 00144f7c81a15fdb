// SPDX-License-Identifier: MIT
/**
 * @file
 * Typed page-table entries (SDM vol. 3, "4-Level Paging").
 */
#pragma once

#include <cstdint>

#include "libdune/mmu.h"
#include "libdune/vm.h"

namespace dune {

/** Bits of an entry. Combine them with | & ~; has() and any() look at them. */
enum class PteFlags : std::uint64_t {
    None = 0,
    Present = PTE_P,
    Writable = PTE_W,
    User = PTE_U,
    WriteThrough = PTE_PWT,
    CacheDisable = PTE_PCD,
    Accessed = PTE_A,
    Dirty = PTE_D,
    Large = PTE_PS,
    Global = PTE_G,
    User1 = PTE_USR1,
    User2 = PTE_USR2,
    User3 = PTE_USR3,
    PoolPage = PTE_POOL,   ///< holds a reference to a page of the pool; libdune's
    Exclusive = PTE_EXCL,  ///< no clone shares the page; libdune's
    CopyOnWrite = PTE_COW,
    NoExecute = PTE_NX,
};

/** The flags as bits of an entry. */
constexpr std::uint64_t bits(PteFlags flags) noexcept {
    return static_cast<std::uint64_t>(flags);
}
/** Flags of either. */
constexpr PteFlags operator|(PteFlags a, PteFlags b) noexcept {
    return static_cast<PteFlags>(bits(a) | bits(b));
}
/** Flags of both. */
constexpr PteFlags operator&(PteFlags a, PteFlags b) noexcept {
    return static_cast<PteFlags>(bits(a) & bits(b));
}
/** All other bits. */
constexpr PteFlags operator~(PteFlags a) noexcept {
    return static_cast<PteFlags>(~bits(a));
}
/** Add flags. */
constexpr PteFlags& operator|=(PteFlags& a, PteFlags b) noexcept {
    return a = a | b;
}
/** Keep flags. */
constexpr PteFlags& operator&=(PteFlags& a, PteFlags b) noexcept {
    return a = a & b;
}
/** Is any of them set? */
constexpr bool any(PteFlags flags) noexcept {
    return bits(flags) != 0;
}

/** What may be done with memory: PERM_* as a type. */
enum class Perm : int {
    None = PERM_NONE,
    Read = PERM_R,
    Write = PERM_W,
    Execute = PERM_X,
    User = PERM_U,
    Uncached = PERM_UC,
    CopyOnWrite = PERM_COW,
    User1 = PERM_USR1,
    User2 = PERM_USR2,
    User3 = PERM_USR3,
    ReadWrite = PERM_R | PERM_W,
    ReadExecute = PERM_R | PERM_X,
};

/** What either allows. */
constexpr Perm operator|(Perm a, Perm b) noexcept {
    return static_cast<Perm>(static_cast<int>(a) | static_cast<int>(b));
}
/** What both allow. */
constexpr Perm operator&(Perm a, Perm b) noexcept {
    return static_cast<Perm>(static_cast<int>(a) & static_cast<int>(b));
}

/** Sizes of pages, in bytes. */
enum class PageSize : std::uint64_t {
    Normal = std::uint64_t{1} << PGSHIFT,
    Big = std::uint64_t{1} << BIG_PGSHIFT,
    Big1G = std::uint64_t{1} << BIG_1GB_PGSHIFT,
};

/** A size as a number of bytes. */
constexpr std::uint64_t bytes(PageSize size) noexcept {
    return static_cast<std::uint64_t>(size);
}

/**
 * A leaf entry in the tables. Reads and changes are atomic, as the CPU sets Accessed and Dirty
 * at any time. After a change that takes rights away, flush the TLB (dune_flush_tlb_one).
 *
 * Context: any; valid until the tables it stands in are freed.
 */
class PteRef {
  public:
    /** The leaf entry at slot, which maps a page of that size. */
    PteRef(ptent_t* slot, PageSize size) noexcept : slot_(slot), size_(size) {}

    /** The entry as it is now. */
    ptent_t raw() const noexcept { return __atomic_load_n(slot_, __ATOMIC_RELAXED); }
    /** Its flags, without the address. */
    PteFlags flags() const noexcept { return static_cast<PteFlags>(PTE_FLAGS(raw())); }
    /** Are all of these flags set? */
    bool has(PteFlags wanted) const noexcept { return (flags() & wanted) == wanted; }
    /** Guest-physical address of the page. */
    physaddr_t address() const noexcept { return PTE_ADDR(raw()) & ~(bytes(size_) - 1); }
    /** Size of the page. */
    PageSize size() const noexcept { return size_; }

    /** Set flags. @return the flags before */
    PteFlags set(PteFlags flags) noexcept {
        return static_cast<PteFlags>(
            PTE_FLAGS(__atomic_fetch_or(slot_, bits(flags) & ~PTE_ADDR_MASK, __ATOMIC_ACQ_REL)));
    }
    /** Clear flags. @return the flags before */
    PteFlags clear(PteFlags flags) noexcept {
        return static_cast<PteFlags>(PTE_FLAGS(
            __atomic_fetch_and(slot_, ~(bits(flags) & ~PTE_ADDR_MASK), __ATOMIC_ACQ_REL)));
    }
    /** Clear Accessed or Dirty and say whether it was set. */
    bool test_and_clear(PteFlags flag) noexcept { return any(clear(flag) & flag); }

  private:
    ptent_t* slot_;
    PageSize size_;
};

static_assert(sizeof(PteFlags) == sizeof(ptent_t));

}  // namespace dune
