// SPDX-License-Identifier: MIT
/** @file Structures that the CPU reads. */
#pragma once

#include <cstdint>

namespace dune::rt {

/** The operand of LGDT and LIDT. */
struct [[gnu::packed]] TablePointer {
    std::uint16_t limit;
    std::uint64_t base;
};

/** A 64-bit task-state segment (SDM vol. 3, figure 8-11). */
struct [[gnu::packed]] TaskState {
    std::uint32_t reserved0;
    std::uint64_t rsp[3];  ///< stacks for ring 0 to 2
    std::uint64_t reserved1;
    std::uint64_t ist[7];  ///< interrupt stack table: IST n is ist[n - 1]
    std::uint64_t reserved2;
    std::uint16_t reserved3;
    std::uint16_t io_map;  ///< offset of the I/O permission map
};

}  // namespace dune::rt
