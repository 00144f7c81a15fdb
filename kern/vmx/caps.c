// SPDX-License-Identifier: GPL-2.0-only
/* What the CPU must have, what it may have, and which bugs ask for something. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/sched/smt.h>
#include <asm/cpufeature.h>

#include "vmx.h"

struct vmx_config vmx_config;
u32 vmx_mitigations;
u16 vmx_verw_selector = __KERNEL_DS;
bool vmx_use_safe_entry;

struct ctl_bit {
	u32 bit;
	const char *name;
};

/* SDM 25.6, 25.7, 25.8: without these, refuse. */
static const struct ctl_bit pin_need[] = {
	{ PIN_BASED_EXT_INTR_MASK, "external-interrupt exiting" },
	{ PIN_BASED_NMI_EXITING, "NMI exiting" },
	{}
};

static const struct ctl_bit proc_need[] = {
	{ CPU_BASED_HLT_EXITING, "HLT exiting" },
	{ CPU_BASED_MWAIT_EXITING, "MWAIT exiting" },
	{ CPU_BASED_MONITOR_EXITING, "MONITOR exiting" },
	{ CPU_BASED_RDPMC_EXITING, "RDPMC exiting" },
	{ CPU_BASED_CR8_LOAD_EXITING, "CR8-load exiting" },
	{ CPU_BASED_CR8_STORE_EXITING, "CR8-store exiting" },
	{ CPU_BASED_MOV_DR_EXITING, "MOV-DR exiting" },
	{ CPU_BASED_UNCOND_IO_EXITING, "unconditional I/O exiting" },
	{ CPU_BASED_USE_MSR_BITMAPS, "MSR bitmaps" },
	{ CPU_BASED_ACTIVATE_SECONDARY_CONTROLS, "secondary controls" },
	{}
};

static const struct ctl_bit proc2_need[] = {
	{ SECONDARY_EXEC_ENABLE_EPT, "EPT" },
	{ SECONDARY_EXEC_WBINVD_EXITING, "WBINVD exiting" },
	{}
};

/* Of use if there. */
static const u32 proc2_want = SECONDARY_EXEC_ENABLE_VPID | SECONDARY_EXEC_ENABLE_RDTSCP |
			      SECONDARY_EXEC_ENABLE_INVPCID | SECONDARY_EXEC_UNRESTRICTED_GUEST |
			      SECONDARY_EXEC_ENCLS_EXITING;

static const struct ctl_bit exit_need[] = {
	{ VM_EXIT_HOST_ADDR_SPACE_SIZE, "64-bit host" },
	{ VM_EXIT_SAVE_DEBUG_CONTROLS, "save debug controls" },
	{}
};

static const struct ctl_bit entry_need[] = {
	{ VM_ENTRY_IA32E_MODE, "IA-32e guest" },
	{ VM_ENTRY_LOAD_DEBUG_CONTROLS, "load debug controls" },
	{}
};

static const struct ctl_bit ept_need[] = {
	{ VMX_EPT_PAGE_WALK_4_BIT, "four-level EPT" },
	{ VMX_EPTP_WB_BIT, "write-back EPT tables" },
	{ VMX_EPT_INVEPT_BIT, "INVEPT" },
	{ VMX_EPT_EXTENT_CONTEXT_BIT, "single-context INVEPT" },
	{}
};

static u64 read_cap(u32 msr)
{
	u64 val;

	return rdmsrl_safe(msr, &val) ? 0 : val;
}

/* Adds up the bits that are needed, or says which of them is not among those that may be. */
static int vmx_need(const char *what, u32 msr, u32 may, const struct ctl_bit *need, u32 *bits)
{
	for (; need->bit; need++) {
		if (!(may & need->bit)) {
			pr_err("this CPU has no %s (%s, MSR %#x): Dune cannot run here\n", need->name,
			       what, msr);
			return -EOPNOTSUPP;
		}
		*bits |= need->bit;
	}
	return 0;
}

