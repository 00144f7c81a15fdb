// SPDX-License-Identifier: MIT
/** @file dune_vm_mprotect() as page-fault handlers call it, and what it needs for that. */
#pragma once

#include "libdune/vm.h"

extern "C" {
/**
 * dune_vm_mprotect() by a name of this library's alone: what a call of it ends at. It keeps the
 * vector registers, so that handlers for which they were not saved may call it (handler_scan.h).
 */
__attribute__((visibility("hidden"))) int dune_vm_mprotect_keeping_vectors(ptent_t* root, void* va,
                                                                           size_t len, int perm);

/** Call a function and leave the vector registers as they were (keep_vectors.S). */
__attribute__((visibility("hidden"))) int dune_keep_vectors(int (*function)(void*), void* argument);
}
