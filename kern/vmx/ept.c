// SPDX-License-Identifier: GPL-2.0-only
/* EPT tables (SDM 29.3): four levels, leaves of 4 KiB, 2 MiB and 1 GiB. */
#include <linux/gfp.h>
#include <linux/mm.h>

#include "vmx.h"

#define EPT_READ BIT_ULL(0)
#define EPT_WRITE BIT_ULL(1)
#define EPT_EXEC BIT_ULL(2)
#define EPT_RWX (EPT_READ | EPT_WRITE | EPT_EXEC)
#define EPT_MEMTYPE_SHIFT 3
#define EPT_IGNORE_PAT BIT_ULL(6)	/* the guest cannot change the memory type */
#define EPT_LARGE BIT_ULL(7)
#define EPT_ACCESSED BIT_ULL(8)
#define EPT_ADDR 0x000ffffffffff000ull

#define EPT_ROOT_LEVEL 4

static u64 level_size(int level)
{
	return 1ull << (12 + 9 * (level - 1));
}

static u64 *ept_entry(void *table, u64 gpa, int level)
{
	return (u64 *)table + (gpa >> (12 + 9 * (level - 1)) & 511);
}

static bool is_leaf(u64 entry, int level)
{
	return level == 1 || entry & EPT_LARGE;
}

static void *child(u64 entry)
{
	return __va(entry & EPT_ADDR);
}

/**
 * vmx_ept_create() - an empty root
 * @proc: the process
 *
 * Return: 0 or -ENOMEM.
 */
int vmx_ept_create(struct dune_process *proc)
{
	proc->root = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!proc->root)
		return -ENOMEM;
	proc->nr_tables = 1;
	return 0;
}

/* Puts a table and all below it on the list. */
static void ept_unlink(struct dune_process *proc, void *table, int level, struct list_head *freed)
{
	int i;

	for (i = 0; level > 1 && i < 512; i++) {
		u64 entry = ((u64 *)table)[i];

		if (entry & EPT_RWX && !is_leaf(entry, level))
			ept_unlink(proc, child(entry), level - 1, freed);
	}
	list_add(dune_table_link(table), freed);
	proc->nr_tables--;
	proc->tables_gone++;
}

/**
 * vmx_ept_destroy() - free all tables; no vCPU is left
 * @proc: the process
 */
void vmx_ept_destroy(struct dune_process *proc)
{
	LIST_HEAD(freed);

	ept_unlink(proc, proc->root, EPT_ROOT_LEVEL, &freed);
	dune_tables_free(&freed);
	proc->root = NULL;
}

static u64 ept_leaf(const struct dune_leaf *leaf, u64 gpa, int level)
{
	u64 val = leaf->pa | leaf->access | EPT_IGNORE_PAT | EPT_ACCESSED;

	BUILD_BUG_ON(DUNE_LEAF_READ != EPT_READ || DUNE_LEAF_WRITE != EPT_WRITE ||
		     DUNE_LEAF_EXEC != EPT_EXEC || DUNE_LEAF_MEMTYPE_SHIFT != EPT_MEMTYPE_SHIFT);
	if (likely(level == 1 && leaf->level == 1))
		return val;
	/* Where a leaf as large cannot be, the part of it that was asked for. */
	return val | (gpa & (level_size(leaf->level) - 1) & ~(level_size(level) - 1)) |
	       (level > 1 ? EPT_LARGE : 0);
}

/**
 * vmx_ept_map() - put one translation in
 * @vcpu: the calling thread's; has DUNE_TABLE_CACHE tables
 * @gpa: guest-physical address of the access
 * @leaf: what the host's page table says of it
 *
 * Context: proc->lock held.
 *
 * Return: false if a larger page is in the way: Linux is splitting it, and its notifier comes.
 */
