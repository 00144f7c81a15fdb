// SPDX-License-Identifier: GPL-2.0-only
/*
 * The run loop: into the guest, and out again, until user space has something to do.
 *
 * Nothing of the kernel's way to user mode is done here. Before each entry, with interrupts off,
 * the thread's work flags are looked at; if there is work, or its FPU registers are not loaded,
 * the loop returns to user mode, where the kernel does all that, and user space comes back.
 */
#include <linux/hw_breakpoint.h>
#include <linux/irqflags.h>
#include <linux/sched.h>
#include <linux/static_call.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fsgsbase.h>
#include <asm/special_insns.h>

#include "vmx.h"
#include "../trace.h"

#define BOUNCE_WORK (EXIT_TO_USER_MODE_WORK | _TIF_NEED_FPU_LOAD)

DEFINE_STATIC_CALL(vmx_enter_call, vmx_enter);

/** vmx_run_init() - choose the way in */
void __init vmx_run_init(void)
{
	if (vmx_use_safe_entry)
		static_call_update(vmx_enter_call, vmx_enter_safe);
}

static unsigned long host_fs_base(void)
{
	unsigned long base;

	if (boot_cpu_has(X86_FEATURE_FSGSBASE))
		return rdfsbase();
	rdmsrl(MSR_FS_BASE, base);
	return base;
}

#define UPDATE_HOST(cache, field, now)								\
	do {											\
		unsigned long __now = (now);							\
												\
		if ((cache) != __now) {								\
			(cache) = __now;							\
			vmcs_writel(field, __now);						\
		}										\
	} while (0)

/*
 * The thread is new on this CPU, or new in the kernel: look at everything that may have changed
 * since. What can change while it stays (CR4) is looked at before each entry.
 */
static void vmx_load(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	int cpu = raw_smp_processor_id();

	/* An atomic, hence a barrier, before flush_gen is read; pairs with dune_process_kick(). */
	set_bit(cpu, cpumask_bits(vcpu->proc->cpus));
	smp_mb__after_atomic();
	if (vmx->host_cpu != cpu) {
		if (vmx->host_cpu >= 0)
			vcpu->count.migrations++;
		vmx_vmcs_host_cpu(vmx);
		/* What this CPU has cached under our EPTP may be of any age. */
		vcpu->flush_gen = 0;
	}
	UPDATE_HOST(vmx->host_cr0, HOST_CR0, read_cr0());
	UPDATE_HOST(vmx->host_cr3, HOST_CR3, __read_cr3());
	UPDATE_HOST(vmx->host_fs_base, HOST_FS_BASE, host_fs_base());
	store_ldt(vmx->host_ldt);
	rdmsrl(MSR_IA32_DEBUGCTLMSR, vmx->host_debugctl);
	vmx_msrs_load(vmx);
	vmx->tables_dirty = true;
	vcpu->todo &= ~DUNE_TODO_LOAD;
}

/*
 * Opens a window and has the vCPU loaded in it. Interrupts are off at return, but may have been on
 * meanwhile, when the VMCS had to be fetched from another CPU: the return value says so.
 */
static bool vmx_window(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	bool moved = false;

	if (likely(vmx->open && !(vcpu->todo & DUNE_TODO_LOAD)))
		return false;
	while (!vmx_open(vmx)) {
		local_irq_enable();
		vmx_clear(vmx);
		local_irq_disable();
		moved = true;
	}
	if (vmx->foreign)
		vcpu->count.foreign++;
	if (vcpu->todo & DUNE_TODO_LOAD)
		vmx_load(vmx);
	return moved;
}

enum vmx_ready { VMX_READY, VMX_LOOK_AGAIN, VMX_REFUSED, VMX_DEAD };

/* All that is not needed before every entry. Interrupts off, and a window is open after it. */
static noinline enum vmx_ready vmx_prepare(struct vmx_vcpu *vmx, int *err)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;

	if (vmx_window(vmx))
		return VMX_LOOK_AGAIN;
	if (vcpu->todo & DUNE_TODO_SET) {
		vcpu->todo &= ~DUNE_TODO_SET;
		*err = vmx_vmcs_set(vmx, xchg(&vcpu->page->set, 0));
		if (*err)
			return VMX_REFUSED;
	}
	if (vmx->pf_pending) {
		vmx->pf_pending = false;
		vmx_queue_page_fault(vmx);
	}
	if (vcpu->todo & (DUNE_TODO_EVENT | DUNE_TODO_WINDOW) || READ_ONCE(vcpu->page->pending_any))
		vmx_inject(vmx);
	if (unlikely(vmx->triple_fault)) {
		vmx->triple_fault = false;
		vmx_die(vmx, EXIT_REASON_TRIPLE_FAULT);
		return VMX_DEAD;
	}
	return VMX_READY;
}

static noinline void vmx_flush(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;

	/* Read first: what is zapped after this is flushed next time. */
	vcpu->flush_gen = READ_ONCE(vcpu->proc->flush_gen);
	smp_rmb();
	if (vmx_invept(VMX_EPT_EXTENT_CONTEXT, vmx->eptp))
		vmx_insn_failed("invept", 0);
	vcpu->count.ept_flushes++;
}

/* Tells user space of the guest's registers when the exit's own window is closed already. */
static void vmx_sync_regs(struct vmx_vcpu *vmx)
{
	local_irq_disable();
	vmx_window(vmx);
	vmx_store_regs(vmx);
	vmx_close(vmx);
	local_irq_enable();
}

