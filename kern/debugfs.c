// SPDX-License-Identifier: GPL-2.0-only
/* /sys/kernel/debug/dune/PID-N: what each process that uses Dune has counted. */
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "process.h"

static struct dentry *dune_debugfs;

static int stats_show(struct seq_file *m, void *unused)
{
	struct dune_stats *st = kzalloc(sizeof(*st), GFP_KERNEL);
	int i;

	if (!st)
		return -ENOMEM;
	dune_process_stats(m->private, st);
	seq_printf(m, "vcpus %u\nentries %llu\nbounces %llu\nfast_calls %llu\nslow_calls %llu\n",
		   st->vcpus, st->entries, st->bounces, st->fast_calls, st->slow_calls);
	seq_printf(m, "ept_faults %llu\nguest_faults %llu\nept_bytes %llu\nept_flushes %llu\n",
		   st->ept_faults, st->guest_faults, st->ept_bytes, st->ept_flushes);
	seq_printf(m, "foreign %llu\nmigrations %llu\n", st->foreign, st->migrations);
	for (i = 0; i < DUNE_NR_EXITS; i++)
		if (st->exits[i])
			seq_printf(m, "exit_%d %llu\n", i, st->exits[i]);
	kfree(st);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/** dune_debugfs_init() - make the directory */
void dune_debugfs_init(void)
{
	dune_debugfs = debugfs_create_dir("dune", NULL);
}

/** dune_debugfs_exit() - take it away */
void dune_debugfs_exit(void)
{
	debugfs_remove(dune_debugfs);
}

/** dune_debugfs_add() - show a process
 * @proc: the process
 */
void dune_debugfs_add(struct dune_process *proc)
{
	static atomic_t serial;
	char name[32];

	/* One pid can have two, for a moment, around exec. */
	snprintf(name, sizeof(name), "%d-%u", proc->pid, atomic_inc_return(&serial));
	proc->debugfs = debugfs_create_file(name, 0400, dune_debugfs, proc, &stats_fops);
}

/** dune_debugfs_remove() - show it no more; waits for readers
 * @proc: the process
 */
void dune_debugfs_remove(struct dune_process *proc)
{
	debugfs_remove(proc->debugfs);
}
