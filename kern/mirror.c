// SPDX-License-Identifier: GPL-2.0-only
/*
 * The mirror: guest-physical memory shows what the process' own page table says, and follows it.
 *
 * The page table is walked as the kernel's fast GUP does, with interrupts off, so that its pages
 * are not freed under the walk. No page is referenced or pinned: the MMU notifiers take a mapping
 * out of the mirror before Linux takes the page away. Where the page table has no usable entry,
 * Linux' own fault handler is asked for one, with all that it knows.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/nospec.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>
#include <asm/mmu_context.h>

#include "compat.h"
#include "process.h"
#include "trace.h"
#include "vcpu.h"

static u32 mirror_memtype[8];	/* by the PAT index of a page-table entry */
static int mirror_top_shift;	/* of the root table */

#define PGDIR_SHIFT_4 39		/* of the root of four levels */

/** dune_mirror_init() - learn the shape of page tables here */
void __init dune_mirror_init(void)
{
	u64 pat;
	int i;

	rdmsrl(MSR_IA32_CR_PAT, pat);
	for (i = 0; i < 8; i++) {
		u8 type = pat >> (8 * i) & 7;

		/* UC- (7) has no place in EPT; without the MTRRs' say it is UC. */
		mirror_memtype[i] = (type == 7 ? 0 : type) << DUNE_LEAF_MEMTYPE_SHIFT;
	}
	mirror_top_shift = pgtable_l5_enabled() ? 48 : PGDIR_SHIFT_4;
}

static __always_inline u32 mirror_type(u64 val, int shift)
{
	u64 pat = shift == PAGE_SHIFT ? _PAGE_PAT : _PAGE_PAT_LARGE;

	if (likely(!(val & (_PAGE_PWT | _PAGE_PCD | pat))))
		return mirror_memtype[0];
	return mirror_memtype[(val & pat ? 4 : 0) | (val & _PAGE_PCD ? 2 : 0) |
			      (val & _PAGE_PWT ? 1 : 0)];
}

static __always_inline bool mirror_leaf(struct dune_leaf *leaf, u64 val, int shift)
{
	/* PROT_NONE and NUMA hinting entries are not present in the hardware's sense. */
	if ((val & (_PAGE_PRESENT | _PAGE_USER)) != (_PAGE_PRESENT | _PAGE_USER))
		return false;
	leaf->pa = val & PTE_PFN_MASK & ~((1ull << shift) - 1);
	leaf->level = (shift - PAGE_SHIFT) / 9 + 1;
	/*
	 * The RW bit itself: shadow-stack pages are "writable" to Linux, and not to us. Only dirty
	 * entries are writable in the mirror, so that a first write passes through Linux. Not so
	 * those without a struct page, which nobody asks.
	 */
	leaf->access = DUNE_LEAF_READ | (val & _PAGE_NX ? 0 : DUNE_LEAF_EXEC) |
		       mirror_type(val, shift);
	if (likely((val & (_PAGE_RW | _PAGE_DIRTY)) == (_PAGE_RW | _PAGE_DIRTY)) ||
	    (val & (_PAGE_RW | _PAGE_SPECIAL)) == (_PAGE_RW | _PAGE_SPECIAL))
		leaf->access |= DUNE_LEAF_WRITE;
	return true;
}

static __always_inline u64 mirror_entry(const u64 *table, unsigned long addr, int shift)
{
	return READ_ONCE(table[addr >> shift & (PTRS_PER_PTE - 1)]);
}

/*
 * Walks the host's page table for one address; false if it has nothing that user mode may use. The
 * format is the CPU's (SDM 4.5), so no helper of the kernel's is needed to read it.
 */
static __always_inline bool mirror_walk(struct mm_struct *mm, unsigned long addr,
					struct dune_leaf *leaf)
{
	const u64 *table = (const u64 *)mm->pgd;
	u64 val;

