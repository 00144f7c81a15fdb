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
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fsgsbase.h>
#include <asm/special_insns.h>

#include "vmx.h"
#include "../syscall.h"
#include "../trace.h"

/*
 * Besides the kernel's own work: what KVM_RUN left in MSRs that the guest uses, and what vcpu_run()
 * refuses to run with.
 */
#define BOUNCE_WORK									\
	(EXIT_TO_USER_MODE_WORK | _TIF_NEED_FPU_LOAD | _TIF_USER_RETURN_NOTIFY | DUNE_TIF_REFUSED)

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
 * since. What can change while it stays (CR4) is looked at before each entry, or, as interrupts have
 * to be on for it, after they were (CR3: vmx_look_at_cr3()).
 */
static __always_inline void vmx_load(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	int cpu = raw_smp_processor_id();

	/* An atomic, hence a barrier, before flush_gen is read; pairs with dune_process_kick(). */
	set_bit(cpu, cpumask_bits(vcpu->proc->cpus));
	smp_mb__after_atomic(); /* set_bit, then flush_gen */
	if (vmx->host_cpu != cpu) {
		if (vmx->host_cpu >= 0)
			vcpu->count.migrations++;
		vmx_vmcs_host_cpu(vmx);
		UPDATE_HOST(vmx->host_cr0, HOST_CR0, read_cr0());
		/* What this CPU has cached under our EPTP may be of any age. */
		vcpu->flush_gen = 0;
	}
	UPDATE_HOST(vmx->host_cr3, HOST_CR3, READ_CR(3));
	UPDATE_HOST(vmx->host_fs_base, HOST_FS_BASE, host_fs_base());
	if (!vmx->tables_dirty) {
		store_ldt(vmx->host_ldt);
		/*
		 * BTF is put back by the task's flag; perf may have given up its BTS buffer by then. To
		 * record branches for nobody does no harm, and perf does not look again for long.
		 */
		vmx->host_debugctl = read_msr_now(MSR_IA32_DEBUGCTLMSR) &
				     (DEBUGCTLMSR_BUS_LOCK_DETECT | DEBUGCTLMSR_FREEZE_IN_SMM |
				      DEBUGCTLMSR_LBR | DEBUGCTLMSR_FREEZE_LBRS_ON_PMI);
	}
	if (unlikely(vmx->high_gs_base)) {
		write_msr_now(MSR_KERNEL_GS_BASE, vmx->high_gs_base);
		vmx->high_gs_base = 0;
	}
	vmx_msrs_load(vmx);
	vmx->tables_dirty = true;
	vcpu->todo &= ~DUNE_TODO_LOAD;
}

/* The machine restarts, and KVM has turned VMX off. It does so by an interrupt; they are off. */
static bool vmx_gone(void)
{
	return READ_ONCE(vmx_stopped) && !vmx_transient && !(READ_CR(4) & X86_CR4_VMXE);
}

/*
 * Opens a window and has the vCPU loaded in it. Interrupts are off at return, but may have been on
 * meanwhile, when the VMCS had to be fetched from another CPU: the return value says so.
 */
static __always_inline bool __vmx_window(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	bool moved = false;

	if (!(vcpu->todo & (DUNE_TODO_OPEN | DUNE_TODO_LOAD)))
		return false;
	while (!vmx_open(vmx)) {
		local_irq_enable();
		vmx_clear(vmx);
		local_irq_disable();
		moved = true;
		if (unlikely(vmx_gone()))
			return true;
	}
	if (vmx->foreign)
		vcpu->count.foreign++;
	if (vcpu->todo & DUNE_TODO_LOAD)
		vmx_load(vmx);
	return moved;
}

/* Turns interrupts off for a window outside the loop; on again, and false, if there can be none. */
static noinline bool vmx_window(struct vmx_vcpu *vmx)
{
	local_irq_disable();
	if (likely(!vmx_gone())) {
		__vmx_window(vmx);
		if (likely(!(vmx->vcpu.todo & DUNE_TODO_OPEN)))
			return true;
	}
	local_irq_enable();
	return false;
}

