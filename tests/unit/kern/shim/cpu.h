/* SPDX-License-Identifier: MIT */
/*
 * What kern/vmx/caps.c asks of the CPU and of the kernel. Values of bits and MSRs are the SDM's
 * (25.6 to 25.8, appendix A), typed anew.
 */
#ifndef DUNE_TESTS_UNIT_KERN_SHIM_CPU_H
#define DUNE_TESTS_UNIT_KERN_SHIM_CPU_H

#define __KERNEL_DS 0x18
#define VMX_EPTP_MT_WB 6
#define VMX_EPTP_PWL_4 (3 << 3)
#define VMX_EPTP_AD_ENABLE_BIT BIT_ULL(6)
#define X86_CR4_FRED BIT_ULL(32)

enum {
    MSR_IA32_VMX_BASIC = 0x480,
    MSR_IA32_VMX_PINBASED_CTLS,
    MSR_IA32_VMX_PROCBASED_CTLS,
    MSR_IA32_VMX_EXIT_CTLS,
    MSR_IA32_VMX_ENTRY_CTLS,
    MSR_IA32_VMX_CR0_FIXED0 = 0x486,
    MSR_IA32_VMX_CR0_FIXED1,
    MSR_IA32_VMX_CR4_FIXED0,
    MSR_IA32_VMX_CR4_FIXED1,
    MSR_IA32_VMX_PROCBASED_CTLS2 = 0x48b,
    MSR_IA32_VMX_EPT_VPID_CAP,
    MSR_IA32_VMX_TRUE_PINBASED_CTLS,
};

#define MSR_IA32_ARCH_CAPABILITIES 0x10a
#define ARCH_CAP_MDS_NO BIT(5)
#define ARCH_CAP_FB_CLEAR BIT(17)
#define PIN_BASED_EXT_INTR_MASK BIT(0)
#define PIN_BASED_NMI_EXITING BIT(3)
#define CPU_BASED_HLT_EXITING BIT(7)
#define CPU_BASED_INVLPG_EXITING BIT(9)
#define CPU_BASED_MWAIT_EXITING BIT(10)
#define CPU_BASED_RDPMC_EXITING BIT(11)
#define CPU_BASED_CR3_LOAD_EXITING BIT(15)
#define CPU_BASED_CR3_STORE_EXITING BIT(16)
#define CPU_BASED_CR8_LOAD_EXITING BIT(19)
#define CPU_BASED_CR8_STORE_EXITING BIT(20)
#define CPU_BASED_MOV_DR_EXITING BIT(23)
#define CPU_BASED_UNCOND_IO_EXITING BIT(24)
#define CPU_BASED_USE_MSR_BITMAPS BIT(28)
#define CPU_BASED_MONITOR_EXITING BIT(29)
#define CPU_BASED_ACTIVATE_SECONDARY_CONTROLS BIT(31)
#define SECONDARY_EXEC_ENABLE_EPT BIT(1)
#define SECONDARY_EXEC_ENABLE_RDTSCP BIT(3)
#define SECONDARY_EXEC_ENABLE_VPID BIT(5)
#define SECONDARY_EXEC_WBINVD_EXITING BIT(6)
#define SECONDARY_EXEC_ENCLS_EXITING BIT(15)
#define SECONDARY_EXEC_UNRESTRICTED_GUEST BIT(7)
#define SECONDARY_EXEC_ENABLE_INVPCID BIT(12)
#define VM_EXIT_SAVE_DEBUG_CONTROLS BIT(2)
#define VM_EXIT_HOST_ADDR_SPACE_SIZE BIT(9)
#define VM_EXIT_ACK_INTR_ON_EXIT BIT(15)
#define VM_ENTRY_LOAD_DEBUG_CONTROLS BIT(2)
#define VM_ENTRY_IA32E_MODE BIT(9)
#define VMX_EPT_PAGE_WALK_4_BIT BIT(6)
#define VMX_EPTP_WB_BIT BIT(14)
#define VMX_EPT_INVEPT_BIT BIT(20)
#define VMX_EPT_AD_BIT BIT(21)
#define VMX_EPT_EXTENT_CONTEXT_BIT BIT(25)

/* Features, bugs and what the command line says, as bits of shim_cpu.has. */
enum {
    X86_FEATURE_VMX,
    X86_FEATURE_FLUSH_L1D,
    X86_FEATURE_MD_CLEAR,
    X86_FEATURE_KERNEL_IBRS,
    X86_BUG_L1TF,
    X86_BUG_MDS,
    X86_BUG_TAA,
    X86_BUG_MMIO_STALE_DATA,
    X86_BUG_RFDS,
    X86_BUG_ITLB_MULTIHIT,
    X86_BUG_BHI,
    SHIM_MITIGATIONS_OFF,
    SHIM_SMT,
};
#define X86_BUG_RFDS X86_BUG_RFDS
#define X86_BUG_BHI X86_BUG_BHI

struct shim_cpu {
    u64 cr4;
    u64 msrs[17]; /* from MSR_IA32_VMX_BASIC on */
    u64 arch_capabilities;
    unsigned has;
    char log[512];
};
extern struct shim_cpu shim_cpu;

int shim_rdmsr(u32 msr, u64* val);
__attribute__((format(printf, 1, 2))) void shim_log(const char* format, ...);

#define rdmsrl_safe(msr, p) shim_rdmsr(msr, p)
#define boot_cpu_has(bit) (shim_cpu.has >> (bit)&1)
#define boot_cpu_has_bug(bit) boot_cpu_has(bit)
#define cpu_mitigations_off() boot_cpu_has(SHIM_MITIGATIONS_OFF)
#define sched_smt_active() boot_cpu_has(SHIM_SMT)
#define __read_cr4() shim_cpu.cr4
#define pr_err(...) shim_log(__VA_ARGS__)
#define pr_warn(...) shim_log(__VA_ARGS__)

#endif
