// SPDX-License-Identifier: GPL-2.0-only
/* MSRs in the guest: some natively (the bitmap), a few emulated, the others #GP. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/msr-index.h>

#include "vmx.h"

static int vmx_msr_slot(u32 msr)
{
	/* They follow one another, in the order of the slots. */
	BUILD_BUG_ON(MSR_SYSCALL_MASK - MSR_STAR != VMX_MSR_FMASK);
	return msr - MSR_STAR < VMX_NR_MSRS ? msr - MSR_STAR : -1;
}

/**
 * vmx_rdmsr() - emulate RDMSR
 * @vmx: the vCPU
 * @msr: which
 * @val: where to put it
 *
 * Context: interrupts off, the vCPU's window open.
 *
 * Return: false for #GP.
 */
bool vmx_rdmsr(struct vmx_vcpu *vmx, u32 msr, u64 *val)
{
	int slot = vmx_msr_slot(msr);

	if (slot >= 0) {
		/* Never the host's: its LSTAR tells where the kernel is. */
		*val = vmx->msrs_differ & BIT(slot) ? vmx->msrs[slot] : 0;
		if (slot == VMX_MSR_LSTAR || slot == VMX_MSR_CSTAR || vmx->msrs_differ & BIT(slot))
			return true;
	}
	switch (msr) {
	case MSR_EFER:
	case MSR_STAR:
	case MSR_SYSCALL_MASK:
	case MSR_IA32_CR_PAT:
		rdmsrl(msr, *val);
		return true;
	}
	return false;
}

/**
 * vmx_wrmsr() - emulate WRMSR
 * @vmx: the vCPU
 * @msr: which
 * @val: new value
 *
 * Context: interrupts off, the vCPU's window open.
 *
 * Return: false for #GP.
 */
bool vmx_wrmsr(struct vmx_vcpu *vmx, u32 msr, u64 val)
{
	int slot = vmx_msr_slot(msr);
	u64 now;

	if (slot < 0)
		return vmx_rdmsr(vmx, msr, &now) && now == val;
	if (((slot == VMX_MSR_LSTAR || slot == VMX_MSR_CSTAR) && !vmx_canonical(val)) ||
	    (slot == VMX_MSR_FMASK && val >> 32))
		return false;
	/* Back to the host's values, then all of the guest's anew. */
	vmx_msrs_put();
	vmx->msrs[slot] = val;
	vmx->msrs_differ |= BIT(slot);
	vmx_msrs_load(vmx);
	return true;
}
