// SPDX-License-Identifier: MIT
/**
 * @file
 * Memory at the same address in every run, away from all else.
 */
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../measure.h"

namespace bench {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kBigPage = std::size_t{2} << 20;
inline constexpr std::uintptr_t kArena = std::uintptr_t{0x500} << 32;

/** mmap() at kArena + offset. */
inline char* arena(Measure& measure, std::size_t size, std::size_t offset = 0,
                   int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1) {
    void* const memory = mmap(reinterpret_cast<void*>(kArena + offset), size,
                              PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, 0);
    if (memory == MAP_FAILED)
        measure.fail("cannot map %zu MiB: %s", size >> 20, std::strerror(errno));
    return static_cast<char*>(memory);
}

/** A fixed sequence of pseudo-random numbers (Knuth's MMIX generator). */
class Random {
  public:
    std::uint32_t below(std::uint32_t limit) noexcept {
        state_ = state_ * 6364136223846793005U + 1442695040888963407U;
        return static_cast<std::uint32_t>((state_ >> 32) * limit >> 32);
    }

  private:
    std::uint64_t state_ = 2012;
};

}  // namespace bench