static noinline void vmx_flush(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;

	/* Read first: what is zapped after this is flushed next time. */
	vcpu->flush_gen = READ_ONCE(vcpu->proc->flush_gen);
	smp_rmb(); /* flush_gen, then the tables */
	if (vmx_invept(VMX_EPT_EXTENT_CONTEXT, vmx->eptp))
		vmx_insn_failed("invept", 0);
	vcpu->count.ept_flushes++;
}

/* The last window of a run: nothing of the guest's stays on the CPU. */
static void vmx_end_window(struct vmx_vcpu *vmx)
{
	vmx_close(vmx);
	vmx_leave_cpu(vmx);
	local_irq_enable();
}

/* Tells user space of the guest's registers when the exit's own window is closed already. */
static void vmx_sync_regs(struct vmx_vcpu *vmx)
{
	if (!vmx_window(vmx))
		return;
	vmx_store_regs(vmx);
	vmx_end_window(vmx);
}

/*
 * The kernel aborts a restartable sequence by looking at the trampoline's IP, which is in none:
 * the guest's has to be looked at here, before that.
 */
static void vmx_rseq(struct vmx_vcpu *vmx)
{
	struct rseq_cs cs;
	unsigned long rip;

	if (vmx->vcpu.todo & DUNE_TODO_SET || !dune_rseq_read(&cs) || !vmx_window(vmx))
		return;
	rip = vmcs_readl(GUEST_RIP);
	if (dune_rseq_in(&cs, rip)) {
		rip = cs.abort_ip;
		vmcs_writel(GUEST_RIP, rip);
		vmx->pf_pending = false; /* of an access that is not made now */
	} else {
		rip = 0;
	}
	vmx_end_window(vmx);
	if (rip)
		dune_rseq_aborted(&cs);
}

/* Out of the loop: the time from here on is the kernel's own. Interrupts off, then on. */
static int vmx_leave(struct vmx_vcpu *vmx)
{
	current->flags &= ~PF_VCPU;
	vmx_end_window(vmx);
	return VMX_LOOP_LEAVE;
}

static noinline int vmx_bounce(struct vmx_vcpu *vmx)
{
	vmx_leave(vmx);
	vmx_rseq(vmx);
	vmx->vcpu.page->exit = DUNE_EXIT_BOUNCE;
	vmx->vcpu.count.bounces++;
	trace_dune_bounce(&vmx->vcpu, READ_ONCE(current_thread_info()->flags));
	return VMX_LOOP_LEAVE;
}

/* An EPT violation that Linux has to see to. */
static void vmx_mirror(struct vmx_vcpu *vmx)
{
	/* -ENOMEM: the guest tries again, as a page fault of Linux' does. */
	if (dune_mirror_fault(&vmx->vcpu, vmx->fault_gpa, vmx->fault_qual) != -EFAULT)
		return;
	vmx->vcpu.count.guest_faults++;
	vmx->pf_pending = true;
}

static noinline int vmx_not_ready(struct vmx_vcpu *vmx);

/*
 * The last look before an entry: interrupts are off, so what comes after it ends the guest mode
 * that it just missed. Returns what entry.S is to do.
 */
static __always_inline int vmx_ready_to_enter(struct vmx_vcpu *vmx, int how)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;

	if (unlikely(READ_ONCE(current_thread_info()->flags) & BOUNCE_WORK))
		return vmx_bounce(vmx);
	if (unlikely(vcpu->todo || READ_ONCE(vcpu->page->pending_any)))
		return vmx_not_ready(vmx);
	if (unlikely(vcpu->flush_gen != READ_ONCE(vcpu->proc->flush_gen)))
		vmx_flush(vmx);
	UPDATE_HOST(vmx->host_cr4, HOST_CR4, READ_CR(4));
	trace_dune_entry(vcpu);
	return how;
}

