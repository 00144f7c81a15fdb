// SPDX-License-Identifier: MIT
//
// Memory that goes bad: machine checks that the emulator raises
// (scripts/machine_lib/bochs/hostio.h).

#ifndef DUNE_TESTS_VM_COMMON_BAD_MEMORY_H
#define DUNE_TESTS_VM_COMMON_BAD_MEMORY_H

#include <cstdint>

namespace dune::vmtest {

// Where a CPU has to be to meet it, in the emulator's numbers.
enum class Where : uint32_t {
    kNowhere = 0,
    kGuestRing0 = 1,
    kGuestRing3 = 2,
    kProcess = 3,  // user mode of the process that asked for it
    kVmEntry = 4,  // the next one, which fails
};

// Gives this process and its children the ports. Null if it can, or why it can't. Root.
const char* open_bad_memory();

// The page frame of this process' memory; 0 if there is none. Root.
uint32_t frame_of(const void* address);

// From now on a load that the CPU does there may meet a bad page. Not in the guest, which has no
// ports; for kProcess on that very CPU.
void go_bad(uint32_t frame, Where where, int cpu);

// Whether that has not been met yet.
bool is_still_to_be_met();

// Loads, anywhere; until the page is known to be bad, or much longer than that takes.
void read_on(const char* page);

}  // namespace dune::vmtest

#endif
