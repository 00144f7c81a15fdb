// SPDX-License-Identifier: GPL-2.0-only
/* vCPU files: create, map, run, interrupt. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "syscall.h"
#include "vcpu.h"

/**
 * dune_tables_fill() - have enough zeroed pages for one mapping
 * @vcpu: whose cache
 *
 * Return: 0 or -ENOMEM.
 */
int dune_tables_fill(struct dune_vcpu *vcpu)
{
	while (vcpu->nr_tables < DUNE_TABLE_CACHE) {
		void *table = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);

		if (!table)
			return -ENOMEM;
		vcpu->tables[vcpu->nr_tables++] = table;
	}
	return 0;
}

/**
 * dune_tables_free() - free tables that left the mirror
 * @freed: linked by dune_table_link(); no CPU uses them any more
 */
void dune_tables_free(struct list_head *freed)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, freed, lru)
		__free_page(page);
}

/* What is to be loaded again was noted when it left. */
static void vcpu_sched_in(struct preempt_notifier *pn, int cpu)
{
}

static void vcpu_sched_out(struct preempt_notifier *pn, struct task_struct *next)
{
	dune_engine->sched_out(container_of(pn, struct dune_vcpu, preempt));
}

static struct preempt_ops vcpu_preempt_ops = {
	.sched_in = vcpu_sched_in,
	.sched_out = vcpu_sched_out,
};

/**
 * dune_vcpu_notify() - have the engine told when the thread leaves the CPU, until the run's end
 * @vcpu: the calling thread's
 *
 * The engine asks for it before interrupts come on while it has state of the vCPU on the CPU. Many
 * runs end without.
 *
 * Context: interrupts off.
 */
void dune_vcpu_notify(struct dune_vcpu *vcpu)
{
	vcpu->notified = true;
	preempt_notifier_register(&vcpu->preempt);
}

/*
 * Is this a call that a guest of the calling thread makes? The CPU has the state of one vCPU, and
 * the stack must not grow by one run in another. A run that makes calls is notified.
 */
static bool vcpu_runs_here(void)
{
	const struct preempt_notifier *pn;

	hlist_for_each_entry(pn, &current->preempt_notifiers, link)
		if (pn->ops == &vcpu_preempt_ops)
			return true;
	return false;
}

static int vcpu_run(struct dune_vcpu *vcpu)
{
	int ret;

	/* The guest's fast calls are 64-bit ones: in a 32-bit call Linux would take them for its like. */
	if (vcpu->task != current || vcpu->proc->mm != current->mm || in_ia32_syscall() ||
	    READ_ONCE(current_thread_info()->flags) & DUNE_TIF_REFUSED)
		return -EPERM;
	if (unlikely(vcpu_runs_here()))
		return -EBUSY;
	vcpu->page->exit = 0;
	vcpu->entered = false;
	vcpu->todo |= DUNE_TODO_LOAD | DUNE_TODO_OPEN;
	ret = dune_engine->run(vcpu);
	if (vcpu->notified) {
		preempt_disable();
		preempt_notifier_unregister(&vcpu->preempt);
		vcpu->notified = false;
		if (unlikely(vcpu->loaded))
			dune_engine->sched_out(vcpu);
		preempt_enable();
	}
	vcpu->page->progress = vcpu->entered;
	if (unlikely(vcpu->calls))
		dune_syscall_restore(vcpu);
	return ret;
}

/**
 * dune_vcpu_wait() - sleep until an interrupt or a signal comes (HLT, MWAIT)
 * @vcpu: the calling thread's
 */
void dune_vcpu_wait(struct dune_vcpu *vcpu)
{
	/* A signal ends it as well; the run loop then bounces. */
	(void)wait_event_interruptible(vcpu->wait, READ_ONCE(vcpu->page->pending_any));
}

static int vcpu_interrupt(struct dune_vcpu *vcpu, unsigned long arg)
{
	u32 vector;

	if (get_user(vector, (u32 __user *)arg))
		return -EFAULT;
	if (vector < 32 || vector > 255)
		return -EINVAL;
	set_bit(vector, (unsigned long *)vcpu->page->pending);
	/* After the bit: whoever sees this sees the bit. */
	smp_store_release(&vcpu->page->pending_any, 1);
	/* Out of HLT, or out of the guest by the IPI. */
	wake_up(&vcpu->wait);
	kick_process(vcpu->task);
	return 0;
}

static long vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dune_vcpu *vcpu = file->private_data;

	if (cmd == DUNE_RUN)
		return vcpu_run(vcpu);
	if (vcpu->proc->mm != current->mm)
		return -EPERM;
	if (cmd == DUNE_INTERRUPT)
		return vcpu_interrupt(vcpu, arg);
	return -ENOTTY;
}

/* DUNE_RUN by lseek(): the system call with the least between user mode and here. */
static loff_t vcpu_llseek(struct file *file, loff_t offset, int whence)
{
	return offset == DUNE_RUN && whence == SEEK_DATA ? vcpu_run(file->private_data) : -ESPIPE;
}

