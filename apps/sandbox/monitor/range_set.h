// SPDX-License-Identifier: MIT
//
// Which parts of the address space the program uses, to choose free ones for it: Linux itself would
// put mappings next to the runtime.

#ifndef DUNE_APPS_SANDBOX_MONITOR_RANGE_SET_H
#define DUNE_APPS_SANDBOX_MONITOR_RANGE_SET_H

#include <cstddef>
#include <cstdint>

namespace dune::sandbox {

// A set of disjoint ranges of addresses, sorted, neighbours merged. It never allocates: room for
// the ranges is the caller's. Not locked.
class RangeSet {
  public:
    struct Range {
        uint64_t start;
        uint64_t end;
    };

    RangeSet(Range* room, size_t capacity) : ranges_(room), capacity_(capacity) {}

    // Adds [start, end), or removes it. False, and nothing changed, if there is no room.
    bool add(uint64_t start, uint64_t end);
    bool remove(uint64_t start, uint64_t end);

    // True if no address of [start, end) is in the set.
    bool is_free(uint64_t start, uint64_t end) const;

    // The highest start of `length` free bytes in [low, high) that is a multiple of `align` (a
    // power of 2), or 0.
    uint64_t find_free(uint64_t length, uint64_t align, uint64_t low, uint64_t high) const;

    size_t size() const { return count_; }
    const Range& operator[](size_t i) const { return ranges_[i]; }

  private:
    // Index of the first range that ends after `address`.
    size_t lower_bound(uint64_t address) const;
    void replace(size_t first, size_t last, const Range* with, size_t n);

    Range* ranges_;
    size_t capacity_;
    size_t count_ = 0;
};

}  // namespace dune::sandbox

#endif
