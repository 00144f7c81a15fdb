// SPDX-License-Identifier: GPL-2.0-only
/* When a guest cannot go on: say why, in the terms of Intel's manual, to the one who runs it. */
#include <linux/kernel.h>
#include <asm/processor.h>

#include "vmx.h"

/* SDM 27.3.1: the checks on the guest state that a guest's own doing can fail. First one wins. */
static const char *failed_check(const struct dune_death *d, u64 rip, u64 rflags)
{
	static const u32 data_ar_reserved = 0xfffe0f00;
	u64 cr0_fixed0 = vmx_config.cr0_fixed0 | X86_CR0_PE | X86_CR0_PG;

	if ((d->cr0 & cr0_fixed0) != cr0_fixed0 || d->cr0 & ~vmx_config.cr0_fixed1)
		return "CR0 fixed bits (27.3.1.1)";
	if ((d->cr4 & vmx_config.cr4_fixed0) != vmx_config.cr4_fixed0 ||
	    d->cr4 & ~vmx_config.cr4_fixed1)
		return "CR4 fixed bits (27.3.1.1)";
	if (d->cr3 >> boot_cpu_data.x86_phys_bits)
		return "CR3 beyond the physical-address width (27.3.1.1)";
	if (!vmx_canonical(rip))
		return "RIP not canonical (27.3.1.4)";
	if (rip >> 32 && !(vmcs_read32(GUEST_CS_AR_BYTES) & BIT(13)))
		return "RIP of more than 32 bits outside 64-bit code (27.3.1.4)";
	if (!vmx_canonical(d->fs_base))
		return "FS base not canonical (27.3.1.2)";
	if (!vmx_canonical(d->gs_base))
		return "GS base not canonical (27.3.1.2)";
	if (!(rflags & X86_EFLAGS_FIXED) || rflags & ~0x3f7fd7ull)
		return "RFLAGS reserved bits (27.3.1.4)";
	if (vmcs_read32(GUEST_CS_AR_BYTES) & data_ar_reserved)
		return "CS access rights (27.3.1.2)";
	if (vmcs_read32(GUEST_SS_AR_BYTES) & data_ar_reserved & ~0x10000)
		return "SS access rights (27.3.1.2)";
	if ((vmcs_read32(GUEST_TR_AR_BYTES) & 0xf) != 11)
		return "TR is not a busy 64-bit TSS (27.3.1.2)";
	if (!vmx_canonical(d->gdt_base) || !vmx_canonical(d->idt_base))
		return "GDTR or IDTR base not canonical (27.3.1.3)";
	if (d->interruptibility & GUEST_INTR_STATE_STI && !(rflags & X86_EFLAGS_IF))
		return "blocking by STI with RFLAGS.IF clear (27.3.1.5)";
	if (d->interruptibility && rflags & X86_EFLAGS_TF)
		return "RFLAGS.TF in the shadow of STI or MOV SS without a pending single step (27.3.1.5)";
	return "none that Dune knows of (27.3)";
}

static const char *what_happened(u32 reason)
{
	switch (reason) {
	case EXIT_REASON_TRIPLE_FAULT:
		return "triple fault: the guest's #DF handler could not be entered either (is its IDT mapped, its IST stack writable?)";
	case EXIT_REASON_EXCEPTION_NMI:
		return "unexpected exception exit";
	case EXIT_REASON_TASK_SWITCH:
		return "task switch, which 64-bit mode does not have";
	case EXIT_REASON_EPT_MISCONFIG:
		return "EPT misconfiguration: a bug of the dune module";
	}
	return "VM exit that Dune does not expect";
}

#define DEATH(member, field)								\
	{ field, offsetof(struct dune_death, member), sizeof_field(struct dune_death, member) }

static const struct {
	u16 field, offset, size;
} death_fields[] = {
	DEATH(qualification, EXIT_QUALIFICATION), DEATH(gpa, GUEST_PHYSICAL_ADDRESS),
	DEATH(gla, GUEST_LINEAR_ADDRESS), DEATH(intr_info, VM_EXIT_INTR_INFO),
	DEATH(intr_error, VM_EXIT_INTR_ERROR_CODE), DEATH(vectoring_info, IDT_VECTORING_INFO_FIELD),
	DEATH(vectoring_error, IDT_VECTORING_ERROR_CODE), DEATH(cr0, GUEST_CR0), DEATH(cr3, GUEST_CR3),
	DEATH(cr4, GUEST_CR4), DEATH(fs_base, GUEST_FS_BASE), DEATH(gs_base, GUEST_GS_BASE),
	DEATH(gdt_base, GUEST_GDTR_BASE), DEATH(idt_base, GUEST_IDTR_BASE), DEATH(tr_base, GUEST_TR_BASE),
	DEATH(gdt_limit, GUEST_GDTR_LIMIT), DEATH(idt_limit, GUEST_IDTR_LIMIT),
	DEATH(activity, GUEST_ACTIVITY_STATE), DEATH(interruptibility, GUEST_INTERRUPTIBILITY_INFO),
	DEATH(cs, GUEST_CS_SELECTOR), DEATH(ss, GUEST_SS_SELECTOR), DEATH(ds, GUEST_DS_SELECTOR),
	DEATH(es, GUEST_ES_SELECTOR), DEATH(fs, GUEST_FS_SELECTOR), DEATH(gs, GUEST_GS_SELECTOR),
	DEATH(tr, GUEST_TR_SELECTOR), DEATH(ldtr, GUEST_LDTR_SELECTOR),
};

/**
 * vmx_die() - the guest cannot go on
 * @vmx: the vCPU; its VMCS is current
 * @reason: the exit reason, or ~0 when VMLAUNCH or VMRESUME itself failed
 *
 * The vCPU cannot be run again until it is reset.
 */
void vmx_die(struct vmx_vcpu *vmx, u32 reason)
{
	struct dune_vcpu_page *page = vmx->vcpu.page;
	struct dune_death *d = &page->death;
	int i;

	memset(d, 0, sizeof(*d));
	vmx_store_regs(vmx);
	d->exit_reason = reason;
	d->cr2 = vmx->cr2;
	rdmsrl(MSR_EFER, d->efer);
	for (i = 0; i < ARRAY_SIZE(death_fields); i++) {
		unsigned long val = __vmcs_read(death_fields[i].field);

		memcpy((void *)d + death_fields[i].offset, &val, death_fields[i].size);
	}
	if (reason == ~0u) {
		d->instruction_error = vmcs_read32(VM_INSTRUCTION_ERROR);
		snprintf(d->text, sizeof(d->text),
			 "VM entry failed, VM-instruction error %u (SDM 31.4): a bug of the dune module",
			 d->instruction_error);
	} else if (reason & VMX_EXIT_REASONS_FAILED_VMENTRY) {
		snprintf(d->text, sizeof(d->text), "VM entry refused the guest's state: %s",
			 failed_check(d, page->rip, page->rflags));
	} else {
		snprintf(d->text, sizeof(d->text), "%s (exit reason %u, qualification %#llx)",
			 what_happened(reason), reason, d->qualification);
	}
	vmx->vcpu.dead = true;
	page->exit = DUNE_EXIT_DEATH;
}