/* SDM A.3: low half, bits that must be 1; high half, bits that may be. */
static int vmx_controls(const char *what, u32 msr, const struct ctl_bit *need, u32 want, u32 *out)
{
	u64 cap = read_cap(msr);

	*out = want | (u32)cap;
	if (vmx_need(what, msr, cap >> 32, need, out))
		return -EOPNOTSUPP;
	*out &= cap >> 32;
	return 0;
}

/* A control that must not be forced on: the guest would lose by it, or the host. */
static int vmx_mustnot(u32 controls, u32 bit, const char *what)
{
	if (!(controls & bit))
		return 0;
	pr_err("this CPU forces %s: Dune cannot run here\n", what);
	return -EOPNOTSUPP;
}

static int vmx_caps_controls(void)
{
	struct vmx_config *c = &vmx_config;
	u32 true_ctls = 0;
	int ret;

	/* SDM A.2: four more MSRs, at the same distance each, tell what need not be 1 after all. */
	if (read_cap(MSR_IA32_VMX_BASIC) >> 55 & 1)
		true_ctls = MSR_IA32_VMX_TRUE_PINBASED_CTLS - MSR_IA32_VMX_PINBASED_CTLS;
	ret = vmx_controls("pin-based controls", MSR_IA32_VMX_PINBASED_CTLS + true_ctls, pin_need, 0,
			   &c->pin);
	ret = ret ?: vmx_controls("processor-based controls", MSR_IA32_VMX_PROCBASED_CTLS + true_ctls,
				  proc_need, 0, &c->proc);
	ret = ret ?: vmx_controls("secondary controls", MSR_IA32_VMX_PROCBASED_CTLS2, proc2_need,
				  proc2_want, &c->proc2);
	ret = ret ?: vmx_controls("VM-exit controls", MSR_IA32_VMX_EXIT_CTLS + true_ctls, exit_need, 0,
				  &c->exit);
	ret = ret ?: vmx_controls("VM-entry controls", MSR_IA32_VMX_ENTRY_CTLS + true_ctls, entry_need,
				  0, &c->entry);
	ret = ret ?: vmx_mustnot(c->proc, CPU_BASED_CR3_LOAD_EXITING, "CR3-load exiting");
	ret = ret ?: vmx_mustnot(c->proc, CPU_BASED_CR3_STORE_EXITING, "CR3-store exiting");
	ret = ret ?: vmx_mustnot(c->proc, CPU_BASED_INVLPG_EXITING, "INVLPG exiting");
	return ret ?: vmx_mustnot(c->exit, VM_EXIT_ACK_INTR_ON_EXIT,
				  "acknowledging interrupts on exit");
}

static int vmx_caps_ept(void)
{
	u64 cap = read_cap(MSR_IA32_VMX_EPT_VPID_CAP);
	struct vmx_config *c = &vmx_config;
	u32 bits = 0;

	if (vmx_need("EPT", MSR_IA32_VMX_EPT_VPID_CAP, cap, ept_need, &bits))
		return -EOPNOTSUPP;
	c->ept_ad = cap & VMX_EPT_AD_BIT;
	c->eptp_flags = VMX_EPTP_MT_WB | VMX_EPTP_PWL_4 | (c->ept_ad ? VMX_EPTP_AD_ENABLE_BIT : 0);
	c->vpid = c->proc2 & SECONDARY_EXEC_ENABLE_VPID;
	return 0;
}

/* An open hole is refused, unless the administrator says that it may stay open. */
static int vmx_hole(bool allow_unsafe, const char *what)
{
	if (allow_unsafe) {
		pr_warn("%s: loaded all the same, as allow_unsafe=1 says\n", what);
		return 0;
	}
	pr_err("%s: refused (allow_unsafe=1 would load it all the same)\n", what);
	return -EPERM;
}