/* The same, with all that is not needed before every entry. */
static noinline int vmx_not_ready(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;

	do {
		if (READ_ONCE(current_thread_info()->flags) & BOUNCE_WORK || READ_ONCE(vmx_stopped))
			return vmx_bounce(vmx);
	} while (__vmx_window(vmx));
	if (vcpu->todo & DUNE_TODO_SET) {
		/* What was refused stays asked for, so that another try is refused, too. */
		vcpu->result = vmx_vmcs_set(vmx, READ_ONCE(vcpu->page->set));
		if (vcpu->result)
			return vmx_leave(vmx);
		vcpu->todo &= ~DUNE_TODO_SET;
		WRITE_ONCE(vcpu->page->set, 0);
	}
	if (vmx->pf_pending) {
		vmx->pf_pending = false;
		vmx_queue_page_fault(vmx);
	}
	if (unlikely(vmx->triple_fault)) {
		vmx->triple_fault = false;
		vmx_die(vmx, EXIT_REASON_TRIPLE_FAULT);
		return vmx_leave(vmx);
	}
	if (vcpu->todo & (DUNE_TODO_EVENT | DUNE_TODO_WINDOW) || READ_ONCE(vcpu->page->pending_any))
		vmx_inject(vmx);
	if (vcpu->flush_gen != READ_ONCE(vcpu->proc->flush_gen))
		vmx_flush(vmx);
	UPDATE_HOST(vmx->host_cr4, HOST_CR4, READ_CR(4));
	trace_dune_entry(vcpu);
	return VMX_LOOP_RELOAD;
}

/*
 * Interrupts were on, and are off. What the thread did in the kernel may have patched code in another
 * mm, and to come back from there can give its own a new PCID. An exit with the old one would have
 * the CPU use a TLB of which the kernel believes that it does not.
 */
static __always_inline void vmx_look_at_cr3(struct vmx_vcpu *vmx)
{
	if (unlikely(READ_CR(3) != vmx->host_cr3))
		vmx->vcpu.todo |= DUNE_TODO_LOAD;
}

/* What an exit wants that cannot be done with interrupts off. */
static noinline int vmx_slow_turn(struct vmx_vcpu *vmx, enum vmx_next next)
{
	if (!vmx->vcpu.notified)
		dune_vcpu_notify(&vmx->vcpu);
	vmx_close(vmx);
	if (unlikely(READ_ONCE(vmx_kvm_came)))
		vmx_leave_cpu(vmx);
	if (next == VMX_IRQ) {
		/* The interrupt is taken at the end of the shadow of this STI, as the guest's time. */
		local_irq_enable();
		asm volatile("nop");
		current->flags &= ~PF_VCPU;
	} else {
		current->flags &= ~PF_VCPU;
		local_irq_enable();
	}
	if (next == VMX_FAULT)
		vmx_mirror(vmx);
	else if (next == VMX_WAIT)
		dune_vcpu_wait(&vmx->vcpu);
	else if (next == VMX_USER)
		return VMX_LOOP_LEAVE;
	local_irq_disable();
	/* Not where it was found: interrupts and what takes the CPU away change todo as well. */
	if (unlikely(vmx->pf_pending))
		vmx->vcpu.todo |= DUNE_TODO_EVENT;
	vmx_look_at_cr3(vmx);
	current->flags |= PF_VCPU;
	return vmx_ready_to_enter(vmx, VMX_LOOP_RELOAD);
}

/* The first call that is done here in this run. */
static noinline void vmx_first_call(struct vmx_vcpu *vmx)
{
	dune_syscall_save(&vmx->vcpu, current_pt_regs());
	if (!vmx->vcpu.notified)
		dune_vcpu_notify(&vmx->vcpu);
}

/* What of the guest's is on the CPU during a call. */
enum vmx_stays { VMX_STAYS_ALL, VMX_STAYS_PARKED, VMX_STAYS_NOTHING };

