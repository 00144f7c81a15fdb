/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels that one source serves (6.1 to 7.3), and nothing else. */
#ifndef DUNE_COMPAT_H
#define DUNE_COMPAT_H

#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched.h>
#include <linux/version.h>
#include <asm/msr.h>

/* 6.16 renamed the 64-bit MSR accessors. */
#ifndef rdmsrl
#define rdmsrl(msr, val) rdmsrq(msr, val)
#define wrmsrl(msr, val) wrmsrq(msr, val)
#define rdmsrl_safe(msr, p) rdmsrq_safe(msr, p)
#endif

/* 6.12 moved the entry work flags to a header of their own. */
#if __has_include(<linux/irq-entry-common.h>)
#include <linux/irq-entry-common.h>
#endif
#include <linux/entry-common.h>

/* 6.19 put the rseq state of a task in a struct. */
#if !defined(CONFIG_RSEQ)
#define dune_task_rseq(t) ((struct rseq __user *)NULL)
#define dune_task_rseq_sig(t) 0
#elif __has_include(<linux/rseq_types.h>)
#define dune_task_rseq(t) ((t)->rseq.usrptr)
#define dune_task_rseq_sig(t) ((t)->rseq.sig)
#else
#define dune_task_rseq(t) ((t)->rseq)
#define dune_task_rseq_sig(t) ((t)->rseq_sig)
#endif

/* Not every kernel knows this one; what it wants done is the same. */
#ifndef X86_BUG_RFDS
#define X86_BUG_RFDS X86_BUG_MDS
#endif

/* 7.3 has bool where it had int: whatever these operations return. */
#define dune_young_t typeof(((struct mmu_notifier_ops *)0)->test_young(NULL, NULL, 0))

/* 6.3 made vm_flags read-only. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define vm_flags_set(vma, flags) ((vma)->vm_flags |= (flags))
#define vm_flags_clear(vma, flags) ((vma)->vm_flags &= ~(flags))
#endif

/* 6.6 brought shadow stacks of user mode. */
#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK VM_NONE
#endif

#endif
