// SPDX-License-Identifier: MIT
//
// Puts a program into the (empty) user part of the address space, as Linux' execve does.

#ifndef DUNE_APPS_SANDBOX_LOADER_LOADER_H
#define DUNE_APPS_SANDBOX_LOADER_LOADER_H

#include "loader/program.h"

namespace dune::sandbox {

// Maps kProgramFd and kInterpFd, makes stack and auxiliary vector from `image`, and sets
// thread.frame to the first instruction. `vdso`: ring 3's address of it, or 0. 0 or a negative
// errno. Context: host mode.
long load_program(Thread& thread, const ExecImage& image, uint64_t vdso);

// Bytes for argv, envp and the auxiliary vector at the top of a stack that ends at `top`: what
// load_program() puts there. Exposed for tests.
struct AuxValue {
    uint64_t type, value;
};
struct StackPlan {
    uint64_t sp;        // to start with
    uint64_t strings;   // where image.text goes
    uint64_t random;    // 16 bytes
    uint64_t platform;  // "x86_64"
};
// Writes the stack; every aux entry whose value is kRandomAt, kPlatformAt or kExecFnAt gets that
// address. `top` and what is below must be writable, at least `image.used` + 64 KiB. aux ends with
// AT_NULL.
constexpr uint64_t kRandomAt = ~0ull, kPlatformAt = ~1ull, kExecFnAt = ~2ull;
StackPlan build_stack(uint64_t top, const ExecImage& image, AuxValue* aux, size_t aux_count,
                      const uint8_t (&random)[16]);

}  // namespace dune::sandbox

#endif