static __always_inline int vmx_call(struct vmx_vcpu *vmx, unsigned long nr, enum vmx_stays stays)
{
	if (unlikely(!vmx->vcpu.calls))
		vmx_first_call(vmx);
	if (stays == VMX_STAYS_PARKED) {
		vmx_park(vmx);
	} else if (stays == VMX_STAYS_NOTHING) {
		vmx_close(vmx);
		vmx_leave_cpu(vmx);
	}
	current->flags &= ~PF_VCPU;
	local_irq_enable();
	if (unlikely(dune_syscall_fast(&vmx->vcpu, nr))) {
		vmx_sync_regs(vmx);
		return VMX_LOOP_LEAVE;
	}
	local_irq_disable();
	vmx_look_at_cr3(vmx);
	current->flags |= PF_VCPU;
	if (stays == VMX_STAYS_PARKED && vmx->vcpu.todo == DUNE_TODO_OPEN)
		vmx_reopen(vmx);
	return vmx_ready_to_enter(vmx, stays == VMX_STAYS_NOTHING ? VMX_LOOP_RELOAD :
								    VMX_LOOP_ENTER);
}

static noinline int vmx_call_apart(struct vmx_vcpu *vmx, unsigned long nr)
{
	return vmx_call(vmx, nr, VMX_STAYS_NOTHING);
}

/* Beside a VMCS of KVM's, or where VMX is turned off meanwhile. */
static noinline int vmx_call_put_back(struct vmx_vcpu *vmx, unsigned long nr)
{
	if (unlikely(READ_ONCE(vmx_kvm_came)))
		return vmx_call_apart(vmx, nr);
	return vmx_call(vmx, nr, VMX_STAYS_PARKED);
}

static noinline int vmx_other_turn(struct vmx_vcpu *vmx, enum vmx_next next)
{
	if (next > VMX_CHANGED)
		return vmx_slow_turn(vmx, next);
	return vmx_ready_to_enter(vmx, VMX_LOOP_RELOAD);
}

static noinline int vmx_ept_violation(struct vmx_vcpu *vmx)
{
	u64 gpa = vmcs_read64(GUEST_PHYSICAL_ADDRESS), qual = vmcs_readl(EXIT_QUALIFICATION);

	trace_dune_ept_violation(gpa, qual);
	vmx_requeue_vectoring(vmx);
	if (likely(dune_mirror_try(&vmx->vcpu, gpa, qual)))
		return vmx_ready_to_enter(vmx, VMX_LOOP_ENTER);
	vmx->fault_gpa = gpa;
	vmx->fault_qual = qual;
	return vmx_slow_turn(vmx, VMX_FAULT);
}

static noinline int vmx_turn_exit(struct vmx_vcpu *vmx, u32 reason)
{
	/* The rest tells how it was there, as in an SGX enclave (SDM 25.9.1). */
	reason &= VMX_EXIT_REASONS_FAILED_VMENTRY | 0xffff;
	/* Not exits[reason]: with CONFIG_UBSAN_BOUNDS that is compared a second time. */
	if (likely(reason < DUNE_NR_EXITS))
		++*(vmx->vcpu.count.exits + reason);
	if (reason == EXIT_REASON_EPT_VIOLATION)
		return vmx_ept_violation(vmx);
	if (reason == EXIT_REASON_CPUID) {
		vmx_cpuid(vmx->regs);
		vmx_skip(vmx);
		return vmx_ready_to_enter(vmx, VMX_LOOP_RELOAD);
	}
	return vmx_other_turn(vmx, vmx_handle_exit(vmx, reason));
}

