/* SPDX-License-Identifier: GPL-2.0-only */
/* System calls of the guest: which way each goes, and the fast way. */
#ifndef DUNE_SYSCALL_H
#define DUNE_SYSCALL_H

#include <linux/kvm.h>
#include <linux/nospec.h>
#include <linux/ptrace.h>
#include <linux/sched/task_stack.h>
#include <linux/static_call.h>
#include <linux/thread_info.h>
#include <asm/syscall.h>
#include <asm/unistd.h>

#include "trace.h"
#include "vcpu.h"

long dune_syscall_none(const struct pt_regs *regs, unsigned int nr);
DECLARE_STATIC_CALL(dune_dispatch, dune_syscall_none);

extern bool dune_fast_calls;
extern unsigned long dune_slow_nrs[];	/* all of them, if there is no fast way */

void dune_syscall_init(bool allow);
void dune_syscall_exit(void);
void dune_syscall_save(struct dune_vcpu *vcpu, const struct pt_regs *regs);
void dune_syscall_restore(struct dune_vcpu *vcpu);
int dune_syscall_interrupted(struct dune_vcpu *vcpu, long ret);

enum dune_way {
	DUNE_CALL_SLOW,			/* in host mode, by the kernel's own entry */
	DUNE_CALL_FAST,			/* here */
	DUNE_CALL_APART,		/* here, with nothing of the guest's on the CPU */
	DUNE_CALL_NONE,			/* there is no such call, and nobody wants to know of it */
};

/*
 * One that is not plainly fast. What KVM does in an ioctl, or in the end of a VM by close(), takes the
 * CPU as the host left it, and may leave another VMCS current without a change of the thread. KVM_RUN
 * also leaves branch predictions of its guest to the way to user mode.
 */
static __always_inline enum dune_way dune_syscall_other_way(struct dune_vcpu *vcpu, unsigned long nr)
{
	if ((nr != __NR_ioctl && nr != __NR_close) || !dune_fast_calls)
		return DUNE_CALL_SLOW;
	if (nr == __NR_ioctl && (u32)READ_ONCE(vcpu->page->regs.rsi) == KVM_RUN)
		return DUNE_CALL_SLOW;
	return DUNE_CALL_APART;
}

/*
 * How a call may be done. What watches calls (seccomp, ptrace, audit, ...) is in syscall_work. A number
 * that is one is so for speculation, too, from here on.
 */
static __always_inline enum dune_way dune_syscall_way(struct dune_vcpu *vcpu, unsigned long *nr)
{
	if (unlikely(!(READ_ONCE(vcpu->page->flags) & DUNE_RUN_FAST) ||
		     READ_ONCE(current_thread_info()->syscall_work)))
		return DUNE_CALL_SLOW;
	if (likely(*nr < NR_syscalls)) {
		*nr = array_index_nospec(*nr, NR_syscalls);
		return test_bit(*nr, dune_slow_nrs) ? dune_syscall_other_way(vcpu, *nr) : DUNE_CALL_FAST;
	}
	return *nr - DUNE_HC_BASE < DUNE_HC_COUNT ? DUNE_CALL_SLOW : DUNE_CALL_NONE;
}

/**
 * dune_syscall_fast() - do the system call in page->regs
 * @vcpu: the calling thread's
 * @nr: its number, read once from rax, as dune_syscall_way() left it, which said how
 *
 * Context: process context, after dune_syscall_save() in the same run.
 *
 * Return: 0 with the result in rax; 1 if user space has to do it (page->exit is set).
 */
static __always_inline int dune_syscall_fast(struct dune_vcpu *vcpu, unsigned long nr)
{
	const struct dune_regs *guest = &vcpu->page->regs;
	struct pt_regs *regs = current_pt_regs();
	long ret;

	regs->orig_ax = nr;
	regs->di = guest->rdi;
	regs->si = guest->rsi;
	regs->dx = guest->rdx;
	regs->r10 = guest->r10;
	regs->r8 = guest->r8;
	regs->r9 = guest->r9;
	ret = static_call(dune_dispatch)(regs, nr);
	vcpu->count.fast_calls++;
	trace_dune_syscall(vcpu, ret);
	if (unlikely(ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK))
		return dune_syscall_interrupted(vcpu, ret);
	vcpu->page->regs.rax = ret;
	return 0;
}

#endif