/*
 * The door. The faulting instruction is skipped, and the lock that the fault handler holds is
 * given back before the guest runs: VM_FAULT_COMPLETED tells the caller so.
 */
static vm_fault_t vcpu_door(struct vm_fault *vmf)
{
	struct file *file = vmf->vma->vm_file;
	struct dune_vcpu *vcpu = file->private_data;

	if (!(vmf->flags & FAULT_FLAG_USER) || !(vmf->flags & FAULT_FLAG_ALLOW_RETRY) ||
	    vmf->flags & FAULT_FLAG_WRITE || vcpu->task != current)
		return VM_FAULT_SIGBUS;
	get_file(file);
	mmap_read_unlock(vmf->vma->vm_mm);
	/* The guest's own faults are user mode's, and of those there is one at a time. */
	mem_cgroup_exit_user_fault();
	/* An error leaves page->exit at 0: DUNE_RUN tells what it is. */
	vcpu->page->exit = 0;
	(void)vcpu_run(vcpu);
	mem_cgroup_enter_user_fault();
	current_pt_regs()->ip += 2; /* mov (%rax), %al */
	fput(file);
	return VM_FAULT_COMPLETED | VM_FAULT_NOPAGE;
}

static vm_fault_t vcpu_page_fault(struct vm_fault *vmf)
{
	struct dune_vcpu *vcpu = vmf->vma->vm_file->private_data;

	if (vmf->pgoff)
		return VM_FAULT_SIGBUS;
	vmf->page = virt_to_page(vcpu->page);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct vcpu_door_ops = { .fault = vcpu_door };
static const struct vm_operations_struct vcpu_page_ops = { .fault = vcpu_page_fault };

/**
 * dune_vcpu_is_door() - does a mapping show a door page?
 * @vma: the mapping
 *
 * Return: whether it does.
 */
bool dune_vcpu_is_door(const struct vm_area_struct *vma)
{
	return vma->vm_ops == &vcpu_door_ops;
}

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct dune_vcpu *vcpu = file->private_data;

	if (vcpu->proc->mm != current->mm)
		return -EPERM;
	if (vma->vm_end - vma->vm_start != PAGE_SIZE || !(vma->vm_flags & VM_SHARED) ||
	    vma->vm_flags & VM_EXEC)
		return -EINVAL;
	if (vma->vm_pgoff == 0) {
		vma->vm_ops = &vcpu_page_ops;
	} else if (vma->vm_pgoff == DUNE_DOOR_OFFSET >> PAGE_SHIFT) {
		if (vma->vm_flags & VM_WRITE)
			return -EINVAL;
		vm_flags_clear(vma, VM_MAYWRITE);
		vma->vm_ops = &vcpu_door_ops;
	} else {
		return -EINVAL;
	}
	vcpu->file = file;
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	return 0;
}

static void vcpu_free(struct dune_vcpu *vcpu)
{
	struct dune_process *proc = vcpu->proc;

	mutex_lock(&proc->vcpus_lock);
	list_del(&vcpu->node);
	proc->nr_vcpus--;
	dune_stats_add(&proc->gone, &vcpu->count);
	mutex_unlock(&proc->vcpus_lock);
	while (vcpu->nr_tables)
		free_page((unsigned long)vcpu->tables[--vcpu->nr_tables]);
	put_task_struct(vcpu->task);
	free_page((unsigned long)vcpu->page);
	dune_engine->vcpu_destroy(vcpu);
	dune_process_put(proc);
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	vcpu_free(file->private_data);
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.release = vcpu_release,
	.llseek = vcpu_llseek,
	.unlocked_ioctl = vcpu_ioctl,
	.mmap = vcpu_mmap,
};

/**
 * dune_vcpu_create() - a vCPU for the calling thread
 * @proc: its process
 *
 * Return: a file descriptor, or a negative errno.
 */
int dune_vcpu_create(struct dune_process *proc)
{
	struct dune_vcpu_page *page = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	struct dune_vcpu *vcpu;
	int fd;

	if (!page)
		return -ENOMEM;
	vcpu = dune_engine->vcpu_create(proc, page);
	if (IS_ERR(vcpu)) {
		free_page((unsigned long)page);
		return PTR_ERR(vcpu);
	}
	vcpu->page = page;
	init_waitqueue_head(&vcpu->wait);
	vcpu->task = get_task_struct(current);
	preempt_notifier_init(&vcpu->preempt, &vcpu_preempt_ops);
	kref_get(&proc->ref);
	vcpu->proc = proc;
	mutex_lock(&proc->vcpus_lock);
	list_add(&vcpu->node, &proc->vcpus);
	proc->nr_vcpus++;
	mutex_unlock(&proc->vcpus_lock);
	fd = anon_inode_getfd("dune-vcpu", &vcpu_fops, vcpu, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		vcpu_free(vcpu);
	return fd;
}
