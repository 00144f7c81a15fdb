// SPDX-License-Identifier: MIT

#include "caps.h"

#include <stdarg.h>
#include <stdio.h>

#include "kern/vmx/vmx.h"

struct shim_cpu shim_cpu;

static u64* msr_at(u32 msr) {
    if (msr == MSR_IA32_ARCH_CAPABILITIES)
        return &shim_cpu.arch_capabilities;
    msr -= MSR_IA32_VMX_BASIC;
    return msr < sizeof(shim_cpu.msrs) / sizeof(u64) ? &shim_cpu.msrs[msr] : NULL;
}

int shim_rdmsr(u32 msr, u64* val) {
    if (!msr_at(msr))
        return -EIO;
    *val = *msr_at(msr);
    return 0;
}

void shim_log(const char* format, ...) {
    const size_t used = strlen(shim_cpu.log);
    va_list args;

    va_start(args, format);
    vsnprintf(shim_cpu.log + used, sizeof(shim_cpu.log) - used, format, args);
    va_end(args);
}

void caps_start(void) {
    shim_cpu = (struct shim_cpu){.has = BIT(X86_FEATURE_VMX)};
    for (size_t i = 0; i < sizeof(shim_cpu.msrs) / sizeof(u64); i++)
        shim_cpu.msrs[i] = 0xffffffffull << 32;
    /* SDM A.1: revision, 4 KiB of write-back memory, the true controls. */
    caps_set_msr(MSR_IA32_VMX_BASIC, 0x12 | 4096ull << 32 | 6ull << 50 | 1ull << 55);
    caps_set_msr(MSR_IA32_VMX_EPT_VPID_CAP, ~0ull);
    vmx_config = (struct vmx_config){0};
    vmx_mitigations = 0;
    vmx_use_safe_entry = false;
}

void caps_set_msr(uint32_t msr, uint64_t value) {
    *msr_at(msr) = value;
}

uint64_t caps_msr(uint32_t msr) {
    return *msr_at(msr);
}

void caps_set_cr4(uint64_t value) {
    shim_cpu.cr4 = value;
}

void caps_set(enum caps_has what, bool on) {
    _Static_assert((int)CAPS_MITIGATIONS_OFF == (int)SHIM_MITIGATIONS_OFF, "shim/cpu.h");
    shim_cpu.has = on ? shim_cpu.has | BIT(what) : shim_cpu.has & ~BIT(what);
}

int caps_init(bool allow_unsafe) {
    shim_cpu.log[0] = 0;
    return vmx_caps_init(allow_unsafe);
}

const char* caps_log(void) {
    return shim_cpu.log;
}

uint32_t caps_pin(void) {
    return vmx_config.pin;
}

uint32_t caps_proc(void) {
    return vmx_config.proc;
}

uint32_t caps_proc2(void) {
    return vmx_config.proc2;
}

uint32_t caps_exit(void) {
    return vmx_config.exit;
}

uint32_t caps_entry(void) {
    return vmx_config.entry;
}

uint64_t caps_eptp_flags(void) {
    return vmx_config.eptp_flags;
}

uint32_t caps_mitigations(void) {
    return vmx_mitigations;
}

bool caps_small_code(void) {
    return vmx_config.small_code;
}

bool caps_safe_entry(void) {
    return vmx_use_safe_entry;
}
