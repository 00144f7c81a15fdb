// SPDX-License-Identifier: GPL-2.0-only
/* Filling the VMCS: controls, the guest's first state, the host's. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <asm/desc.h>
#include <asm/segment.h>
#include <asm/trapnr.h>

#include "vmx.h"

/**
 * vmx_insn_failed() - a VMX instruction failed that cannot
 * @insn: its name
 * @field: VMCS field, or what tells one use from another
 *
 * Only a fault in this module gets here, not what a user does.
 */
void vmx_insn_failed(const char *insn, unsigned long field)
{
	pr_err_ratelimited("%s failed (%#lx) on CPU %d\n", insn, field, raw_smp_processor_id());
}

struct vmx_segment {
	u16 selector;
	u32 limit;
	u32 ar;
};

/* In the order of the VMCS fields. Selectors are Linux': SYSCALL uses the host's STAR. */
static const struct vmx_segment vmx_segments[] = {
	{ 0, 0xffffffff, 0xc093 },			/* ES: data, writable, accessed */
	{ __KERNEL_CS, 0xffffffff, 0xa09b },		/* CS: code, long */
	{ __KERNEL_DS, 0xffffffff, 0xc093 },		/* SS */
	{ 0, 0xffffffff, 0xc093 },			/* DS */
	{ 0, 0xffffffff, 0xc093 },			/* FS */
	{ 0, 0xffffffff, 0xc093 },			/* GS */
	{ 0, 0, 0x10000 },				/* LDTR: unusable */
	{ 0x40, 0x67, 0x8b },				/* TR: busy 64-bit TSS */
};

/* Guest state that is zero in a new vCPU. */
static const u16 vmx_zero_guest[] = {
	GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT, GUEST_CR3, GUEST_RIP,
	GUEST_RSP, GUEST_IA32_DEBUGCTL, GUEST_SYSENTER_CS, GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP,
	GUEST_INTERRUPTIBILITY_INFO, GUEST_PENDING_DBG_EXCEPTIONS,
	/* The CPU takes an event out when it has entered; the last entry may have been refused. */
	VM_ENTRY_INTR_INFO_FIELD,
};

/* What is never anything else. */
static const u16 vmx_zero_always[] = {
	PAGE_FAULT_ERROR_CODE_MASK, PAGE_FAULT_ERROR_CODE_MATCH, CR3_TARGET_COUNT,
	VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_COUNT,
	/* User mode's selectors: 64-bit Linux keeps them null, and reloads what is not. */
	HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR,
};

static void vmcs_zero(const u16 *fields, size_t nr)
{
	while (nr--)
		__vmcs_write(fields[nr], 0);
}

/**
 * vmx_vmcs_reset_guest() - the guest's state as in a new vCPU
 * @vmx: the vCPU; its VMCS is current
 */
