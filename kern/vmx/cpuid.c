// SPDX-License-Identifier: GPL-2.0-only
/* CPUID in the guest: the host's answer, less what the guest cannot use. */
#include <asm/processor.h>

#include "vmx.h"

struct cpuid_hide {
	u32 leaf, subleaf;
	u32 eax, ebx, ecx, edx;
};

/* SDM vol. 2, CPUID. What traps to no purpose, or would mislead. */
static const struct cpuid_hide cpuid_hidden[] = {
	/* MONITOR, VMX, SMX, PDCM, x2APIC; TSC deadline is the host's */
	{ 1, 0, .ecx = BIT(3) | BIT(5) | BIT(6) | BIT(15) | BIT(21) | BIT(24),
	  /* DS, ACPI, TM */
	  .edx = BIT(21) | BIT(22) | BIT(29) },
	/* SGX; CET_SS, WAITPKG, LA57, SGX_LC, ENQCMD; UINTR, PCONFIG, CET_IBT, and SPEC_CTRL's */
	{ 7, 0, .ebx = BIT(2), .ecx = BIT(5) | BIT(7) | BIT(16) | BIT(29) | BIT(30),
	  .edx = BIT(5) | BIT(18) | BIT(20) | BIT(26) | BIT(27) | BIT(28) | BIT(31) },
	/* FRED, LKGS, WRMSRNS, LAM */
	{ 7, 1, .eax = BIT(17) | BIT(18) | BIT(19) | BIT(26) },
	/* XSAVES */
	{ 0xd, 1, .eax = BIT(3) },
	/* performance monitoring: RDPMC and its MSRs are not to be had */
	{ 0xa, 0, ~0, ~0, ~0, ~0 },
};

/**
 * vmx_cpuid() - emulate CPUID
 * @regs: the guest's; in: rax, rcx
 */
void vmx_cpuid(struct dune_regs *regs)
{
	u32 leaf = regs->rax, subleaf = regs->rcx, eax, ebx, ecx, edx;
	unsigned int i;

	cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx);
	for (i = 0; i < ARRAY_SIZE(cpuid_hidden); i++) {
		const struct cpuid_hide *h = &cpuid_hidden[i];

		if (h->leaf != leaf || (leaf != 1 && h->subleaf != subleaf))
			continue;
		eax &= ~h->eax;
		ebx &= ~h->ebx;
		ecx &= ~h->ecx;
		edx &= ~h->edx;
	}
	regs->rax = eax;
	regs->rbx = ebx;
	regs->rcx = ecx;
	regs->rdx = edx;
}
