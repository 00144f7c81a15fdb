// SPDX-License-Identifier: MIT
//
// The program's part of the address space.

#ifndef DUNE_APPS_SANDBOX_MONITOR_MEMORY_H
#define DUNE_APPS_SANDBOX_MONITOR_MEMORY_H

#include <cstdint>

namespace dune::sandbox {

// Sets up an empty address space for a program. `map_top`: mappings go below it.
void prepare_memory(uint64_t map_top);

// mmap(2) as the program means it: an address that Linux would choose is chosen here, in the
// program's part. Context: host mode, trap.
long map_for_program(uint64_t addr, uint64_t length, uint64_t prot, uint64_t flags, uint64_t fd,
                     uint64_t offset);

// A free range of the program's part near the top, not yet mapped, or 0. process.memory_lock is
// held.
uint64_t find_range(uint64_t length, uint64_t align);

}  // namespace dune::sandbox

#endif
