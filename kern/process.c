// SPDX-License-Identifier: GPL-2.0-only
/* Processes: one for each mm that opened /dev/dune. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/workqueue.h>

#include "process.h"
#include "vcpu.h"

static LIST_HEAD(dune_processes);
static DEFINE_MUTEX(dune_processes_lock);
static atomic_t dune_registered;	/* processes with a notifier, or one that is about to be freed */

static struct dune_process *process_create(struct mm_struct *mm)
{
	struct dune_process *proc = kzalloc(sizeof(*proc), GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	if (!proc)
		return ERR_PTR(-ENOMEM);
	kref_init(&proc->ref);
	proc->mm = mm;
	proc->pid = task_tgid_nr(current);
	mutex_init(&proc->slots_lock);
	mutex_init(&proc->vcpus_lock);
	spin_lock_init(&proc->lock);
	init_waitqueue_head(&proc->inval_wait);
	INIT_LIST_HEAD(&proc->vcpus);
	xa_init_flags(&proc->va_slots, XA_FLAGS_ACCOUNT);
	proc->flush_gen = 1;
	proc->nr_slots = 1u << (dune_engine->gpa_bits - DUNE_SLOT_SHIFT);
	proc->slots = kvmalloc_array(proc->nr_slots, sizeof(*proc->slots), GFP_KERNEL_ACCOUNT);
	if (!proc->slots)
		goto free;
	memset32(proc->slots, DUNE_SLOT_NONE, proc->nr_slots);
	if (!zalloc_cpumask_var(&proc->cpus, GFP_KERNEL_ACCOUNT))
		goto free;
	ret = dune_engine->mirror_create(proc);
	if (ret)
		goto free_cpus;
	proc->notifier.ops = &dune_mirror_notifier_ops;
	ret = mmu_notifier_register(&proc->notifier, mm);
	if (ret)
		goto free_mirror;
	atomic_inc(&dune_registered);
	dune_debugfs_add(proc);
	return proc;

free_mirror:
	dune_engine->mirror_destroy(proc);
free_cpus:
	free_cpumask_var(proc->cpus);
free:
	kvfree(proc->slots);
	kfree(proc);
	return ERR_PTR(ret);
}

/**
 * dune_process_free() - free what a process had
 * @proc: without references, its notifier off
 */
void dune_process_free(struct dune_process *proc)
{
	dune_engine->mirror_destroy(proc);
	xa_destroy(&proc->va_slots);
	free_cpumask_var(proc->cpus);
	kvfree(proc->slots);
	kfree(proc);
	atomic_dec(&dune_registered);
}

static struct dune_process *process_find(struct mm_struct *mm)
{
	struct dune_process *proc;

	lockdep_assert_held(&dune_processes_lock);
	list_for_each_entry(proc, &dune_processes, node) {
		if (proc->mm == mm) {
			kref_get(&proc->ref);
			return proc;
		}
	}
	return NULL;
}

/**
 * dune_process_get() - the process of the calling thread's mm, made if it is new
 *
 * Return: a reference, or an ERR_PTR.
 */
struct dune_process *dune_process_get(void)
{
	struct mm_struct *mm = current->mm;
	struct dune_process *proc, *made;

