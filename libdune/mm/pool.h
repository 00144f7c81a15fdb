// SPDX-License-Identifier: MIT
/**
 * @file
 * The page pool behind libdune/page.h: what the rest of the library sees of it.
 *
 * Layout of the pool's range, which is one in virtual and one in guest-physical space:
 *
 *     MAX_PAGES pages | the map of leaf tables (fastmap.h)
 *
 * Pages come in chunks of 2 MiB, so that the nested page tables can map a chunk by one
 * entry. A chunk in use keeps a list of its free pages and a mark up to which it was ever
 * handed out; chunks with free pages are in a list. One empty chunk is kept, others go back.
 * In front of the chunks a few pages that were freed last wait for the next allocation
 * (hotpages.h).
 */
#pragma once

#include <cstddef>
#include <cstdint>

#include "dune/result.h"
#include "libdune/page.h"
#include "spinlock.h"

namespace dune::mm {

inline constexpr std::size_t kPageSize = std::size_t{1} << PGSHIFT;
inline constexpr std::size_t kPagesPerChunk = std::size_t{1} << NPTBITS;
inline constexpr std::size_t kPoolBytes = MAX_PAGES * kPageSize;

struct PoolStats {
    std::size_t used;       ///< pages handed out
    std::size_t committed;  ///< pages held from Linux
    std::size_t limit;      ///< pages that may be handed out
};

/**
 * Reserve the pool's range. Called by the first allocation, too; the runtime calls it early so
 * that the pool stands at its usual address.
 * @return -ENOMEM, or the error of Backing::bind
 */
Result<void> pool_init() noexcept;

/** Drop everything, for tests that put in another Backing: no page may be in use. */
void pool_destroy() noexcept;

/** The whole range, for whoever maps it into page tables. Null and 0 before pool_init(). */
void* pool_range(std::size_t* len) noexcept;

PoolStats pool_stats() noexcept;

/** Hand out no more than that many pages; returns the former limit. */
std::size_t pool_set_limit(std::size_t pages) noexcept;

/** A zeroed page. The caller holds the only reference. Null when out of memory. */
page* page_alloc_zeroed() noexcept;

/** 512 zeroed pages, 2 MiB aligned, each with one reference. Null when out of memory. */
page* page_alloc_big() noexcept;

/** Is it a page of the pool that is in use? */
bool page_is_live(const page* pg) noexcept;

/** Page numbers count from 1, so that 0 is none. Atomic: hotpages.h may look at any page. */
inline void set_next(page* pg, std::uint32_t number) noexcept {
    __atomic_store_n(&pg->next, number, __ATOMIC_RELAXED);
}
inline page* page_at(std::uint32_t index) noexcept {
    return dune_pages + index;
}
inline std::uint32_t page_index(const page* pg) noexcept {
    return static_cast<std::uint32_t>(pg - dune_pages);
}

/** A list of pages through page::next. Who puts a page in holds its only reference. */
class PageList {
  public:
    PageList() = default;
    ~PageList() { release(); }
    PageList(const PageList&) = delete;
    PageList& operator=(const PageList&) = delete;

    void append(page* pg) noexcept {
        const std::uint32_t number = page_index(pg) + 1;
        set_next(pg, 0);
        if (head_ == 0)
            head_ = number;
        else
            set_next(page_at(tail_ - 1), number);
        tail_ = number;
    }
    bool empty() const noexcept { return head_ == 0; }
    /** The page that was put in first. The list may not be empty. */
    page* pop() noexcept {
        page* const pg = page_at(head_ - 1);
        head_ = pg->next;
        return pg;
    }
    /** Give all pages, whose count may be 0 or 1, back to the pool. */
    void release() noexcept;
    /** Put in n pages from the pool, zeroed or not; on failure none. @return 0 or -ENOMEM */
    int fill(std::size_t n, bool zeroed) noexcept;

  private:
    std::uint32_t head_ = 0;  // index + 1, or 0
    std::uint32_t tail_ = 0;  // index + 1, while head_ is not 0
};

/** For fork(): see fork.h. */
SpinLock& pool_lock() noexcept;

}  // namespace dune::mm
