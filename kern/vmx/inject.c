// SPDX-License-Identifier: GPL-2.0-only
/* Events that VM entry delivers: exceptions, interrupted deliveries, external interrupts. */
#include <asm/processor-flags.h>
#include <asm/trap_pf.h>
#include <asm/trapnr.h>

#include "vmx.h"

static void queue(struct vmx_vcpu *vmx, u32 info, u32 error, u32 len)
{
	vmx->event.info = info | INTR_INFO_VALID_MASK;
	vmx->event.error = error;
	vmx->event.len = len;
	vmx->vcpu.todo |= DUNE_TODO_EVENT;
}

/* SDM vol. 3, table 6-5. */
static bool contributory(u32 vector)
{
	return vector == X86_TRAP_DE || (vector >= X86_TRAP_TS && vector <= X86_TRAP_GP);
}

/**
 * vmx_queue_exception() - the guest gets an exception
 * @vmx: the vCPU
 * @vector: which
 * @has_error: with an error code
 * @error: the error code
 *
 * One that comes on top of another that was being delivered makes a double fault, as the CPU does.
 */
void vmx_queue_exception(struct vmx_vcpu *vmx, u8 vector, bool has_error, u32 error)
{
	u32 old = vmx->event.info;

	/* An external interrupt cannot be made again by running on, as the others can. */
	if (old & INTR_INFO_VALID_MASK && (old & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_EXT_INTR) {
		set_bit(old & INTR_INFO_VECTOR_MASK, (unsigned long *)vmx->vcpu.page->pending);
		/* The bit, then this. */
		smp_store_release(&vmx->vcpu.page->pending_any, 1);
	}
	if (old & INTR_INFO_VALID_MASK &&
	    (old & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_HARD_EXCEPTION) {
		u32 first = old & INTR_INFO_VECTOR_MASK;

		if (first == X86_TRAP_DF) {
			vmx->event.info = 0;
			vmx->triple_fault = true;
			return;
		}
		if ((contributory(first) && contributory(vector)) ||
		    (first == X86_TRAP_PF && (contributory(vector) || vector == X86_TRAP_PF))) {
			vector = X86_TRAP_DF;
			has_error = true;
			error = 0;
		}
	}
	queue(vmx, vector | INTR_TYPE_HARD_EXCEPTION | (has_error ? INTR_INFO_DELIVER_CODE_MASK : 0),
	      error, 0);
}

/**
 * vmx_requeue_vectoring() - deliver again what an exit interrupted
 * @vmx: the vCPU, just after an exit
 */
__noendbr void vmx_requeue_vectoring(struct vmx_vcpu *vmx)
{
	u32 info = vmcs_read32(IDT_VECTORING_INFO_FIELD), error = 0, len = 0;

	if (likely(!(info & VECTORING_INFO_VALID_MASK)))
		return;
	if (info & VECTORING_INFO_DELIVER_CODE_MASK)
		error = vmcs_read32(IDT_VECTORING_ERROR_CODE);
	switch (info & VECTORING_INFO_TYPE_MASK) {
	case INTR_TYPE_SOFT_INTR:
	case INTR_TYPE_SOFT_EXCEPTION:
	case INTR_TYPE_PRIV_SW_EXCEPTION:
		len = vmcs_read32(VM_EXIT_INSTRUCTION_LEN);
	}
	/* Bit 12 is undefined here and must be 0 at entry (SDM 25.9.3). */
	queue(vmx, info & ~BIT(12), error, len);
}

/**
 * vmx_queue_page_fault() - the last EPT violation becomes the guest's #PF
 * @vmx: the vCPU; its VMCS is current, and has not been entered since
 */
void vmx_queue_page_fault(struct vmx_vcpu *vmx)
{
	u64 qual = vmcs_readl(EXIT_QUALIFICATION);
	bool user = (vmcs_read32(GUEST_SS_AR_BYTES) >> 5 & 3) == 3;
	u32 error = DUNE_PF_FROM_HOST | X86_PF_PROT;

	if (qual & EPT_VIOLATION_ACC_WRITE)
		error |= X86_PF_WRITE;
	if (qual & EPT_VIOLATION_ACC_INSTR)
		error |= X86_PF_INSTR;
	if (user)
		error |= X86_PF_USER;
	vmx->cr2 = qual & EPT_VIOLATION_GVA_IS_VALID ? vmcs_readl(GUEST_LINEAR_ADDRESS) : 0;
	vmx->vcpu.page->fault_address = vmx->cr2;
	vmx_queue_exception(vmx, X86_TRAP_PF, true, error);
}

static int highest_pending(struct dune_vcpu_page *page)
{
	int i;

	for (i = 3; i >= 0; i--) {
		u64 bits = READ_ONCE(page->pending[i]);

		if (i == 0)
			bits &= ~0xffffffffull;
		if (bits)
			return i * 64 + __fls(bits);
	}
	return -1;
}

static void window_exiting(struct vmx_vcpu *vmx, bool on)
{
	u32 proc = vmx_config.proc;

	vmcs_write32(CPU_BASED_VM_EXEC_CONTROL, on ? proc | CPU_BASED_INTR_WINDOW_EXITING : proc);
	if (on)
		vmx->vcpu.todo |= DUNE_TODO_WINDOW;
	else
		vmx->vcpu.todo &= ~DUNE_TODO_WINDOW;
}

/* An external interrupt, if one is pending and the guest takes it now. */
static void inject_interrupt(struct vmx_vcpu *vmx)
{
	struct dune_vcpu_page *page = vmx->vcpu.page;
	int vector;

	/* Nor in the place of what an entry that failed did not deliver (SDM 27.8). */
	if (!(vmcs_readl(GUEST_RFLAGS) & X86_EFLAGS_IF) ||
	    vmcs_read32(GUEST_INTERRUPTIBILITY_INFO) & VMX_SHADOW ||
	    vmcs_read32(VM_ENTRY_INTR_INFO_FIELD) & INTR_INFO_VALID_MASK) {
		window_exiting(vmx, true);
		return;
	}
	/* Before the bits are looked at: a bit set later sets it again. */
	xchg(&page->pending_any, 0);
	vector = highest_pending(page);
	if (vector >= 0) {
		clear_bit(vector, (unsigned long *)page->pending);
		vmcs_write32(VM_ENTRY_INTR_INFO_FIELD,
			     vector | INTR_TYPE_EXT_INTR | INTR_INFO_VALID_MASK);
	}
	if (highest_pending(page) >= 0) {
		WRITE_ONCE(page->pending_any, 1);
		window_exiting(vmx, true);
	} else if (vmx->vcpu.todo & DUNE_TODO_WINDOW) {
		window_exiting(vmx, false);
	}
}

/**
 * vmx_inject() - prepare what the next VM entry delivers
 * @vmx: the vCPU; its VMCS is current
 *
 * Called when an event is queued or an interrupt is pending.
 */
void vmx_inject(struct vmx_vcpu *vmx)
{
	struct vmx_event *ev = &vmx->event;

	vmx->vcpu.todo &= ~DUNE_TODO_EVENT;
	if (!(ev->info & INTR_INFO_VALID_MASK)) {
		inject_interrupt(vmx);
		return;
	}
	if (ev->info & INTR_INFO_DELIVER_CODE_MASK)
		vmcs_write32(VM_ENTRY_EXCEPTION_ERROR_CODE, ev->error);
	if (ev->len)
		vmcs_write32(VM_ENTRY_INSTRUCTION_LEN, ev->len);
	vmcs_write32(VM_ENTRY_INTR_INFO_FIELD, ev->info);
	ev->info = 0;
	/* An external interrupt delivered again needs IF, which it had; others do not care. */
	if (READ_ONCE(vmx->vcpu.page->pending_any))
		window_exiting(vmx, true);
}
