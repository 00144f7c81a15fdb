// SPDX-License-Identifier: MIT
#include "clock.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace bench {
namespace {

std::uint64_t thousand_instructions() noexcept {
    std::uint32_t before;
    std::uint32_t after;
    asm volatile(
        "jmp 1f\n1:\trdtsc\n\t"
        "mov %%eax, %0\n\t"
        ".rept 997\n\tnop\n\t.endr\n\t"
        "jmp 2f\n2:\trdtsc"
        : "=&r"(before), "=&a"(after)
        :
        : "rdx");
    return static_cast<std::uint32_t>(after - before);
}

double now() noexcept {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

Unit unit() noexcept {
    static const Unit known = [] {
        // A timer interrupt may fall into one or the other, but not into most.
        std::array<std::uint64_t, 9> counts;
        for (std::uint64_t& count : counts)
            count = thousand_instructions();
        std::sort(counts.begin(), counts.end());
        const bool same = counts[2] == counts[6];
        return same && counts[4] >= 999 && counts[4] <= 1001 ? Unit::Instructions : Unit::Cycles;
    }();
    return known;
}

double ticks_per_second() noexcept {
    static const double known = [] {
        const double from = now();
        const std::uint64_t begin = ticks();
        while (now() - from < 0.05) {
        }
        const std::uint64_t end = ticks();
        return static_cast<double>(end - begin) / (now() - from);
    }();
    return known;
}

}  // namespace bench