	lockdep_assert_irqs_disabled();
	if (unlikely(mirror_top_shift != PGDIR_SHIFT_4)) {
		val = mirror_entry(table, addr, mirror_top_shift);
		if (!(val & _PAGE_PRESENT))
			return false;
		table = __va(val & PTE_PFN_MASK);
	}
	val = mirror_entry(table, addr, PGDIR_SHIFT_4);
	if (!(val & _PAGE_PRESENT))
		return false;
	val = mirror_entry(__va(val & PTE_PFN_MASK), addr, PUD_SHIFT);
	if (!(val & _PAGE_PRESENT))
		return false;
	if (unlikely(val & _PAGE_PSE))
		return mirror_leaf(leaf, val, PUD_SHIFT);
	val = mirror_entry(__va(val & PTE_PFN_MASK), addr, PMD_SHIFT);
	if (!(val & _PAGE_PRESENT))
		return false;
	if (val & _PAGE_PSE)
		return mirror_leaf(leaf, val, PMD_SHIFT);
	return mirror_leaf(leaf, mirror_entry(__va(val & PTE_PFN_MASK), addr, PAGE_SHIFT),
			   PAGE_SHIFT);
}

/* What Linux said to an access of user mode's: nothing more to do (0), or the signal it would send. */
static int mirror_verdict(struct dune_vcpu *vcpu, vm_fault_t fault, int segv_code)
{
	/* Out of memory: the guest tries again, as user mode would, until the OOM killer was there. */
	if (likely(!(fault & VM_FAULT_ERROR)) || fault & VM_FAULT_OOM)
		return 0;
	if (fault & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE))
		segv_code = BUS_MCEERR_AR;
	else if (!(fault & VM_FAULT_SIGSEGV))
		segv_code = BUS_ADRERR;
	vcpu->page->fault_signal = fault & VM_FAULT_SIGSEGV ? SIGSEGV : SIGBUS;
	vcpu->page->fault_si_code = segv_code;
	return -EFAULT;
}

/*
 * Has Linux map an address, as in a fault of user mode's: 0 if it has, or if the guest should try
 * again. To touch it from here would not do: userfaultfd tells the kernel's own accesses apart, a
 * signal does not end their waits, and a device sees them.
 */
static int mirror_ask(struct dune_vcpu *vcpu, unsigned long addr, u32 access)
{
	bool write = access & DUNE_LEAF_WRITE, exec = !write && access & DUNE_LEAF_EXEC;
	unsigned long need = write ? VM_WRITE : exec ? VM_EXEC : VM_READ | VM_WRITE | VM_EXEC;
	unsigned int flags = FAULT_FLAG_DEFAULT |
			     (write ? FAULT_FLAG_WRITE : exec ? FAULT_FLAG_INSTRUCTION : 0);
	struct mm_struct *mm = vcpu->proc->mm;
	struct vm_area_struct *vma;
	vm_fault_t fault;
	int code = SEGV_MAPERR;
	u8 val;

retry:
	if (unlikely(mmap_read_lock_killable(mm)))
		return 0;
	fault = VM_FAULT_SIGSEGV;
	vma = vma_lookup(mm, addr);
	if (unlikely(!vma)) {
		mmap_read_unlock(mm);
		/* Unless a stack grows, which is not ours to do. Slots show the user's half alone. */
		fault = __get_user(val, (u8 __user *)addr) ? VM_FAULT_SIGSEGV : 0;
		return mirror_verdict(vcpu, fault, code);
	}
	if (unlikely(!arch_vma_access_permitted(vma, write, exec, false))) {
		code = SEGV_PKUERR;
	} else if (!(vma->vm_flags & need) || (write && vma->vm_flags & VM_SHADOW_STACK)) {
		code = SEGV_ACCERR;
	} else if (dune_vcpu_is_door(vma)) {
		/* It opens to user mode alone: the guest would run in itself. */
		fault = VM_FAULT_SIGBUS;
	} else {
		fault = handle_mm_fault(vma, addr, flags, NULL);
		/*
		 * A userfaultfd may serve user mode alone. Not at once: an OOM of user mode's leaves notes
		 * for who gets VM_FAULT_OOM.
		 */
		if (unlikely(fault & VM_FAULT_SIGBUS && userfaultfd_armed(vma)))
			fault = handle_mm_fault(vma, addr, flags | FAULT_FLAG_USER, NULL);
		flags |= FAULT_FLAG_TRIED;
		/* In both cases the lock has been given back. */
		if (fault & VM_FAULT_RETRY && !signal_pending(current))
			goto retry;
		if (fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED))
			return 0;
	}
	mmap_read_unlock(mm);
	return mirror_verdict(vcpu, fault, code);
}