/* A VMCALL that is not done here: a call for host mode, or a hypercall. */
static noinline int vmx_vmcall_slow(struct vmx_vcpu *vmx, u32 nr)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	u32 why = DUNE_EXIT_SYSCALL;

	switch (nr) {
	case DUNE_HC_NOP:
		vmx->regs->rax = 0;
		return vmx_ready_to_enter(vmx, VMX_LOOP_ENTER);
	case DUNE_HC_LEAVE:
		why = DUNE_EXIT_LEAVE;
		break;
	case DUNE_HC_SYSCALL:
		vmx->regs->rax = vmx->regs->r11;
		fallthrough;
	default:
		vcpu->count.slow_calls++;
		vcpu->page->restart = 0;
	}
	vcpu->page->exit = why;
	vmx_store_regs(vmx);
	return vmx_leave(vmx);
}

/**
 * vmx_turn() - after a VM exit
 * @vmx: the vCPU
 *
 * Context: called by entry.S with interrupts off, right after the exit.
 *
 * Return: VMX_LOOP_ENTER or VMX_LOOP_RELOAD with interrupts off, or VMX_LOOP_LEAVE with them on.
 */
__noendbr int vmx_turn(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	enum vmx_next next;
	unsigned long nr;
	u32 reason;
	u64 rip;

	/* The exit disarmed the host's breakpoints (SDM 28.5.1). */
	if (unlikely(hw_breakpoint_active()))
		set_debugreg(__this_cpu_read(cpu_dr7), 7);
	vmx->launched = true;
	reason = vmcs_read32(VM_EXIT_REASON);
	trace_dune_exit(vcpu, reason);
	if (unlikely(reason != EXIT_REASON_VMCALL))
		return vmx_turn_exit(vmx, reason);
	vcpu->count.exits[EXIT_REASON_VMCALL]++;
	/* Ring 3 may not call. Where the caller stands saves the look at its privilege level. */
	rip = vmcs_readl(GUEST_RIP);
	if (unlikely(rip - vcpu->gate_start >= vcpu->gate_size)) {
		next = vmx_vmcall_from_ring3(vmx);
		if (next != VMX_CALL)
			return vmx_other_turn(vmx, next);
	}
	vmcs_writel(GUEST_RIP, rip + 3);
	nr = (u32)READ_ONCE(vcpu->page->regs.rax); /* its low half, as Linux takes it */
	switch (dune_syscall_way(vcpu, &nr)) {
	case DUNE_CALL_FAST:
		if (unlikely(vmx->put_back))
			return vmx_call_put_back(vmx, nr);
		return vmx_call(vmx, nr, VMX_STAYS_ALL);
	case DUNE_CALL_APART:
		return vmx_call_apart(vmx, nr);
	case DUNE_CALL_NONE:
		vcpu->page->regs.rax = -ENOSYS;
		return vmx_ready_to_enter(vmx, VMX_LOOP_ENTER);
	case DUNE_CALL_SLOW:
		break;
	}
	return vmx_vmcall_slow(vmx, nr);
}

/**
 * vmx_turn_failed() - after a VM entry that did not happen (VMfail)
 * @vmx: the vCPU
 *
 * Return: VMX_LOOP_LEAVE.
 */
int vmx_turn_failed(struct vmx_vcpu *vmx)
{
	vmx_die(vmx, ~0u);
	return vmx_leave(vmx);
}

/**
 * vmx_run() - the engine's run operation
 * @vcpu: the calling thread's
 *
 * Context: process context.
 *
 * Return: 0 with page->exit set; -EINVAL, -EIO.
 */
int vmx_run(struct dune_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 set = READ_ONCE(vcpu->page->set);

	if (set)
		vcpu->todo |= DUNE_TODO_SET;
	if (vcpu->dead && !(set & DUNE_SET_RESET))
		return -EIO;
	vmx->repaired = false;
	vcpu->result = 0;
	local_irq_disable();
	/* So that the tick counts the guest's time as the process' own. */
	current->flags |= PF_VCPU;
	if (vmx_ready_to_enter(vmx, VMX_LOOP_RELOAD) == VMX_LOOP_LEAVE)
		return vcpu->result;
	vcpu->entered = true;
	if (vmx_use_safe_entry)
		vmx_loop_safe(vmx);
	else
		vmx_loop(vmx);
	return vcpu->result;
}