bool vmx_ept_map(struct dune_vcpu *vcpu, u64 gpa, const struct dune_leaf *leaf)
{
	int level = EPT_ROOT_LEVEL, last = min_t(int, leaf->level, dune_vmx_engine.max_level);
	struct dune_process *proc = vcpu->proc;
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	void *table = proc->root;
	u64 *e, val;

	if (last > 1) {
		/* A large one from before it was executable is not there: Linux told the notifier. */
		if (vmx_config.small_code && leaf->access & DUNE_LEAF_EXEC)
			last = 1;
	} else if (vmx->last_table && vmx->last_table_gpa == gpa >> 21 &&
		   vmx->last_table_gone == proc->tables_gone) {
		/* The table that the last page went to often takes the next one, too. */
		WRITE_ONCE(*ept_entry(vmx->last_table, gpa, 1), ept_leaf(leaf, gpa, 1));
		return true;
	}
	for (;; level--) {
		e = ept_entry(table, gpa, level);
		val = *e;
		if (level == last) {
			/*
			 * A table where a large page belongs now: it is empty, or has what came since
			 * its pages went. Either is right, so it stays, and gets a small page.
			 */
			if (likely(level == 1 || !(val & EPT_RWX) || is_leaf(val, level)))
				break;
			last--;
		}
		if (!(val & EPT_RWX)) {
			void *next = vcpu->tables[--vcpu->nr_tables];

			proc->nr_tables++;
			WRITE_ONCE(*e, __pa(next) | EPT_RWX);
			table = next;
			continue;
		}
		/* A larger page was here, and Linux is splitting it: its notifier comes. */
		if (unlikely(is_leaf(val, level)))
			return false;
		table = child(val);
	}
	WRITE_ONCE(*e, ept_leaf(leaf, gpa, level));
	if (level == 1) {
		vmx->last_table = table;
		vmx->last_table_gpa = gpa >> 21;
		vmx->last_table_gone = proc->tables_gone;
	}
	return true;
}

/* Of a table that is not empty, an entry is mostly near to where one has just been taken out. */
static bool ept_empty(const u64 *table, int level, u64 gpa)
{
	unsigned int at = gpa >> (12 + 9 * (level - 1)) & 511, i;

	for (i = 0; i <= 256; i++)
		if (table[(at + i) & 511] | table[(at - i) & 511])
			return false;
	return true;
}

static bool ept_zap_table(struct dune_process *proc, void *table, int level, u64 base, u64 start,
			  u64 end, bool unmapped, struct list_head *freed)
{
	u64 size = level_size(level), a, *e;
	bool flush = false;

	a = max(start, base) & ~(size - 1);
	for (e = ept_entry(table, a, level); a < min(end, base + 512 * size); a += size, e++) {
		u64 val = *e;

		if (!(val & EPT_RWX))
			continue;
		/* If all of a table's range goes, the table need not stay. */
		if (!is_leaf(val, level) && (a < start || end < a + size)) {
			flush |= ept_zap_table(proc, child(val), level - 1, a, start, end, unmapped, freed);
			/* Nor if this was the last of it: then Linux frees its own table as well. */
			if (!unmapped || !ept_empty(child(val), level - 1, max(start, a)))
				continue;
		}
		WRITE_ONCE(*e, 0);
		if (!is_leaf(val, level))
			ept_unlink(proc, child(val), level - 1, freed);
		flush = true;
	}
	return flush;
}

/**
 * vmx_ept_zap() - take translations out
 * @proc: the process
 * @start: first guest-physical address
 * @end: the one after the last
 * @unmapped: look for tables that are empty now; else they are to be used again
 * @freed: gets tables that are of no use any more; free them after the flush
 *
 * Context: proc->lock held.
 *
 * Return: whether there was anything, and CPUs may still use it until they flush.
 */
bool vmx_ept_zap(struct dune_process *proc, u64 start, u64 end, bool unmapped,
		 struct list_head *freed)
{
	return ept_zap_table(proc, proc->root, EPT_ROOT_LEVEL, 0, start, end, unmapped, freed);
}

static bool ept_young_table(void *table, int level, u64 base, u64 start, u64 end, bool clear,
			    bool *flush)
{
	u64 size = level_size(level), a;
	bool young = false;
	u64 *e;

	a = max(start, base) & ~(size - 1);
	for (e = ept_entry(table, a, level); a < min(end, base + 512 * size); a += size, e++) {
		u64 val = *e;

		if (!(val & EPT_RWX))
			continue;
		if (!is_leaf(val, level)) {
			young |= ept_young_table(child(val), level - 1, a, start, end, clear, flush);
		} else if (!vmx_config.ept_ad) {
			/* Without accessed bits, what is mapped is young, and clearing unmaps it. */
			young = true;
			if (clear) {
				WRITE_ONCE(*e, 0);
				*flush = true;
			}
		} else if (val & EPT_ACCESSED) {
			young = true;
			if (clear) {
				clear_bit(ilog2(EPT_ACCESSED), (unsigned long *)e);
				*flush = true;
			}
		}
	}
	return young;
}

/**
 * vmx_ept_young() - were pages of a range accessed?
 * @proc: the process
 * @start: first guest-physical address
 * @end: the one after the last
 * @clear: forget that they were
 * @flush: set if CPUs have to flush before they notice new accesses
 *
 * Context: proc->lock held.
 *
 * Return: whether any was.
 */
bool vmx_ept_young(struct dune_process *proc, u64 start, u64 end, bool clear, bool *flush)
{
	return ept_young_table(proc->root, EPT_ROOT_LEVEL, 0, start, end, clear, flush);
}