static bool mirror_address(struct dune_process *proc, u64 gpa, unsigned long *addr)
{
	u64 slot = gpa >> DUNE_SLOT_SHIFT;
	u32 va;

	/* One that does not exist is slot 0, which shows nothing; for speculation as well. */
	slot &= array_index_mask_nospec(slot, proc->nr_slots);
	va = READ_ONCE(proc->slots[slot]);
	*addr = ((unsigned long)va << DUNE_SLOT_SHIFT) | (gpa & ((1ul << DUNE_SLOT_SHIFT) - 1));
	return va != DUNE_SLOT_NONE;
}

/* An invalidation is under way: does it take a part of what a leaf shows? */
static noinline bool mirror_goes(const struct dune_process *proc, unsigned long addr,
			const struct dune_leaf *leaf)
{
	unsigned long size = PAGE_SIZE << (9 * (leaf->level - 1)), start = addr & ~(size - 1);

	return start < proc->inval_end && proc->inval_start < start + size;
}

/* Installs what a walk found, unless the page table may have changed since; false if it may. */
static bool mirror_install(struct dune_vcpu *vcpu, u64 gpa, unsigned long addr, u64 seq,
			   const struct dune_leaf *leaf)
{
	struct dune_process *proc = vcpu->proc;
	bool done = false;

	spin_lock(&proc->lock);
	if (likely(proc->inval_seq == seq && !proc->dead) &&
	    (likely(!proc->inval_active) || !mirror_goes(proc, addr, leaf)))
		done = dune_engine->map(vcpu, gpa, leaf);
	spin_unlock(&proc->lock);
	vcpu->count.ept_faults++;
	return done;
}

/**
 * dune_mirror_try() - map what the guest wants to use, if Linux has it already
 * @vcpu: the calling thread's
 * @gpa: guest-physical address of the access
 * @access: DUNE_LEAF_*, what for; other bits are ignored
 *
 * While an invalidation is under way it may be that nothing can be mapped, and the one who does it
 * may wait for this CPU. The guest must not just try again then: an event whose delivery faults
 * would come back here for ever, without an instruction boundary at which an interrupt is taken.
 *
 * Context: interrupts off.
 *
 * Return: true if it is mapped; false if dune_mirror_fault() has to see to it, interrupts on.
 */
__noendbr bool dune_mirror_try(struct dune_vcpu *vcpu, u64 gpa, u32 access)
{
	struct dune_process *proc = vcpu->proc;
	struct dune_leaf *leaf = &vcpu->leaf;
	unsigned long addr;
	u64 seq;

	seq = READ_ONCE(proc->inval_seq);
	smp_rmb(); /* inval_seq, then the page table */
	if (unlikely(vcpu->nr_tables < DUNE_TABLE_CACHE || !mirror_address(proc, gpa, &addr)))
		return false;
	if (!mirror_walk(proc->mm, addr, leaf) || access & DUNE_LEAF_ACCESS & ~leaf->access)
		return false;
	return mirror_install(vcpu, gpa, addr, seq, leaf);
}

static bool mirror_idle(const struct dune_process *proc, u64 seq)
{
	return !READ_ONCE(proc->inval_active) || READ_ONCE(proc->inval_seq) != seq;
}

