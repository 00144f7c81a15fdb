// SPDX-License-Identifier: MIT
/** @file The interrupt table: which entry code each vector starts at. */
#pragma once

#include <cstdint>

#include "handler_scan.h"
#include "tables.h"

namespace dune::rt {

/** IST numbers; all vectors but #DF use kIstTrap. */
constexpr unsigned kIstTrap = 1;
constexpr unsigned kIstDoubleFault = 2;

/** Fill the table. fast: with the fast form of the entry code. */
void gates_init(bool fast) noexcept;

/** Have page faults save what their handler needs. */
void gate_page_faults(HandlerNeeds needs) noexcept;

/** For LIDT. */
TablePointer idt_pointer() noexcept;
/** For IA32_LSTAR. */
std::uint64_t lstar() noexcept;

}  // namespace dune::rt

extern "C" {
/**
 * Before the first time that ring 3 runs: until then page faults enter without a look at who was
 * interrupted. Preserves vector registers.
 */
void dune_ring3_begins(void) noexcept __attribute__((visibility("hidden")));
}