/*
 * The kernel aborts a restartable sequence by looking at the trampoline's IP, which is in none:
 * the guest's has to be looked at here, before that.
 */
static void vmx_rseq(struct vmx_vcpu *vmx)
{
	struct rseq_cs cs;
	unsigned long rip;

	if (vmx->vcpu.todo & DUNE_TODO_SET || !dune_rseq_read(&cs))
		return;
	local_irq_disable();
	vmx_window(vmx);
	rip = vmcs_readl(GUEST_RIP);
	if (dune_rseq_in(&cs, rip)) {
		rip = cs.abort_ip;
		vmcs_writel(GUEST_RIP, rip);
	} else {
		rip = 0;
	}
	vmx_close(vmx);
	local_irq_enable();
	if (rip)
		dune_rseq_aborted(&cs);
}

static noinline int vmx_bounce(struct vmx_vcpu *vmx)
{
	local_irq_enable();
	vmx_rseq(vmx);
	vmx->vcpu.page->exit = DUNE_EXIT_BOUNCE;
	vmx->vcpu.count.bounces++;
	trace_dune_bounce(&vmx->vcpu, READ_ONCE(current_thread_info()->flags));
	return 0;
}

/* A VMfail: nothing ran. */
static noinline enum vmx_next vmx_enter_failed(struct vmx_vcpu *vmx)
{
	vmx_die(vmx, ~0u);
	return VMX_USER;
}

static void vmx_mirror(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	int ret;

	trace_dune_ept_violation(vmx->fault_gpa, vmx->fault_qual);
	ret = dune_mirror_fault(vcpu, vmx->fault_gpa, vmx->fault_qual & EPT_VIOLATION_ACC_WRITE,
				vmx->fault_qual & EPT_VIOLATION_ACC_INSTR);
	if (ret == -EFAULT) {
		vcpu->count.guest_faults++;
		vmx->pf_pending = true;
		vcpu->todo |= DUNE_TODO_EVENT;
	}
	/* -ENOMEM: the guest tries again, as a page fault of Linux' does. */
}

/**
 * vmx_run() - the engine's run operation
 * @vcpu: the calling thread's
 *
 * Context: process context, preempt notifier registered.
 *
 * Return: 0 with page->exit set; -EINVAL, -EIO.
 */
int vmx_run(struct dune_vcpu *vcpu)
{
	struct thread_info *ti = current_thread_info();
	struct dune_vcpu_page *page = vcpu->page;
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	struct task_struct *task = current;
	enum vmx_next next;
	unsigned long cr4;
	int err = 0;
	u32 reason;

	if (READ_ONCE(page->set))
		vcpu->todo |= DUNE_TODO_SET;
	vmx->repaired = false;
	if (vcpu->dead && !(READ_ONCE(page->set) & DUNE_SET_RESET))
		return -EIO;
	for (;;) {
		local_irq_disable();
		if (unlikely(READ_ONCE(ti->flags) & BOUNCE_WORK))
			return vmx_bounce(vmx);
		if (unlikely(vcpu->todo || !vmx->open || READ_ONCE(page->pending_any))) {
			enum vmx_ready ready = vmx_prepare(vmx, &err);

			if (ready != VMX_READY) {
				vmx_close(vmx);
				local_irq_enable();
				if (ready == VMX_LOOK_AGAIN)
					continue;
				return err;
			}
		}
		if (unlikely(vcpu->flush_gen != READ_ONCE(vcpu->proc->flush_gen)))
			vmx_flush(vmx);
		asm volatile("mov %%cr4, %0" : "=r"(cr4));
		UPDATE_HOST(vmx->host_cr4, HOST_CR4, cr4);
		trace_dune_entry(vcpu);

		/* So that the tick counts this time as the guest's, which is the process' own. */
		task->flags |= PF_VCPU;
		if (unlikely(static_call(vmx_enter_call)(vmx, vmx->launched))) {
			next = vmx_enter_failed(vmx);
			reason = 0;
		} else {
			vmx->launched = true;
			vcpu->count.entries++;
			/* The exit disarmed the host's breakpoints (SDM 28.5.1). */
			if (unlikely(hw_breakpoint_active()))
				set_debugreg(__this_cpu_read(cpu_dr7), 7);
			reason = vmcs_read32(VM_EXIT_REASON);
			if (likely(reason < DUNE_NR_EXITS))
				vcpu->count.exits[reason]++;
			next = vmx_handle_exit(vmx, reason);
		}
		vmx_close(vmx);
		if (next == VMX_IRQ) {
			/* The interrupt is taken at the end of the shadow of this STI. */
			local_irq_enable();
			asm volatile("nop");
			task->flags &= ~PF_VCPU;
			trace_dune_exit(vcpu, reason);
			continue;
		}
		task->flags &= ~PF_VCPU;
		local_irq_enable();
		trace_dune_exit(vcpu, reason);
		switch (next) {
		case VMX_CALL:
			if (likely(!dune_syscall_fast(vcpu)))
				continue;
			vmx_sync_regs(vmx);
			break;
		case VMX_FAULT:
			vmx_mirror(vmx);
			continue;
		case VMX_WAIT:
			dune_vcpu_wait(vcpu);
			continue;
		case VMX_USER:
			break;
		default:
			continue;
		}
		return 0;
	}
}
