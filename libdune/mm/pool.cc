// SPDX-License-Identifier: MIT
#include "pool.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "backing.h"
#include "fastmap.h"
#include "hotpages.h"
#include "slots.h"

using namespace dune::mm;

physaddr_t dune_pagebase = 0;
char* dune_pagebase_va = nullptr;

namespace dune::mm {
namespace {

constexpr std::size_t kChunkBytes = kPagesPerChunk * kPageSize;
constexpr std::uint32_t kChunks = MAX_PAGES / kPagesPerChunk;
constexpr std::size_t kRangeBytes = kPoolBytes + FastMap::kReserve;

page page_array[MAX_PAGES];

struct Chunk {
    std::uint32_t free;   // index + 1 of the page freed last
    std::uint16_t used;   // pages handed out
    std::uint16_t fresh;  // first page that was never handed out: it and those after are zero
    std::uint32_t next;   // of the list of chunks with free pages: number + 1
    std::uint32_t prev;
    bool committed;
};

// Everything below is under the lock, except that `committed` is also read without it.
constinit SpinLock lock;
Chunk chunks[kChunks];
std::uint32_t partial = 0;  // the chunk to take pages from: number + 1
std::uint32_t spare = 0;    // chunks of that list which are empty
std::uint32_t lowest = 0;   // no chunk below it is uncommitted
std::size_t used = 0;
std::size_t committed_chunks = 0;
std::size_t limit = MAX_PAGES;

constinit HotPages hot;  // without the lock; counted as used above

char* chunk_va(std::uint32_t number) noexcept {
    return dune_pagebase_va + number * kChunkBytes;
}

void link_partial(std::uint32_t number) noexcept {
    Chunk& chunk = chunks[number];
    chunk.prev = 0;
    chunk.next = partial;
    if (partial != 0)
        chunks[partial - 1].prev = number + 1;
    partial = number + 1;
}

void unlink_partial(std::uint32_t number) noexcept {
    const Chunk& chunk = chunks[number];
    if (chunk.prev != 0)
        chunks[chunk.prev - 1].next = chunk.next;
    else
        partial = chunk.next;
    if (chunk.next != 0)
        chunks[chunk.next - 1].prev = chunk.prev;
}

Result<void> init_locked() noexcept {
    if (dune_pagebase_va != nullptr)
        return {};
    const Backing& os = backing();
    void* const va =
        os.reserve(reinterpret_cast<void*>(DUNE_PAGEBASE_DEFAULT), kRangeBytes, SlotMap::kSize);
    if (va == nullptr)
        return Error(-ENOMEM);
    const Result<physaddr_t> pa = os.bind(va, kRangeBytes);
    if (!pa) {
        os.unreserve(va, kRangeBytes);
        return pa.error();
    }
    dune_pagebase_va = static_cast<char*>(va);
    dune_pagebase = *pa;
    fastmap().init(dune_pagebase_va + kPoolBytes, os);
    return {};
}

// The lowest chunk without memory gets some, and becomes number `*number`.
int commit_chunk(std::uint32_t* number) noexcept {
    if (!init_locked())
        return -ENOMEM;
    while (lowest < kChunks && chunks[lowest].committed)
        ++lowest;
    if (lowest == kChunks || backing().commit(chunk_va(lowest), kChunkBytes) != 0)
        return -ENOMEM;
    chunks[lowest] =
        Chunk{.free = 0, .used = 0, .fresh = 0, .next = 0, .prev = 0, .committed = true};
    ++committed_chunks;
    *number = lowest;
    return 0;
}

void decommit_chunk(std::uint32_t number) noexcept {
    __atomic_store_n(&chunks[number].committed, false, __ATOMIC_RELEASE);
    backing().decommit(chunk_va(number), kChunkBytes);
    lowest = std::min(lowest, number);
    --committed_chunks;
}

[[gnu::noinline, gnu::cold]] int grow() noexcept {
    std::uint32_t number;
    if (commit_chunk(&number) != 0)
        return -ENOMEM;
    link_partial(number);
    ++spare;
    return 0;
}

inline void free_locked(page* pg) noexcept {
    const auto index = static_cast<std::uint32_t>(pg - page_array);
    const std::uint32_t number = index / kPagesPerChunk;
    Chunk& chunk = chunks[number];
    __atomic_store_n(&pg->ref, 0, __ATOMIC_RELAXED);
    set_next(pg, chunk.free);
    chunk.free = index + 1;
    --used;
    if (chunk.used-- == kPagesPerChunk) [[unlikely]]
        link_partial(number);
    if (chunk.used != 0) [[likely]]
        return;
    if (spare == 0) {
        ++spare;
        return;
    }
    unlink_partial(number);
    decommit_chunk(number);
}

void drain_hot() noexcept {
    while (page* const pg = hot.pop(page_array))
        free_locked(pg);
}

/** Is there a page to take? */
[[gnu::noinline, gnu::cold]] bool make_room() noexcept {
    drain_hot();
    return used < limit && (partial != 0 || grow() == 0);
}

inline page* alloc_locked(bool* zeroed) noexcept {
    if ((used >= limit || partial == 0) && !make_room()) [[unlikely]]
        return nullptr;
    const std::uint32_t number = partial - 1;
    Chunk& chunk = chunks[number];
    page* pg;
    *zeroed = chunk.free == 0;
    if (chunk.free != 0) {
        pg = &page_array[chunk.free - 1];
        chunk.free = pg->next;
    } else {
        pg = &page_array[number * kPagesPerChunk + chunk.fresh++];
    }
    if (chunk.used++ == 0)
        --spare;
    if (chunk.used == kPagesPerChunk) [[unlikely]]
        unlink_partial(number);
    ++used;
    __atomic_store_n(&pg->ref, 1, __ATOMIC_RELAXED);
    return pg;
}

[[gnu::noinline]] page* alloc_cold() noexcept {
    bool zeroed = false;
    const SpinGuard guard(lock);
    return alloc_locked(&zeroed);
}

[[gnu::noinline]] void release_cold(page* pg) noexcept {
    const SpinGuard guard(lock);
    drain_hot();
    free_locked(pg);
}

[[noreturn, gnu::noinline]] void not_in_use(const page* pg) noexcept {
    fatal("a page that is not in use was put back to the pool",
          reinterpret_cast<std::uintptr_t>(pg));
}

bool in_pool(const page* pg) noexcept {
    const auto offset =
        reinterpret_cast<std::uintptr_t>(pg) - reinterpret_cast<std::uintptr_t>(page_array);
    return offset < sizeof(page_array) && offset % sizeof(page) == 0 &&
           __atomic_load_n(&chunks[offset / sizeof(page) / kPagesPerChunk].committed,
                           __ATOMIC_ACQUIRE);
}

}  // namespace

Result<void> pool_init() noexcept {
    const SpinGuard guard(lock);
    return init_locked();
}

void pool_destroy() noexcept {
    const SpinGuard guard(lock);
    drain_hot();
    if (used != 0)
        fatal("the page pool is destroyed while pages are in use", used);
    if (dune_pagebase_va == nullptr)
        return;
    fastmap().reset();
    backing().unreserve(dune_pagebase_va, kRangeBytes);
    dune_pagebase_va = nullptr;
    dune_pagebase = 0;
    std::memset(chunks, 0, sizeof(chunks));
    partial = spare = lowest = 0;
    committed_chunks = 0;
    limit = MAX_PAGES;
}

void* pool_range(std::size_t* len) noexcept {
    *len = dune_pagebase_va == nullptr ? 0 : kRangeBytes;
    return dune_pagebase_va;
}

PoolStats pool_stats() noexcept {
    const SpinGuard guard(lock);
    return {
        .used = used - hot.size(), .committed = committed_chunks * kPagesPerChunk, .limit = limit};
}

std::size_t pool_set_limit(std::size_t pages) noexcept {
    const SpinGuard guard(lock);
    const std::size_t old = limit;
    limit = std::min<std::size_t>(pages, MAX_PAGES);
    return old;
}

page* page_alloc_zeroed() noexcept {
    page* pg;
    bool zeroed = false;
    {
        const SpinGuard guard(lock);
        pg = alloc_locked(&zeroed);
    }
    if (pg != nullptr && !zeroed)
        std::memset(dune_page2va(pg), 0, kPageSize);
    return pg;
}

page* page_alloc_big() noexcept {
    std::uint32_t number;
    const SpinGuard guard(lock);
    drain_hot();
    if (limit - std::min(used, limit) < kPagesPerChunk || commit_chunk(&number) != 0)
        return nullptr;
    Chunk& chunk = chunks[number];
    chunk.used = chunk.fresh = kPagesPerChunk;
    used += kPagesPerChunk;
    page* const first = &page_array[number * kPagesPerChunk];
    for (std::size_t i = 0; i < kPagesPerChunk; ++i)
        __atomic_store_n(&first[i].ref, 1, __ATOMIC_RELAXED);
    return first;
}

bool page_is_live(const page* pg) noexcept {
    return in_pool(pg) && __atomic_load_n(&pg->ref, __ATOMIC_RELAXED) != 0;
}

void PageList::release() noexcept {
    if (head_ == 0)
        return;
    const SpinGuard guard(lock);
    while (!empty())
        free_locked(pop());
}

int PageList::fill(std::size_t n, bool zeroed) noexcept {
    constexpr std::size_t kBatch = 64;  // pages for which interrupts stay masked
    while (n != 0) {
        std::uint64_t dirty = 0;  // bit i: the i-th page of the batch is to be cleared
        page* batch[kBatch];
        std::size_t got = 0;
        {
            const SpinGuard guard(lock);
            for (; got < std::min(n, kBatch); ++got) {
                bool clean = false;
                batch[got] = alloc_locked(&clean);
                if (batch[got] == nullptr)
                    break;
                dirty |= std::uint64_t{!clean} << got;
            }
        }
        for (std::size_t i = 0; i < got; ++i) {
            if (zeroed && (dirty >> i & 1) != 0)
                std::memset(dune_page2va(batch[i]), 0, kPageSize);
            append(batch[i]);
        }
        if (got < std::min(n, kBatch)) {
            release();
            return -ENOMEM;
        }
        n -= got;
    }
    return 0;
}

SpinLock& pool_lock() noexcept {
    return lock;
}

}  // namespace dune::mm

