// SPDX-License-Identifier: MIT
/** @file Areas that the entry code saves the vector state in. */
#pragma once

#include <cstddef>
#include <cstdint>

namespace dune::rt {

/** Read CPUID for what follows. Once, in dune_init(). */
void fpu_detect() noexcept;

/** Bytes that the vector state of this machine takes; a multiple of 64. */
std::size_t fpu_area_size() noexcept;

/** Does the CPU have XSAVE, and Linux use it? */
bool have_xsave() noexcept;

/** XSAVEOPT and FSGSBASE are there: the fast form of the entry code can be used. */
bool fast_entry_possible() noexcept;

/** Make an area one that can be saved to, and mark it as free. */
void fpu_area_clear(std::uint8_t* area) noexcept;

}  // namespace dune::rt