/* Waits for the end of an invalidation that is under way. A signal ends the wait, and then bounces. */
static void mirror_wait(struct dune_process *proc, u64 seq)
{
	/*
	 * One that another CPU begins again and again leaves less time than a wake-up takes. One of this
	 * CPU's waits for us to leave it: our thread has taken it from the other in the middle.
	 */
	while (READ_ONCE(proc->inval_cpu) != raw_smp_processor_id() && !mirror_idle(proc, seq) &&
	       !need_resched() && !signal_pending(current))
		cpu_relax();
	(void)wait_event_interruptible(proc->inval_wait, mirror_idle(proc, seq));
}

/**
 * dune_mirror_fault() - have Linux map what the guest wants to use, and map it
 * @vcpu: the calling thread's
 * @gpa: guest-physical address of the access
 * @access: DUNE_LEAF_*, what for; other bits are ignored
 *
 * Context: process context, may sleep.
 *
 * Return: 0 if it is mapped, or may be after a change that came between (the guest just tries
 * again); -EFAULT if Linux refuses the access, with page->fault_* set; -ENOMEM.
 */
int dune_mirror_fault(struct dune_vcpu *vcpu, u64 gpa, u32 access)
{
	struct dune_process *proc = vcpu->proc;
	struct dune_leaf *leaf = &vcpu->leaf;
	unsigned long addr;
	bool found;
	u64 seq;
	int ret;

	if (unlikely(!mirror_address(proc, gpa, &addr)))
		return mirror_verdict(vcpu, VM_FAULT_SIGSEGV, SEGV_MAPERR);
	if (unlikely(vcpu->nr_tables < DUNE_TABLE_CACHE) && dune_tables_fill(vcpu))
		return -ENOMEM;
	ret = mirror_ask(vcpu, addr, access);
	if (unlikely(ret))
		return ret;
	seq = READ_ONCE(proc->inval_seq);
	smp_rmb(); /* inval_seq, then the slot and the page table */
	/* Linux may have slept: of what the slot showed before, no notifier of ours takes care. */
	if (unlikely(READ_ONCE(proc->slots[gpa >> DUNE_SLOT_SHIFT]) != addr >> DUNE_SLOT_SHIFT))
		return 0;
	local_irq_disable();
	found = mirror_walk(proc->mm, addr, leaf);
	local_irq_enable();
	if (likely(found && !(access & DUNE_LEAF_ACCESS & ~leaf->access)) &&
	    unlikely(!mirror_install(vcpu, gpa, addr, seq, leaf)))
		mirror_wait(proc, seq);
	return 0;
}

/* Calls fn for each guest-physical range that shows a part of [start, end). */
#define for_each_shown(proc, start, end, index, slot)						\
	xa_for_each_range(&(proc)->va_slots, index, slot, (start) >> DUNE_SLOT_SHIFT,		\
			  ((end) - 1) >> DUNE_SLOT_SHIFT)

static u64 shown_start(unsigned long index, void *slot, unsigned long start)
{
	unsigned long base = index << DUNE_SLOT_SHIFT;

	return ((u64)xa_to_value(slot) << DUNE_SLOT_SHIFT) + (start > base ? start - base : 0);
}

static u64 shown_end(unsigned long index, void *slot, unsigned long end)
{
	unsigned long base = index << DUNE_SLOT_SHIFT, size = 1ul << DUNE_SLOT_SHIFT;

	return ((u64)xa_to_value(slot) << DUNE_SLOT_SHIFT) + min(end - base, size);
}

/* Nothing in [start, end) goes into the mirror until mirror_invalidate_end(). proc->lock held. */
static void mirror_block(struct dune_process *proc, unsigned long start, unsigned long end)
{
	if (proc->inval_active++) {
		start = min(start, proc->inval_start);
		end = max(end, proc->inval_end);
	} else {
		WRITE_ONCE(proc->inval_cpu, raw_smp_processor_id());
	}
	proc->inval_start = start;
	proc->inval_end = end;
}

