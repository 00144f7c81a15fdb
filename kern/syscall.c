// SPDX-License-Identifier: GPL-2.0-only
/*
 * System calls without a way through user mode.
 *
 * The kernel's dispatcher is not exported. A kprobe tells where it is, and a static call makes a
 * direct call of it: no retpoline, and no ENDBR needed under IBT. Where it cannot be found, every
 * call is done in host mode, which is slower and no different.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kprobes.h>

#include "syscall.h"

bool dune_fast_calls;
DECLARE_BITMAP(dune_slow_nrs, NR_syscalls);

/*
 * Calls that work on the caller's own pt_regs or on state that the run loop keeps in the VMCS, make
 * a new thread of it, end it, or depend on the way to user mode that follows. In a PID namespace of
 * its own, reboot() ends it: a run that never returns would hold the vCPU for good.
 */
static const u16 slow_nrs[] = {
	__NR_rt_sigreturn, __NR_pause, __NR_clone, __NR_fork, __NR_vfork, __NR_execve, __NR_exit,
	__NR_rt_sigsuspend, __NR_modify_ldt, __NR_arch_prctl, __NR_iopl, __NR_exit_group,
	__NR_restart_syscall, __NR_execveat, __NR_clone3, __NR_reboot,
	335, 336, /* uretprobe, uprobe: where the kernel has them */
	__NR_ioctl, __NR_close, /* not plainly fast: see dune_syscall_other_way() */
};

/* Stands where the dispatcher's address has not been found. */
long dune_syscall_none(const struct pt_regs *regs, unsigned int nr)
{
	return -ENOSYS;
}

DEFINE_STATIC_CALL(dune_dispatch, dune_syscall_none);

/**
 * dune_syscall_init() - find the kernel's dispatcher
 * @allow: whether to look at all
 */
void __init dune_syscall_init(bool allow)
{
	/* For its address alone, so it stays disabled: to arm it would change code and wait for all CPUs. */
	struct kprobe kp = { .symbol_name = "x64_sys_call", .flags = KPROBE_FLAG_DISABLED };
	int i, ret;

	bitmap_fill(dune_slow_nrs, NR_syscalls);
	if (!allow)
		return;
	ret = register_kprobe(&kp);
	if (ret) {
		pr_info("x64_sys_call cannot be found (%d): system calls go through user mode\n", ret);
		return;
	}
	static_call_update(dune_dispatch, (void *)kp.addr);
	unregister_kprobe(&kp);
	bitmap_zero(dune_slow_nrs, NR_syscalls);
	for (i = 0; i < ARRAY_SIZE(slow_nrs); i++)
		if (slow_nrs[i] < NR_syscalls)
			__set_bit(slow_nrs[i], dune_slow_nrs);
	dune_fast_calls = true;
}

/** dune_syscall_exit() - forget the dispatcher */
void dune_syscall_exit(void)
{
	dune_fast_calls = false;
	static_call_update(dune_dispatch, dune_syscall_none);
}

/**
 * dune_syscall_save() - note the thread's own pt_regs before calls change them
 * @vcpu: the calling thread's
 * @regs: they
 *
 * One of the calls may close the vCPU's file, to which a thread that is alone in its process holds
 * no reference in a call. Calls are asked for in the page, so somebody has mapped that.
 */
void dune_syscall_save(struct dune_vcpu *vcpu, const struct pt_regs *regs)
{
	vcpu->calls = true;
	vcpu->saved = *regs;
	get_file(vcpu->file);
}

/**
 * dune_syscall_restore() - give the thread its own pt_regs back
 * @vcpu: the calling thread's; it has saved them. May be gone when the thread gets to user mode
 */
void dune_syscall_restore(struct dune_vcpu *vcpu)
{
	vcpu->calls = false;
	*current_pt_regs() = vcpu->saved;
	fput(vcpu->file);
}

/**
 * dune_syscall_interrupted() - a call wants to be restarted after the way to user mode
 * @vcpu: the calling thread's
 * @ret: what it returned, -ERESTARTSYS and so on
 *
 * Return: 1 with page->exit set; 0 if it was none of these.
 */
int dune_syscall_interrupted(struct dune_vcpu *vcpu, long ret)
{
	struct dune_vcpu_page *page = vcpu->page;

	/* -ENOIOCTLCMD stands among them. */
	if (ret == -ENOIOCTLCMD) {
		page->regs.rax = ret;
		return 0;
	}
	/* This one goes on where it was, with what time is left. */
	if (ret == -ERESTART_RESTARTBLOCK)
		page->regs.rax = __NR_restart_syscall;
	page->restart = -ret;
	page->exit = DUNE_EXIT_SYSCALL;
	vcpu->count.slow_calls++;
	return 1;
}