	if (!mm)
		return ERR_PTR(-EINVAL);
	mutex_lock(&dune_processes_lock);
	proc = process_find(mm);
	mutex_unlock(&dune_processes_lock);
	if (proc)
		return proc;
	/* Takes the mm's lock, which may be held for long: not with ours, which is everybody's. */
	made = process_create(mm);
	if (IS_ERR(made))
		return made;
	mutex_lock(&dune_processes_lock);
	proc = process_find(mm);
	if (!proc)
		list_add(&made->node, &dune_processes);
	mutex_unlock(&dune_processes_lock);
	if (!proc)
		return made;
	/* Another thread was faster. */
	dune_debugfs_remove(made);
	mmu_notifier_put(&made->notifier);
	return proc;
}

/*
 * Processes whose notifiers are to go. To let one go starts a grace period of the SRCU that all
 * notifiers share, and Linux waits for the same SRCU when an mm with a notifier ends: not at all if
 * nobody has started one, else for some ticks. So they go together, now and then.
 */
#define DUNE_PUT_DELAY	(HZ / 10)
static LLIST_HEAD(dune_leaving);

static void processes_leave(struct work_struct *work)
{
	struct dune_process *proc, *next;

	/* A notifier may still be called until a grace period after this; then it frees the process. */
	llist_for_each_entry_safe(proc, next, llist_del_all(&dune_leaving), leaving)
		mmu_notifier_put(&proc->notifier);
}
static DECLARE_DELAYED_WORK(dune_leave_work, processes_leave);

/** dune_process_exit() - free all processes; nobody has the device open */
void dune_process_exit(void)
{
	flush_delayed_work(&dune_leave_work);
	/*
	 * They are freed by SRCU callbacks of ours. mmu_notifier_synchronize() waits for a grace
	 * period, after which those of other CPUs may still have to run.
	 */
	while (atomic_read(&dune_registered))
		msleep(20);
	/* And until the last has returned: they run with softirqs off. */
	synchronize_rcu();
}

static void process_release(struct kref *ref)
{
	struct dune_process *proc = container_of(ref, struct dune_process, ref);

	list_del(&proc->node);
	mutex_unlock(&dune_processes_lock);
	dune_debugfs_remove(proc);
	/* Here, as what ends the last notifier runs with softirqs off. No vCPU is left. */
	dune_mirror_clear(proc, 0, TASK_SIZE_MAX);
	if (llist_add(&proc->leaving, &dune_leaving))
		schedule_delayed_work(&dune_leave_work, DUNE_PUT_DELAY);
}

/** dune_process_put() - give a reference back
 * @proc: from dune_process_get()
 */
void dune_process_put(struct dune_process *proc)
{
	kref_put_mutex(&proc->ref, process_release, &dune_processes_lock);
}

/**
 * dune_process_set_slots() - choose what guest-physical slots show
 * @proc: the process
 * @first: first guest-physical slot
 * @count: how many
 * @va_slots: virtual addresses >> DUNE_SLOT_SHIFT, or DUNE_SLOT_NONE
 *
 * Slots are set one after the other: at an error those before it are set.
 *
 * Return: 0; -EINVAL for slot 0 or an address that is not the process'; -EEXIST if a virtual slot
 * is shown elsewhere; -ENOMEM.
 */
int dune_process_set_slots(struct dune_process *proc, u32 first, u32 count, const u32 *va_slots)
{
	const unsigned long size = 1ul << DUNE_SLOT_SHIFT;
	u32 i, old, slot, va;
	int ret = 0;

	if (!first || first >= proc->nr_slots || count > proc->nr_slots - first)
		return -EINVAL;
	mutex_lock(&proc->slots_lock);
	for (i = 0; i < count; i++) {
		slot = first + i;
		va = va_slots[i];
		old = proc->slots[slot];
		if (va == old)
			continue;
		if (va <= (TASK_SIZE_MAX - 1) >> DUNE_SLOT_SHIFT)
			ret = xa_insert(&proc->va_slots, va, xa_mk_value(slot), GFP_KERNEL_ACCOUNT);
		else if (va != DUNE_SLOT_NONE)
			ret = -EINVAL;
		if (ret)
			break;
		WRITE_ONCE(proc->slots[slot], va);
		if (old != DUNE_SLOT_NONE) {
			dune_mirror_clear(proc, old * size, (old + 1) * size);
			xa_erase(&proc->va_slots, old);
		}
	}
	mutex_unlock(&proc->slots_lock);
	return ret == -EBUSY ? -EEXIST : ret;
}

static void process_nop(void *unused)
{
}

/**
 * dune_process_kick() - get every vCPU of a process out of the guest once
 * @proc: the process
 *
 * When it returns, each of them has left the guest since the call, or will look at
 * proc->flush_gen before it runs another guest instruction: the IPI ends guest mode at once, also
 * when it arrives between the look and the entry, since the interrupt then is pending at entry.
 *
 * Context: process context; no locks that an IPI handler takes.
 */
void dune_process_kick(struct dune_process *proc)
{
	u64 gen = READ_ONCE(proc->flush_gen);

	/* Between the change of flush_gen and the look at who runs; see vmx_load(). */
	smp_mb();
	preempt_disable();
	smp_call_function_many(proc->cpus, process_nop, NULL, true);
	preempt_enable();
	/* A later one may have been faster: then somebody kicks once more than needed. */
	WRITE_ONCE(proc->kicked_gen, gen);
}

/** dune_stats_add() - add one set of counters to another
 * @to: sum
 * @from: what is added, by its thread at the same time
 */
void dune_stats_add(struct dune_stats *to, const struct dune_stats *from)
{
	const u64 *f = (const u64 *)from;
	u64 *t = (u64 *)to;
	size_t i;

	for (i = 0; i < sizeof(*to) / sizeof(u64); i++)
		t[i] += READ_ONCE(f[i]);
}

/** dune_process_stats() - what the process has counted so far
 * @proc: the process
 * @st: where to put it
 */
void dune_process_stats(struct dune_process *proc, struct dune_stats *st)
{
	struct dune_vcpu *vcpu;
	int i;

	memset(st, 0, sizeof(*st));
	mutex_lock(&proc->vcpus_lock);
	dune_stats_add(st, &proc->gone);
	list_for_each_entry(vcpu, &proc->vcpus, node)
		dune_stats_add(st, &vcpu->count);
	st->vcpus = proc->nr_vcpus;
	mutex_unlock(&proc->vcpus_lock);
	st->size = sizeof(*st);
	/* Each entry ends with one exit. */
	for (i = 0; i < DUNE_NR_EXITS; i++)
		st->entries += st->exits[i];
	st->ept_bytes = READ_ONCE(proc->nr_tables) * PAGE_SIZE;
}
