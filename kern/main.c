// SPDX-License-Identifier: GPL-2.0-only
/* Load and unload. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/preempt.h>

#include "device.h"
#include "process.h"
#include "syscall.h"
#include "vcpu.h"

static bool fast_syscalls = true;
module_param(fast_syscalls, bool, 0444);
MODULE_PARM_DESC(fast_syscalls, "do system calls without leaving the kernel where that is safe (default: yes)");

const struct dune_engine *dune_engine = &dune_vmx_engine;

static int __init dune_init(void)
{
	int ret = dune_vmx_init();

	if (ret)
		return ret;
	dune_mirror_init();
	dune_syscall_init(fast_syscalls);
	dune_debugfs_init();
	preempt_notifier_inc();
	ret = dune_device_init();
	if (ret)
		goto out;
	pr_info("ready: %s, VMX %s, system calls %s, %u-bit guest-physical addresses\n",
		dune_engine->name,
		dune_engine->features & DUNE_FEAT_KVM ? "shared with kvm" : "on for each entry",
		dune_fast_calls ? "fast" : "through user mode", dune_engine->gpa_bits);
	return 0;
out:
	preempt_notifier_dec();
	dune_debugfs_exit();
	dune_syscall_exit();
	dune_vmx_exit();
	return ret;
}

static void __exit dune_exit(void)
{
	dune_device_exit();
	dune_process_exit();
	preempt_notifier_dec();
	dune_debugfs_exit();
	dune_syscall_exit();
	dune_vmx_exit();
}

module_init(dune_init);
module_exit(dune_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Dune: safe user-level access to privileged CPU features");
MODULE_SOFTDEP("pre: kvm_intel");
