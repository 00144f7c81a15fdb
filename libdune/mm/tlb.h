// SPDX-License-Identifier: MIT
/**
 * @file
 * Invalidation of this CPU's TLB for the current PCID (SDM vol. 3, "Invalidation of TLBs and
 * Paging-Structure Caches"). In host mode there is nothing to invalidate: Linux' page tables
 * are in use there, and dune_enter() starts with an empty TLB.
 */
#pragma once

#include <cstdint>

#include "spinlock.h"

namespace dune::mm {

/** What unit tests are told instead (see Backing). */
extern void (*host_flush_one)(std::uintptr_t va) noexcept;
extern void (*host_flush_all)() noexcept;

inline void flush_tlb_one(std::uintptr_t va) noexcept {
    if (in_ring0()) [[likely]] {
        asm volatile("invlpg (%0)" ::"r"(va) : "memory");
    } else if (host_flush_one != nullptr) {
        host_flush_one(va);
    }
}

/** Everything of the current PCID that is not global. */
inline void flush_tlb_all() noexcept {
    if (in_ring0()) {
        std::uint64_t cr3;
        asm volatile("movq %%cr3, %0\n\tmovq %0, %%cr3" : "=r"(cr3)::"memory");
    } else if (host_flush_all != nullptr) {
        host_flush_all();
    }
}

/**
 * All pages of [first, last]. Above Linux' own ceiling (tlb_single_page_flush_ceiling) one
 * flush of everything is cheaper. It spares global entries: who changes one of those
 * flushes it by itself.
 */
inline void flush_tlb_range(std::uintptr_t first, std::uintptr_t last) noexcept {
    constexpr std::uintptr_t kPage = 4096;
    constexpr std::uintptr_t kCeiling = 33;
    const std::uintptr_t pages = (last - first) / kPage + 1;
    if (pages > kCeiling) {
        flush_tlb_all();
        return;
    }
    for (std::uintptr_t i = 0; i < pages; ++i)
        flush_tlb_one(first + i * kPage);
}

}  // namespace dune::mm
