// SPDX-License-Identifier: MIT
//
// How the address space is divided. The runtime (this program, its heap and stacks, libdune's
// memory) is position-independent, and Linux puts all of it above kUserEnd: executables at 2/3 of
// the address space, mappings and stacks at its top. The sandboxed program gets everything below.
// So "may the program name this address?" is one comparison.

#ifndef DUNE_APPS_SANDBOX_MONITOR_LAYOUT_H
#define DUNE_APPS_SANDBOX_MONITOR_LAYOUT_H

#include <cstddef>
#include <cstdint>

namespace dune::sandbox {

// First address that the program must not name: 64 TiB.
constexpr uint64_t kUserEnd = 1ull << 46;
// Nothing of the program is ever mapped in the last GiB below kUserEnd. What the kernel reads or
// writes upwards from an address below kUserEnd (a string, a structure, an array) meets this gap
// before it could meet the runtime. Ring 3's view of the vDSO lies in it.
constexpr uint64_t kGap = 1ull << 30;
constexpr uint64_t kMapEnd = kUserEnd - kGap;
// Lowest address that the program may map (vm.mmap_min_addr's default).
constexpr uint64_t kMapStart = 0x10000;
constexpr uint64_t kPageSize = 4096;

// True if the bytes [addr, addr + length) are ones that the program may name.
constexpr bool in_user(uint64_t addr, uint64_t length) {
    return addr <= kUserEnd && length <= kUserEnd - addr;
}

// The same for one object that is accessed upwards from its start: see kGap.
constexpr bool starts_in_user(uint64_t addr) {
    return addr < kUserEnd;
}

// True if the program may have mappings in [addr, addr + length).
constexpr bool mappable(uint64_t addr, uint64_t length) {
    return addr >= kMapStart && addr <= kMapEnd && length <= kMapEnd - addr;
}

constexpr uint64_t page_down(uint64_t value) {
    return value & ~(kPageSize - 1);
}
constexpr uint64_t page_up(uint64_t value) {
    return page_down(value + kPageSize - 1);
}

}  // namespace dune::sandbox

#endif
