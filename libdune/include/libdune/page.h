/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The page pool: 4 KiB pages with reference counts, for page tables and for
 * memory that page tables give out.
 *
 * The pool is one range of virtual addresses that stands at one range of
 * guest-physical addresses, so that page, virtual and guest-physical address are
 * one subtraction apart. It takes memory from Linux in chunks when it needs them
 * and gives empty chunks back.
 *
 * Context: all functions may be called in host mode, in ring 0 and in a trap
 * handler, from any thread. They take a spin lock with interrupts masked.
 */
#ifndef LIBDUNE_PAGE_H
#define LIBDUNE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "libdune/mmu.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What the pool knows about one of its pages. */
struct page {
    uint32_t ref;  /**< references; 0 while the page is free */
    uint32_t next; /**< number (index + 1) of the next page in a list of the pool */
    uint64_t priv; /**< the library's */
};

/** Pages in the pool's range: the most that can be in use at once. */
#define MAX_PAGES (1UL << 20)

/** The address at which the pool stands if nothing else is there. */
#define DUNE_PAGEBASE_DEFAULT 0x200000000UL

/** First guest-physical address of the pool, page aligned; 0 before the pool exists. */
#define PAGEBASE dune_pagebase

/** What PAGEBASE stands for. */
extern physaddr_t dune_pagebase;
/** First virtual address of the pool. */
extern char* dune_pagebase_va;
/** One entry a page of the pool. */
extern struct page* dune_pages;

/**
 * Take a page out of the pool.
 *
 * The contents are undefined. The caller holds the only reference.
 * @return the page, or NULL if the pool is full or Linux has no memory.
 */
struct page* dune_page_alloc(void);

/**
 * Give back a page whose only reference the caller holds.
 *
 * Freeing a free page, a page with other references or something that is no page
 * of the pool ends the process with a message: going on would corrupt memory.
 */
void dune_page_free(struct page* pg);

/**
 * Give back a page whose count has become 0: what dune_page_put() calls. If the count
 * went below that, the process ends as in dune_page_free().
 */
void dune_page_release(struct page* pg);

/** Print how many pages are in use, free and held from Linux. */
void dune_page_stats(void);

/** Is this guest-physical address in the part of the pool that holds memory? */
bool dune_page_isfrompool(physaddr_t pa);

/** The page at a guest-physical address for which dune_page_isfrompool() holds. */
static inline struct page* dune_pa2page(physaddr_t pa) {
    return &dune_pages[(pa - dune_pagebase) >> PGSHIFT];
}

/** Guest-physical address of a page. */
static inline physaddr_t dune_page2pa(struct page* pg) {
    return dune_pagebase + ((physaddr_t)(pg - dune_pages) << PGSHIFT);
}

/** Virtual address of a page. */
static inline void* dune_page2va(struct page* pg) {
    return dune_pagebase_va + ((uintptr_t)(pg - dune_pages) << PGSHIFT);
}

/** Take one more reference. @return pg */
static inline struct page* dune_page_get(struct page* pg) {
    __atomic_fetch_add(&pg->ref, 1, __ATOMIC_RELAXED);
    return pg;
}

/** Drop a reference; the last one gives the page back to the pool. */
static inline void dune_page_put(struct page* pg) {
    if (__atomic_fetch_sub(&pg->ref, 1, __ATOMIC_ACQ_REL) <= 1)
        dune_page_release(pg);
}

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_PAGE_H */
