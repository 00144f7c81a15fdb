/* SPDX-License-Identifier: GPL-2.0-only */
/* A vCPU: one thread's way into the guest. The engine embeds this in a struct of its own. */
#ifndef DUNE_VCPU_H
#define DUNE_VCPU_H

#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "dune.h"
#include "process.h"

/* dune_vcpu.todo: what has to be done before the next VM entry. */
#define DUNE_TODO_LOAD BIT(0)	/* make the vCPU's state current on this CPU, whatever was there */
#define DUNE_TODO_OPEN BIT(4)	/* no window is open: the engine's state is not accessible */
#define DUNE_TODO_SET BIT(1)	/* page->set asks for something */
#define DUNE_TODO_EVENT BIT(2)	/* an event waits to be injected */
#define DUNE_TODO_WINDOW BIT(3)	/* an interrupt-window exit is armed */

/* What a prctl() keeps from the thread, RDTSC or CPUID, its guest would have: there is none then. */
#define DUNE_TIF_REFUSED (_TIF_NOTSC | _TIF_NOCPUID)

#define DUNE_TABLE_CACHE 4	/* enough for one walk from the root to a 4 KiB leaf */

struct dune_vcpu {
	struct dune_vcpu_page *page;	/* shared with user space: read once, trust nothing */
	struct dune_process *proc;
	struct task_struct *task;	/* the only one that may run it; a reference */
	struct file *file;		/* the vCPU's own, once it was mapped; no reference */
	struct list_head node;		/* in proc->vcpus */
	struct preempt_notifier preempt;
	unsigned int todo;
	wait_queue_head_t wait;		/* in HLT */
	bool loaded;			/* the engine has state of it on the CPU */
	bool notified;			/* .preempt is registered */
	bool entered;			/* the guest ran in this run */
	int result;			/* of this run */
	bool dead;
	u64 gate_start, gate_size;	/* the page's, as they were when set */
	u64 flush_gen;			/* proc->flush_gen of the last flush on the CPU we are on */
	struct pt_regs saved;		/* the thread's own, while calls are made with them */
	bool calls;			/* they are: .saved is in use, and .file held */
	struct dune_leaf leaf;		/* of the last fault; not on the stack, which would be guarded */
	void *tables[DUNE_TABLE_CACHE];	/* zeroed pages for the mirror */
	unsigned int nr_tables;
	struct dune_stats count;	/* so that nobody counts in another's cache line */
};

/*
 * The engine: everything that depends on the kind of hardware virtualisation. There is one at a
 * time; a second (SVM) would fill the same table.
 */
struct dune_engine {
	const char *name;
	u64 features;			/* DUNE_FEAT_* */
	u64 cr0_guest_bits, cr4_guest_bits, cr0_initial, cr4_initial;
	unsigned int gpa_bits;
	unsigned int max_level;		/* of a mirror leaf */

	struct dune_vcpu *(*vcpu_create)(struct dune_process *proc, struct dune_vcpu_page *page);
	void (*vcpu_destroy)(struct dune_vcpu *vcpu);
	/*
	 * Runs the guest until user space has something to do; sets page->exit. 0 or -errno. Its
	 * state may be on the CPU while interrupts are on only after dune_vcpu_notify().
	 */
	int (*run)(struct dune_vcpu *vcpu);
	/*
	 * The thread leaves the CPU, or left the run loop with vcpu->loaded still set. Notes what
	 * is to be loaded again.
	 */
	void (*sched_out)(struct dune_vcpu *vcpu);

	/* The mirror's tables. All but the last two are called with proc->lock held. */
	/* false if a larger page is in the way; it goes soon */
	bool (*map)(struct dune_vcpu *vcpu, u64 gpa, const struct dune_leaf *leaf);
	/* true if a mapping went, and so CPUs have to flush; tables of no more use go to *freed */
	bool (*zap)(struct dune_process *proc, u64 start, u64 end, bool unmapped,
		    struct list_head *freed);
	/* Accessed since last asked? clear: forget that it was. *flush: a flush is needed. */
	bool (*young)(struct dune_process *proc, u64 start, u64 end, bool clear, bool *flush);
	int (*mirror_create)(struct dune_process *proc);
	void (*mirror_destroy)(struct dune_process *proc);
};

extern const struct dune_engine *dune_engine;
extern struct dune_engine dune_vmx_engine;
int dune_vmx_init(void);
void dune_vmx_exit(void);

int dune_vcpu_create(struct dune_process *proc);
void dune_vcpu_wait(struct dune_vcpu *vcpu);
void dune_vcpu_notify(struct dune_vcpu *vcpu);
bool dune_vcpu_is_door(const struct vm_area_struct *vma);

static inline struct list_head *dune_table_link(void *table)
{
	return &virt_to_page(table)->lru;
}

void dune_tables_free(struct list_head *freed);
int dune_tables_fill(struct dune_vcpu *vcpu);

/* rseq.c */
#include <linux/rseq.h>
bool dune_rseq_read(struct rseq_cs *cs);
void dune_rseq_aborted(const struct rseq_cs *cs);

static inline bool dune_rseq_in(const struct rseq_cs *cs, unsigned long rip)
{
	return rip - cs->start_ip < cs->post_commit_offset;
}

#endif
