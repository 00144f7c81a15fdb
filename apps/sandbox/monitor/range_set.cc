// SPDX-License-Identifier: MIT

#include "monitor/range_set.h"

#include <cstring>

namespace dune::sandbox {

size_t RangeSet::lower_bound(uint64_t address) const {
    size_t low = 0;
    size_t high = count_;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ranges_[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Puts `n` ranges in the place of [first, last).
void RangeSet::replace(size_t first, size_t last, const Range* with, size_t n) {
    memmove(ranges_ + first + n, ranges_ + last, (count_ - last) * sizeof(Range));
    for (size_t i = 0; i < n; i++) {
        ranges_[first + i] = with[i];
    }
    count_ = count_ - (last - first) + n;
}

bool RangeSet::add(uint64_t start, uint64_t end) {
    if (start >= end) {
        return true;
    }
    // Ranges that touch [start, end) are merged into it, also those that only end or begin there.
    const size_t first = lower_bound(start == 0 ? 0 : start - 1);
    size_t last = first;
    Range merged{start, end};
    for (; last < count_ && ranges_[last].start <= end; last++) {
        merged.start = ranges_[last].start < merged.start ? ranges_[last].start : merged.start;
        merged.end = ranges_[last].end > merged.end ? ranges_[last].end : merged.end;
    }
    if (first == last && count_ == capacity_) {
        return false;
    }
    replace(first, last, &merged, 1);
    return true;
}

bool RangeSet::remove(uint64_t start, uint64_t end) {
    if (start >= end) {
        return true;
    }
    const size_t first = lower_bound(start);
    size_t last = first;
    Range rest[2];
    size_t n = 0;
    for (; last < count_ && ranges_[last].start < end; last++) {
        if (ranges_[last].start < start) {
            rest[n++] = {ranges_[last].start, start};
        }
        if (ranges_[last].end > end) {
            rest[n++] = {end, ranges_[last].end};
        }
    }
    if (count_ - (last - first) + n > capacity_) {
        return false;
    }
    replace(first, last, rest, n);
    return true;
}

bool RangeSet::is_free(uint64_t start, uint64_t end) const {
    const size_t i = lower_bound(start);
    return i == count_ || ranges_[i].start >= end;
}

uint64_t RangeSet::find_free(uint64_t length, uint64_t align, uint64_t low, uint64_t high) const {
    if (length == 0 || high < low || length > high - low) {
        return 0;
    }
    size_t i = lower_bound(high);
    if (i < count_ && ranges_[i].start < high) {
        high = ranges_[i].start;
    }
    for (;;) {
        // Free is [end of range i - 1, high).
        const uint64_t floor = i > 0 && ranges_[i - 1].end > low ? ranges_[i - 1].end : low;
        if (high >= floor && high - floor >= length) {
            const uint64_t start = (high - length) & ~(align - 1);
            if (start >= floor) {
                return start;
            }
        }
        if (i == 0 || ranges_[i - 1].start <= low) {
            return 0;
        }
        high = ranges_[--i].start;
    }
}

}  // namespace dune::sandbox