static int vmx_caps_bugs(bool allow_unsafe)
{
	u64 arch = read_cap(MSR_IA32_ARCH_CAPABILITIES);
	int ret = 0;

	if (cpu_mitigations_off())
		return 0;
	vmx_use_safe_entry = true;
	/*
	 * A large and a small entry of the ITLB for one address are a machine check. The guest's own
	 * page tables can make both, where EPT lets it have the large one.
	 */
	vmx_config.small_code = boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT);
	if (boot_cpu_has_bug(X86_BUG_L1TF)) {
		if (boot_cpu_has(X86_FEATURE_FLUSH_L1D))
			vmx_mitigations |= VMX_MIT_L1D;
		else
			ret = vmx_hole(allow_unsafe,
				       "this CPU has L1TF, and its microcode cannot flush the L1 data cache");
		/* The cache is the core's, and filled again while the guest runs (CVE-2018-3646). */
		if (sched_smt_active())
			pr_warn("this CPU has L1TF, and SMT is on: guests may read what other threads of their core load\n");
	}
	if (boot_cpu_has_bug(X86_BUG_MDS) || boot_cpu_has_bug(X86_BUG_TAA) ||
	    boot_cpu_has_bug(X86_BUG_MMIO_STALE_DATA) || boot_cpu_has_bug(X86_BUG_RFDS)) {
		/* The L1D flush clears the buffers as well. For MMIO, VERW need not: mmio_select_mitigation(). */
		if (boot_cpu_has(X86_FEATURE_MD_CLEAR) &&
		    (!boot_cpu_has_bug(X86_BUG_MMIO_STALE_DATA) || arch & ARCH_CAP_FB_CLEAR ||
		     (boot_cpu_has(X86_FEATURE_FLUSH_L1D) && !(arch & ARCH_CAP_MDS_NO))))
			vmx_mitigations |= VMX_MIT_VERW;
		else if (!(vmx_mitigations & VMX_MIT_L1D))
			ret = ret ?: vmx_hole(allow_unsafe,
					      "this CPU has MDS, and its microcode cannot clear the buffers");
	}
	if (boot_cpu_has(X86_FEATURE_KERNEL_IBRS))
		vmx_mitigations |= VMX_MIT_IBRS;
#ifdef X86_BUG_BHI
	if (boot_cpu_has_bug(X86_BUG_BHI))
		vmx_mitigations |= VMX_MIT_BHB;
#endif
	return ret;
}

/**
 * vmx_caps_init() - check the CPU and choose the controls
 * @allow_unsafe: load on a CPU whose bugs cannot be guarded against
 *
 * Return: 0; -EOPNOTSUPP or -EPERM with a message that names what is missing.
 */
int __init vmx_caps_init(bool allow_unsafe)
{
	u64 basic = read_cap(MSR_IA32_VMX_BASIC);
	struct vmx_config *c = &vmx_config;
	int ret;

	if (!boot_cpu_has(X86_FEATURE_VMX)) {
		pr_err("this machine has no VT-x: in a virtual machine, turn nested virtualisation on\n");
		return -EOPNOTSUPP;
	}
#ifdef X86_CR4_FRED
	if (__read_cr4() & X86_CR4_FRED) {
		pr_err("this kernel runs with FRED, which Dune does not know yet: boot with fred=off\n");
		return -EOPNOTSUPP;
	}
#endif
	c->revision = basic & 0x7fffffff;
	/* SDM A.1: memory type of VMX regions, 6 is write-back; size at most 4096. */
	if ((basic >> 50 & 15) != 6 || (basic >> 32 & 0x1fff) > PAGE_SIZE) {
		pr_err("this CPU wants VMX regions of a kind that Dune does not have\n");
		return -EOPNOTSUPP;
	}
	ret = vmx_caps_controls();
	ret = ret ?: vmx_caps_ept();
	if (ret)
		return ret;
	c->cr0_fixed0 = read_cap(MSR_IA32_VMX_CR0_FIXED0);
	c->cr0_fixed1 = read_cap(MSR_IA32_VMX_CR0_FIXED1);
	c->cr4_fixed0 = read_cap(MSR_IA32_VMX_CR4_FIXED0);
	c->cr4_fixed1 = read_cap(MSR_IA32_VMX_CR4_FIXED1);
	return vmx_caps_bugs(allow_unsafe);
}