static void mirror_zap(struct dune_process *proc, unsigned long start, unsigned long end,
		       bool block, bool unmapped)
{
	unsigned long index;
	LIST_HEAD(freed);
	void *slot;
	bool flush;

	spin_lock(&proc->lock);
	if (block)
		mirror_block(proc, start, end);
	else /* A fault that has looked before must not install what it found. */
		proc->inval_seq++;
	for_each_shown(proc, start, end, index, slot) {
		/*
		 * No longer than one slot takes: others spin for the lock, with interrupts off. What has
		 * gone is counted by then, and nothing comes back: it is blocked, or nobody is left.
		 */
		if (unlikely(!list_empty(&freed))) {
			spin_unlock(&proc->lock);
			spin_lock(&proc->lock);
		}
		proc->flush_gen += dune_engine->zap(proc, shown_start(index, slot, start),
						    shown_end(index, slot, end), unmapped, &freed);
	}
	/* Others may have taken it out, and their kick be under way, or put off (mirror_young()). */
	flush = proc->flush_gen != READ_ONCE(proc->kicked_gen);
	spin_unlock(&proc->lock);
	if (flush)
		dune_process_kick(proc);
	dune_tables_free(&freed);
}

/**
 * dune_mirror_clear() - take out what the mirror shows of a range now
 * @proc: the process
 * @start: first virtual address
 * @end: the one after the last
 */
void dune_mirror_clear(struct dune_process *proc, unsigned long start, unsigned long end)
{
	mirror_zap(proc, start, end, false, true);
}

static struct dune_process *mirror_process(struct mmu_notifier *mn)
{
	return container_of(mn, struct dune_process, notifier);
}

static int mirror_invalidate_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	/* Nothing here sleeps, so a caller that must not block is served as well. */
	mirror_zap(mirror_process(mn), range->start, range->end, true,
		   range->event == MMU_NOTIFY_UNMAP);
	return 0;
}

static void mirror_invalidate_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct dune_process *proc = mirror_process(mn);

	spin_lock(&proc->lock);
	proc->inval_seq++;
	proc->inval_active--;
	spin_unlock(&proc->lock);
	if (wq_has_sleeper(&proc->inval_wait))
		wake_up_all(&proc->inval_wait);
}

static void mirror_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct dune_process *proc = mirror_process(mn);

	spin_lock(&proc->lock);
	proc->dead = true;
	spin_unlock(&proc->lock);
	dune_mirror_clear(proc, 0, TASK_SIZE_MAX);
}

static int mirror_young(struct dune_process *proc, unsigned long start, unsigned long end,
			bool clear, bool flush_now)
{
	bool young = false, flush = false;
	unsigned long index;
	void *slot;

	spin_lock(&proc->lock);
	for_each_shown(proc, start, end, index, slot)
		young |= dune_engine->young(proc, shown_start(index, slot, start),
					    shown_end(index, slot, end), clear, &flush);
	proc->flush_gen += flush;
	spin_unlock(&proc->lock);
	/* Without a flush the accessed bit may stay clear for a while: Linux takes that risk, too. */
	if (flush && flush_now)
		dune_process_kick(proc);
	return young;
}

static dune_young_t mirror_clear_flush_young(struct mmu_notifier *mn, struct mm_struct *mm,
				    unsigned long start, unsigned long end)
{
	return mirror_young(mirror_process(mn), start, end, true, true);
}

static dune_young_t mirror_clear_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long start,
			      unsigned long end)
{
	return mirror_young(mirror_process(mn), start, end, true, false);
}

static dune_young_t mirror_test_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long addr)
{
	return mirror_young(mirror_process(mn), addr, addr + PAGE_SIZE, false, false);
}

static void mirror_free(struct mmu_notifier *mn)
{
	dune_process_free(mirror_process(mn));
}

const struct mmu_notifier_ops dune_mirror_notifier_ops = {
	.invalidate_range_start = mirror_invalidate_start,
	.invalidate_range_end = mirror_invalidate_end,
	.release = mirror_release,
	.clear_flush_young = mirror_clear_flush_young,
	.clear_young = mirror_clear_young,
	.test_young = mirror_test_young,
	.free_notifier = mirror_free,
};
