// SPDX-License-Identifier: MIT
//
// The module's look at the CPU (kern/vmx/caps.c) as a library of user space, over a CPU that the
// test makes.

#ifndef DUNE_TESTS_UNIT_KERN_CAPS_H
#define DUNE_TESTS_UNIT_KERN_CAPS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum caps_has {
    CAPS_VMX,
    CAPS_FLUSH_L1D,
    CAPS_MD_CLEAR,
    CAPS_IBRS,
    CAPS_L1TF,
    CAPS_MDS,
    CAPS_TAA,
    CAPS_MMIO_STALE_DATA,
    CAPS_RFDS,
    CAPS_ITLB_MULTIHIT,
    CAPS_BHI,
    CAPS_MITIGATIONS_OFF,
    CAPS_SMT,
};

// A CPU that can do everything, may leave each control off, and has no bugs.
void caps_start(void);
void caps_set_msr(uint32_t msr, uint64_t value);
uint64_t caps_msr(uint32_t msr);
void caps_set_cr4(uint64_t value);
void caps_set(enum caps_has what, bool on);

// vmx_caps_init(): 0 or -errno; what it said is in caps_log().
int caps_init(bool allow_unsafe);
const char* caps_log(void);

// What it chose.
uint32_t caps_pin(void), caps_proc(void), caps_proc2(void), caps_exit(void), caps_entry(void);
uint64_t caps_eptp_flags(void);
uint32_t caps_mitigations(void);
bool caps_safe_entry(void);
bool caps_small_code(void);

#ifdef __cplusplus
}
#endif

#endif