page* dune_pages = page_array;

page* dune_page_alloc(void) {
    if (page* const pg = hot.pop(page_array)) [[likely]] {
        __atomic_store_n(&pg->ref, 1, __ATOMIC_RELAXED);
        return pg;
    }
    return alloc_cold();
}

void dune_page_release(page* pg) {
    // The count tells a page that was in use: of any other it went below 0.
    if (static_cast<std::size_t>(pg - page_array) >= MAX_PAGES ||
        __atomic_load_n(&pg->ref, __ATOMIC_RELAXED) != 0) [[unlikely]]
        not_in_use(pg);
    if (!hot.push(page_array, pg)) [[unlikely]]
        release_cold(pg);
}

void dune_page_free(page* pg) {
    std::uint32_t one = 1;
    if (!in_pool(pg) ||
        !__atomic_compare_exchange_n(&pg->ref, &one, 0U, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        fatal(
            "dune_page_free of something that is no page of the pool, free already "
            "or still referred to by others",
            reinterpret_cast<std::uintptr_t>(pg));
    dune_page_release(pg);
}

bool dune_page_isfrompool(physaddr_t pa) {
    const physaddr_t offset = pa - dune_pagebase;
    return offset < kPoolBytes && in_pool(&page_array[offset >> PGSHIFT]);
}

void dune_page_stats(void) {
    const PoolStats stats = pool_stats();
    char line[160];
    const int len =
        snprintf(line, sizeof(line),
                 "dune: page pool: %zu pages in use, %zu free, %zu held from Linux, "
                 "at most %zu\n",
                 stats.used, stats.committed - stats.used, stats.committed, stats.limit);
    if (len > 0 && write(STDOUT_FILENO, line, static_cast<std::size_t>(len)) < 0) {
        // Nobody reads it.
    }
}