void vmx_vmcs_reset_guest(struct vmx_vcpu *vmx)
{
	const struct dune_engine *e = &dune_vmx_engine;
	int i;

	for (i = 0; i < ARRAY_SIZE(vmx_segments); i++) {
		__vmcs_write(GUEST_ES_SELECTOR + 2 * i, vmx_segments[i].selector);
		__vmcs_write(GUEST_ES_LIMIT + 2 * i, vmx_segments[i].limit);
		__vmcs_write(GUEST_ES_AR_BYTES + 2 * i, vmx_segments[i].ar);
		__vmcs_write(GUEST_ES_BASE + 2 * i, 0);
	}
	vmcs_zero(vmx_zero_guest, ARRAY_SIZE(vmx_zero_guest));
	vmcs_writel(GUEST_CR0, e->cr0_initial | (vmx_config.cr0_fixed0 & vmx_config.cr0_fixed1));
	vmcs_writel(GUEST_CR4, e->cr4_initial | X86_CR4_VMXE);
	vmcs_writel(CR0_READ_SHADOW, e->cr0_initial);
	vmcs_writel(CR4_READ_SHADOW, e->cr4_initial);
	vmcs_writel(GUEST_DR7, 0x400);
	vmcs_writel(GUEST_RFLAGS, X86_EFLAGS_FIXED);
	vmcs_write32(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	vmx->dr6 = 0xffff0ff0;
	vmx->cr8 = 0;
	vmx->cr2 = 0;
	vmx->high_gs_base = 0;
	vmx->event.info = 0;
	vmx->pf_pending = false;
	vmx->triple_fault = false;
	vmx_msrs_put();
	/* Never the host's LSTAR: a SYSCALL would jump there, and the #PF tell where the kernel is. */
	vmx->msrs[VMX_MSR_LSTAR] = 0;
	vmx->msrs_differ = BIT(VMX_MSR_LSTAR);
	vmx_msrs_load(vmx);
	vmx->vcpu.dead = false;
}

static void vmcs_init_controls(struct vmx_vcpu *vmx)
{
	const struct vmx_config *c = &vmx_config;

	vmcs_write32(PIN_BASED_VM_EXEC_CONTROL, c->pin);
	vmcs_write32(CPU_BASED_VM_EXEC_CONTROL, c->proc);
	vmcs_write32(SECONDARY_VM_EXEC_CONTROL,
		     vmx->vpid ? c->proc2 : c->proc2 & ~SECONDARY_EXEC_ENABLE_VPID);
	vmcs_write32(VM_EXIT_CONTROLS, c->exit);
	vmcs_write32(VM_ENTRY_CONTROLS, c->entry);
	/*
	 * #MC is the host's. #DB and #AC can be raised by their own delivery, without end and
	 * without an instruction boundary at which the host would get its interrupts
	 * (CVE-2015-5307, CVE-2015-8104): they exit, and go back in as events.
	 */
	vmcs_write32(EXCEPTION_BITMAP, BIT(X86_TRAP_MC) | BIT(X86_TRAP_DB) | BIT(X86_TRAP_AC));
	vmcs_write64(VMCS_LINK_POINTER, ~0ull);
	/* A page of the module's data: vmalloc memory, which has no linear mapping. */
	vmcs_write64(MSR_BITMAP, PFN_PHYS(vmalloc_to_pfn(vmx_msr_bitmap)));
	vmcs_write64(EPT_POINTER, vmx->eptp);
	if (vmx->vpid)
		vmcs_write16(VIRTUAL_PROCESSOR_ID, vmx->vpid);
	if (c->proc2 & SECONDARY_EXEC_ENCLS_EXITING)
		vmcs_write64(ENCLS_EXITING_BITMAP, ~0ull);
	vmcs_writel(CR0_GUEST_HOST_MASK, ~dune_vmx_engine.cr0_guest_bits);
	vmcs_writel(CR4_GUEST_HOST_MASK, ~dune_vmx_engine.cr4_guest_bits);
}

static void vmcs_init_host(void)
{
	vmcs_write16(HOST_CS_SELECTOR, __KERNEL_CS);
	vmcs_write16(HOST_SS_SELECTOR, __KERNEL_DS);
	vmcs_writel(HOST_RIP, (unsigned long)(vmx_use_safe_entry ? vmx_exit_point_safe :
								   vmx_exit_point));
}

/**
 * vmx_vmcs_init() - fill a VMCS that has never been used
 * @vmx: the vCPU; its VMCS is current
 */
void vmx_vmcs_init(struct vmx_vcpu *vmx)
{
	vmcs_zero(vmx_zero_always, ARRAY_SIZE(vmx_zero_always));
	vmcs_init_controls(vmx);
	vmcs_init_host();
	vmx_vmcs_reset_guest(vmx);
	vmx->ready = true;
}

/**
 * vmx_vmcs_host_cpu() - host state that depends on the CPU
 * @vmx: the vCPU; its VMCS is current
 *
 * All of it is asked of the hardware: the kernel's own variables move.
 */
void vmx_vmcs_host_cpu(struct vmx_vcpu *vmx)
{
	const struct ldttss_desc *tss;
	unsigned long val;
	u16 tr;

	native_store_gdt(&vmx->host_gdt);
	store_idt(&vmx->host_idt);
	asm volatile("str %0" : "=r"(tr));
	tss = (const void *)(vmx->host_gdt.address + (tr & ~7));
	vmcs_write16(HOST_TR_SELECTOR, tr);
	vmcs_writel(HOST_TR_BASE, tss->base0 | tss->base1 << 16 | (unsigned long)tss->base2 << 24 |
					  (unsigned long)tss->base3 << 32);
	vmcs_writel(HOST_GDTR_BASE, vmx->host_gdt.address);
	vmcs_writel(HOST_IDTR_BASE, vmx->host_idt.address);
	rdmsrl(MSR_GS_BASE, val);
	vmcs_writel(HOST_GS_BASE, val);
	rdmsrl(MSR_IA32_SYSENTER_CS, val);
	vmcs_write32(HOST_IA32_SYSENTER_CS, val);
	rdmsrl(MSR_IA32_SYSENTER_ESP, val);
	vmcs_writel(HOST_IA32_SYSENTER_ESP, val);
	rdmsrl(MSR_IA32_SYSENTER_EIP, val);
	vmcs_writel(HOST_IA32_SYSENTER_EIP, val);
	vmx->host_cpu = raw_smp_processor_id();
}

#define RFLAGS_KNOWN (X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF |		\
		      X86_EFLAGS_SF | X86_EFLAGS_TF | X86_EFLAGS_IF | X86_EFLAGS_DF |		\
		      X86_EFLAGS_OF | X86_EFLAGS_IOPL | X86_EFLAGS_NT | X86_EFLAGS_RF |		\
		      X86_EFLAGS_AC | X86_EFLAGS_ID | X86_EFLAGS_FIXED)

