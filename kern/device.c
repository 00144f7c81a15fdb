// SPDX-License-Identifier: GPL-2.0-only
/* /dev/dune: information, slots, counters, and new vCPUs. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "device.h"
#include "process.h"
#include "syscall.h"
#include "vcpu.h"

static int dune_open(struct inode *inode, struct file *file)
{
	struct dune_process *proc = dune_process_get();

	/* A notifier is not registered while a signal waits: after it, the call is made again. */
	if (IS_ERR(proc))
		return PTR_ERR(proc) == -EINTR ? -ERESTARTNOINTR : PTR_ERR(proc);
	file->private_data = proc;
	return 0;
}

static int dune_release(struct inode *inode, struct file *file)
{
	dune_process_put(file->private_data);
	return 0;
}

/* Copies in a struct that begins with its own size, and is zero from some place on. */
static int dune_get_arg(void *to, unsigned long arg, size_t size, size_t zero_from)
{
	if (copy_from_user(to, (void __user *)arg, size))
		return -EFAULT;
	return *(u32 *)to == size && !memchr_inv(to + zero_from, 0, size - zero_from) ? 0 : -EINVAL;
}

static long dune_get_info(unsigned long arg)
{
	struct dune_info info;
	int ret = dune_get_arg(&info, arg, sizeof(info), offsetof(struct dune_info, reserved));

	if (ret)
		return ret;
	memset(&info, 0, sizeof(info));
	info.size = sizeof(info);
	info.abi_version = DUNE_ABI_VERSION;
	info.features = dune_engine->features | (dune_fast_calls ? DUNE_FEAT_FAST_SYSCALLS : 0);
	info.gpa_bits = dune_engine->gpa_bits;
	info.nr_slots = 1u << (dune_engine->gpa_bits - DUNE_SLOT_SHIFT);
	info.cr0_guest_bits = dune_engine->cr0_guest_bits;
	info.cr4_guest_bits = dune_engine->cr4_guest_bits;
	info.cr0_initial = dune_engine->cr0_initial;
	info.cr4_initial = dune_engine->cr4_initial;
	info.vcpu_page_size = PAGE_SIZE;
	info.door_offset = DUNE_DOOR_OFFSET;
	return copy_to_user((void __user *)arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long dune_create_vcpu(struct dune_process *proc, unsigned long arg)
{
	struct dune_vcpu_create create;

	return dune_get_arg(&create, arg, sizeof(create), offsetof(struct dune_vcpu_create, flags)) ?:
	       dune_vcpu_create(proc);
}

static long dune_slots(struct dune_process *proc, unsigned long arg, bool set)
{
	struct dune_slots slots;
	u32 *va;
	int ret = dune_get_arg(&slots, arg, sizeof(slots), sizeof(slots));

	if (ret)
		return ret;
	if (slots.reserved || !slots.count || slots.count > proc->nr_slots ||
	    slots.first > proc->nr_slots - slots.count)
		return -EINVAL;
	slots.first = array_index_nospec(slots.first, proc->nr_slots);
	va = kvmalloc_array(slots.count, sizeof(*va), GFP_KERNEL_ACCOUNT);
	if (!va)
		return -ENOMEM;
	if (set) {
		ret = -EFAULT;
		if (!copy_from_user(va, u64_to_user_ptr(slots.va_slots), slots.count * sizeof(*va)))
			ret = dune_process_set_slots(proc, slots.first, slots.count, va);
	} else {
		mutex_lock(&proc->slots_lock);
		memcpy(va, proc->slots + slots.first, slots.count * sizeof(*va));
		mutex_unlock(&proc->slots_lock);
		if (copy_to_user(u64_to_user_ptr(slots.va_slots), va, slots.count * sizeof(*va)))
			ret = -EFAULT;
	}
	kvfree(va);
	return ret;
}

static long dune_get_stats(struct dune_process *proc, unsigned long arg)
{
	struct dune_stats *st = kzalloc(sizeof(*st), GFP_KERNEL);
	int ret;

	if (!st)
		return -ENOMEM;
	ret = dune_get_arg(st, arg, sizeof(*st), offsetof(struct dune_stats, reserved));
	if (!ret) {
		dune_process_stats(proc, st);
		if (copy_to_user((void __user *)arg, st, sizeof(*st)))
			ret = -EFAULT;
	}
	kfree(st);
	return ret;
}

static long dune_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dune_process *proc = file->private_data;

	/* A wrong size is a known command of another shape: say so. */
	if (_IOC_TYPE(cmd) != DUNE_IOC)
		return -ENOTTY;
	if (cmd == DUNE_GET_INFO)
		return dune_get_info(arg);
	if (proc->mm != current->mm)
		return -EPERM;
	switch (cmd) {
	case DUNE_CREATE_VCPU:
		return dune_create_vcpu(proc, arg);
	case DUNE_SET_SLOTS:
		return dune_slots(proc, arg, true);
	case DUNE_GET_SLOTS:
		return dune_slots(proc, arg, false);
	case DUNE_GET_STATS:
		return dune_get_stats(proc, arg);
	}
	return _IOC_NR(cmd) <= _IOC_NR(DUNE_GET_STATS) ? -EINVAL : -ENOTTY;
}

static const struct file_operations dune_fops = {
	.owner = THIS_MODULE,
	.open = dune_open,
	.release = dune_release,
	.unlocked_ioctl = dune_ioctl,
};

static struct miscdevice dune_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dune",
	.fops = &dune_fops,
	.mode = 0660,
};

/**
 * dune_device_init() - make /dev/dune appear
 *
 * Return: 0 or a negative errno.
 */
int __init dune_device_init(void)
{
	return misc_register(&dune_misc);
}

/** dune_device_exit() - take /dev/dune away; nobody has it open */
void dune_device_exit(void)
{
	misc_deregister(&dune_misc);
}
