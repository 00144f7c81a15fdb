// SPDX-License-Identifier: GPL-2.0-only
/* CPUID in the guest: the host's answer, less what the guest cannot use. */
#include "vmx.h"

/* OSPKE says what CR4.PKE is, and here that is the guest's. Apart, as a VMREAD needs a stack frame. */
static noinline void cpuid_ospke(struct dune_regs *regs)
{
	regs->rcx &= vmcs_readl(GUEST_CR4) & X86_CR4_PKE ? ~0ul : ~BIT(4);
}

/**
 * vmx_cpuid() - emulate CPUID
 * @regs: the guest's; in: rax, rcx
 *
 * Context: interrupts off, the vCPU's window open.
 *
 * SDM vol. 2, CPUID: hides what traps to no purpose, or would mislead.
 */
__noendbr void vmx_cpuid(struct dune_regs *regs)
{
	u32 leaf = regs->rax, subleaf = regs->rcx, eax = leaf, ebx, ecx = subleaf, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	switch (leaf) {
	case 1:
		/* MONITOR, VMX, SMX, PDCM, x2APIC, TSC deadline; DS, ACPI, TM */
		ecx &= ~(BIT(3) | BIT(5) | BIT(6) | BIT(15) | BIT(21) | BIT(24));
		edx &= ~(BIT(21) | BIT(22) | BIT(29));
		break;
	case 7:
		if (subleaf == 0) {
			/* SGX */
			ebx &= ~BIT(2);
			/* WAITPKG, CET_SS, LA57, KL, ENQCMD, SGX_LC, PKS */
			ecx &= ~(BIT(5) | BIT(7) | BIT(16) | BIT(23) | BIT(29) | BIT(30) | BIT(31));
			/* UINTR, PCONFIG, CET_IBT; SPEC_CTRL, STIBP, L1D_FLUSH, SSBD: MSRs */
			edx &= ~(BIT(5) | BIT(18) | BIT(20) | BIT(26) | BIT(27) | BIT(28) | BIT(31));
		} else if (subleaf == 1) {
			/* LASS, FRED, LKGS, WRMSRNS, LAM, MSRLIST; MSR_IMM; USER_MSR, CET_SSS */
			eax &= ~(BIT(6) | BIT(17) | BIT(18) | BIT(19) | BIT(26) | BIT(27));
			ecx &= ~BIT(5);
			edx &= ~(BIT(15) | BIT(18));
		}
		break;
	case 0xa:
	case 0x23:
		/* Performance monitoring: RDPMC and its MSRs are not to be had. */
		eax = ebx = ecx = edx = 0;
		break;
	case 0xd:
		/* XSAVES */
		eax &= subleaf == 1 ? ~BIT(3) : ~0ul;
		break;
	}
	regs->rax = eax;
	regs->rbx = ebx;
	regs->rcx = ecx;
	regs->rdx = edx;
	if (leaf == 7 && subleaf == 0)
		cpuid_ospke(regs);
}
