// SPDX-License-Identifier: MIT
/**
 * @file
 * Memory of the process, as Linux has it, in page tables.
 */
#pragma once

#include <cstddef>

#include "libdune/vm.h"

namespace dune::mm {

/**
 * Map [va, va + len) to itself, that is to where the slot map shows it.
 *
 * As dune_vm_map_phys(), slot by slot; with PERM_BIG or PERM_BIG_1GB va and len are multiples of
 * that size.
 * @return also -ENOSPC if guest-physical space is exhausted. If it fails after the first GiB,
 *         what was mapped so far stays.
 */
int map_process_memory(ptent_t* root, void* va, std::size_t len, int perm) noexcept;

}  // namespace dune::mm