/* Loads one field, or says why the hardware would not take it (SDM 27.3.1). */
static int vmcs_set_one(struct vmx_vcpu *vmx, u32 bit)
{
	struct dune_vcpu_page *page = vmx->vcpu.page;
	const struct dune_engine *e = &dune_vmx_engine;
	u64 a, b;

	switch (bit) {
	case DUNE_SET_RESET:
		vmx_vmcs_reset_guest(vmx);
		return 0;
	case DUNE_SET_RIP:
		a = READ_ONCE(page->rip);
		b = READ_ONCE(page->rflags);
		if (!vmx_canonical(a) || b & ~RFLAGS_KNOWN)
			return -EINVAL;
		vmcs_writel(GUEST_RIP, a);
		vmcs_writel(GUEST_RSP, READ_ONCE(page->regs.rsp));
		vmcs_writel(GUEST_RFLAGS, b | X86_EFLAGS_FIXED);
		vmcs_write32(GUEST_INTERRUPTIBILITY_INFO, 0);
		vmcs_writel(GUEST_PENDING_DBG_EXCEPTIONS, 0);
		/* Nor is a fault due of what is not made now. An external interrupt (type 0) is. */
		vmx->pf_pending = false;
		if (vmx->event.info & INTR_INFO_INTR_TYPE_MASK)
			vmx->event.info = 0;
		return 0;
	case DUNE_SET_CR3:
		a = READ_ONCE(page->cr3);
		if (a >> boot_cpu_data.x86_phys_bits)
			return -EINVAL;
		vmcs_writel(GUEST_CR3, a);
		return 0;
	case DUNE_SET_FS_BASE:
	case DUNE_SET_GS_BASE:
		a = READ_ONCE(*(bit == DUNE_SET_FS_BASE ? &page->fs_base : &page->gs_base));
		if (!vmx_canonical(a))
			return -EINVAL;
		__vmcs_write(bit == DUNE_SET_FS_BASE ? GUEST_FS_BASE : GUEST_GS_BASE, a);
		return 0;
	case DUNE_SET_CR:
		a = READ_ONCE(page->cr0);
		b = READ_ONCE(page->cr4);
		if ((a ^ e->cr0_initial) & ~e->cr0_guest_bits ||
		    (b ^ e->cr4_initial) & ~e->cr4_guest_bits)
			return -EINVAL;
		vmcs_writel(GUEST_CR0, a | (vmx_config.cr0_fixed0 & vmx_config.cr0_fixed1));
		vmcs_writel(GUEST_CR4, b | X86_CR4_VMXE);
		return 0;
	case DUNE_SET_LSTAR:
		return vmx_wrmsr(vmx, MSR_LSTAR, READ_ONCE(page->lstar)) ? 0 : -EINVAL;
	case DUNE_SET_GATE:
		a = READ_ONCE(page->gate_start);
		b = READ_ONCE(page->gate_end);
		if (b < a)
			return -EINVAL;
		vmx->vcpu.gate_start = a;
		vmx->vcpu.gate_size = b - a;
		return 0;
	}
	return -EINVAL;
}

/**
 * vmx_vmcs_set() - load what user space asked for in its page
 * @vmx: the vCPU; its VMCS is current
 * @set: DUNE_SET_*
 *
 * Return: 0, or -EINVAL for a value that VM entry would refuse; what came before it is set.
 */
int vmx_vmcs_set(struct vmx_vcpu *vmx, u32 set)
{
	int ret = 0, bit;

	/* The common case, on the way in from each slow turn. */
	if (set == DUNE_SET_RIP)
		return vmcs_set_one(vmx, DUNE_SET_RIP);
	if (set & ~DUNE_SET_ALL)
		return -EINVAL;
	/* MOV to these registers flushes; VMWRITE does not, nor, with a VPID, VM entry. */
	if (set & (DUNE_SET_RESET | DUNE_SET_CR3 | DUNE_SET_CR))
		vmx->vcpu.flush_gen = 0;
	/* The reset comes first. */
	if (set & DUNE_SET_RESET)
		ret = vmcs_set_one(vmx, DUNE_SET_RESET);
	for (bit = 1; !ret && bit < DUNE_SET_RESET; bit <<= 1)
		if (set & bit)
			ret = vmcs_set_one(vmx, bit);
	return ret;
}
