// SPDX-License-Identifier: MIT
/**
 * @file
 * The pages that were freed last: a stack without a lock, for allocation and freeing in a few
 * instructions.
 *
 * One word holds the number of the top page, how many there are, and a version that changes
 * each time, so that an exchange that was overtaken (by another thread or by a handler that
 * interrupted this one) is seen. Pages of the stack have no references.
 */
#pragma once

#include <cstdint>

#include "libdune/page.h"
#include "pool.h"

namespace dune::mm {

class HotPages {
  public:
    static constexpr std::uint64_t kMax = 64;

    /** A page, or null if there is none. pages: the pool's array. */
    page* pop(page* pages) noexcept {
        std::uint64_t old = __atomic_load_n(&top_, __ATOMIC_ACQUIRE);
        for (;;) {
            const std::uint64_t number = old & kNumber;
            if (number == 0) [[unlikely]]
                return nullptr;
            page* const pg = &pages[number - 1];
            // If somebody else takes the page now, this is no number: the exchange fails.
            const std::uint64_t next = __atomic_load_n(&pg->next, __ATOMIC_RELAXED);
            if (exchange(old, ((old & ~kNumber) + kVersion - kCount) | next)) [[likely]]
                return pg;
        }
    }

    /** Put in a page without references; false if there are enough. */
    bool push(const page* pages, page* pg) noexcept {
        const auto number = static_cast<std::uint64_t>(pg - pages) + 1;
        std::uint64_t old = __atomic_load_n(&top_, __ATOMIC_RELAXED);
        do {
            if ((old & kCounts) >= kMax * kCount) [[unlikely]]
                return false;
            set_next(pg, static_cast<std::uint32_t>(old & kNumber));
        } while (!exchange(old, ((old & ~kNumber) + kVersion + kCount) | number));
        return true;
    }

    std::size_t size() const noexcept {
        return (__atomic_load_n(&top_, __ATOMIC_RELAXED) & kCounts) / kCount;
    }

  private:
    // The word: version (32 bits), count (11), number of the top page (21).
    static constexpr std::uint64_t kCount = 1ULL << 21;
    static constexpr std::uint64_t kNumber = kCount - 1;
    static constexpr std::uint64_t kVersion = 1ULL << 32;
    static constexpr std::uint64_t kCounts = kVersion - kCount;
    static_assert(MAX_PAGES < kCount);

    bool exchange(std::uint64_t& old, std::uint64_t to) noexcept {
        return __atomic_compare_exchange_n(&top_, &old, to, true, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }

    std::uint64_t top_ = 0;
};

}  // namespace dune::mm
