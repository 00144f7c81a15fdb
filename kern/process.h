/* SPDX-License-Identifier: GPL-2.0-only */
/* A process (an mm) that uses Dune: its slots, its mirror, its vCPUs. */
#ifndef DUNE_PROCESS_H
#define DUNE_PROCESS_H

#include <linux/cpumask.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/xarray.h>
#include <asm/ibt.h>

#include "dune.h"

struct dune_vcpu;

struct dune_process {
	struct kref ref;
	struct list_head node;		/* in the list of all, under its mutex */
	struct mm_struct *mm;		/* kept (mm_count) by the notifier */
	struct mmu_notifier notifier;
	struct llist_node leaving;	/* the last reference is gone */
	pid_t pid;			/* of the opener, for debugfs */
	struct dentry *debugfs;

	/* slots: guest-physical to virtual, and back */
	struct mutex slots_lock;
	u32 *slots;			/* nr_slots entries, DUNE_SLOT_NONE where nothing shows */
	u32 nr_slots;
	struct xarray va_slots;		/* virtual slot -> guest-physical slot */

	/* the mirror */
	spinlock_t lock;		/* of the tables and of what follows */
	void *root;			/* the engine's root table */
	u64 nr_tables;
	u64 tables_gone;		/* grows when tables leave: pointers to them are void */
	u64 flush_gen;			/* grows when entries went; a vCPU that is behind flushes */
	u64 kicked_gen;			/* what of it every vCPU was told of at once */
	u64 inval_seq;			/* grows at the end of each invalidation */
	unsigned int inval_active, inval_cpu; /* invalidations under way; where the first of them began */
	unsigned long inval_start, inval_end; /* all of them lie in here */
	wait_queue_head_t inval_wait;	/* for the end of one */
	bool dead;			/* the mm is going */
	cpumask_var_t cpus;		/* CPUs that may have a vCPU of ours loaded */

	struct mutex vcpus_lock;
	struct list_head vcpus;
	unsigned int nr_vcpus;
	struct dune_stats gone;		/* what vCPUs that are no more had counted */
};

/* One translation of the process' own page table. */
struct dune_leaf {
	u64 pa;				/* host-physical, aligned to the level's size */
	u32 level;			/* 1: 4 KiB, 2: 2 MiB, 3: 1 GiB */
	u32 access;			/* DUNE_LEAF_*, and the memory type (SDM 12.3) above them */
};

/* Kinds of access; VT-x has them like this in EPT entries and in exit qualifications. */
#define DUNE_LEAF_READ BIT(0)
#define DUNE_LEAF_WRITE BIT(1)
#define DUNE_LEAF_EXEC BIT(2)
#define DUNE_LEAF_ACCESS 7u
#define DUNE_LEAF_MEMTYPE_SHIFT 3

struct dune_process *dune_process_get(void);
void dune_process_put(struct dune_process *proc);
void dune_process_free(struct dune_process *proc);
void dune_process_exit(void);
int dune_process_set_slots(struct dune_process *proc, u32 first, u32 count, const u32 *va_slots);
void dune_process_stats(struct dune_process *proc, struct dune_stats *st);
void dune_process_kick(struct dune_process *proc);
void dune_stats_add(struct dune_stats *to, const struct dune_stats *from);

/* __noendbr here and elsewhere: called by name alone, on a way whose instructions we count */
__noendbr bool dune_mirror_try(struct dune_vcpu *vcpu, u64 gpa, u32 access);
int dune_mirror_fault(struct dune_vcpu *vcpu, u64 gpa, u32 access);
void dune_mirror_clear(struct dune_process *proc, unsigned long start, unsigned long end);
void dune_mirror_init(void);
extern const struct mmu_notifier_ops dune_mirror_notifier_ops;

void dune_debugfs_init(void);
void dune_debugfs_exit(void);
void dune_debugfs_add(struct dune_process *proc);
void dune_debugfs_remove(struct dune_process *proc);

#endif
