// SPDX-License-Identifier: MIT
/**
 * @file
 * What the benchmarks count with: RDTSC. In the project's emulator it counts the
 * instructions of a CPU while the others are halted; on hardware it counts reference cycles.
 */
#pragma once

#include <cstdint>

namespace bench {

/**
 * The counter, once everything before is done. Context: any.
 *
 * The emulator keeps the time at the ends of straight code, so that RDTSC would be early by the
 * instructions before it there. A jump ends it: what is read is exact then.
 */
[[gnu::always_inline]] inline std::uint64_t ticks() noexcept {
    std::uint64_t low;
    std::uint64_t high;
    asm volatile("jmp 1f\n1:\tlfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | high << 32;
}

/** What a tick is. */
enum class Unit { Instructions, Cycles };

/** Told by counting a stretch of code of known length: no hardware needs one tick for each. */
Unit unit() noexcept;

/** Ticks a second, on hardware: measured once against CLOCK_MONOTONIC. */
double ticks_per_second() noexcept;

}  // namespace bench
