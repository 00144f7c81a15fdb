// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who owns VMX on a CPU, and what we leave there.
 *
 * KVM owns it and we borrow it: a dummy VM of ours keeps kvm_intel loaded and VMX on. Our VMCS is
 * current only in a window with interrupts off, at whose end the VMCS that we found is current
 * again: KVM remembers which one it loaded and would not load it anew. Only when we found none,
 * ours may stay: KVM then has nothing to be confused about.
 *
 * Without KVM, VMX is turned on and off in each window, so that a KVM loaded later finds the CPU
 * as it expects it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/kvm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/desc.h>
#include <asm/hypervisor.h>

#include "vmx.h"

DEFINE_PER_CPU(struct vmx_cpu, vmx_cpus);
bool vmx_transient;
bool vmx_kvm_came;

static struct file *vmx_kvm_vm;
static int vmx_cpuhp = -1;

static const u32 vmx_msr_index[VMX_NR_MSRS] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK,
};

static void write_cr4_now(unsigned long cr4)
{
	asm volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

/* Interrupts off, VMX on, on the CPU where the VMCS is active. */
static void vmx_clear_here(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);

	if (vmx_vmclear(&vmx->vmcs_pa))
		vmx_insn_failed("vmclear", 0);
	if (c->current_pa == vmx->vmcs_pa)
		c->current_pa = 0;
	list_del_init(&vmx->active);
	vmx->launched = false;
	/* Last: from here on it is its owner's, who may be on another CPU. */
	smp_store_release(&vmx->cpu, -1);
}

static void vmx_clear_ipi(void *arg)
{
	struct vmx_vcpu *vmx = arg;

	if (vmx->cpu == raw_smp_processor_id())
		vmx_clear_here(vmx);
}

/**
 * vmx_clear() - make a VMCS inactive, wherever it is active
 * @vmx: the vCPU
 *
 * Context: interrupts on.
 */
void vmx_clear(struct vmx_vcpu *vmx)
{
	/* Pairs with vmx_clear_here(): by then it is cleared. */
	int cpu = smp_load_acquire(&vmx->cpu);

	/* If the CPU went down meanwhile, its teardown did it. */
	if (cpu >= 0)
		smp_call_function_single(cpu, vmx_clear_ipi, vmx, 1);
}

/*
 * Turns VMX on for this window; false if somebody else has it on by now. CR4 does not tell: a KVM of
 * 6.12 may lose the CPU to us between the bit and VMXON, or VMXOFF and the bit. VMXON does (SDM 31.4,
 * error 15).
 */
static __always_inline bool vmx_window_on(struct vmx_cpu *c)
{
	c->window_cr4 = READ_CR(4);
	write_cr4_now(c->window_cr4 | X86_CR4_VMXE);
	return likely(!vmx_vmxon(&c->vmxon_pa));
}

/* After VMXON no VMCS is current, nor was ours made active anywhere since it was cleared. */
static __always_inline void vmx_open_transient(struct vmx_vcpu *vmx)
{
	if (unlikely(!vmx->ready) && vmx_vmclear(&vmx->vmcs_pa))
		vmx_insn_failed("vmclear", 0);
	if (vmx_vmptrld(&vmx->vmcs_pa))
		vmx_insn_failed("vmptrld", 0);
	vmx->foreign = false;
	vmx->put_back = VMX_PUT_OFF;
}

/* SDM 25.11.1: no VMCS may be active over VMXOFF. */
static __always_inline void vmx_close_transient(struct vmx_vcpu *vmx, struct vmx_cpu *c)
{
	if (vmx_vmclear(&vmx->vmcs_pa))
		vmx_insn_failed("vmclear", 1);
	vmx->launched = false;
	vmx_vmxoff();
	write_cr4_now(c->window_cr4);
}

/**
 * vmx_open_slow() - make the vCPU's VMCS current on this CPU, whatever was
 * @vmx: the vCPU
 *
 * Context: interrupts off, and they stay so until vmx_close(). Called by vmx_open().
 *
 * Return: false if the VMCS is active on another CPU: vmx_clear() it first.
 */
bool vmx_open_slow(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);
	int cpu = raw_smp_processor_id();
	u64 found;

	/* As in vmx_clear(). */
	if (smp_load_acquire(&vmx->cpu) >= 0 && vmx->cpu != cpu)
		return false;
	if (vmx_transient && vmx_window_on(c)) {
		vmx_open_transient(vmx);
		goto opened;
	}
	found = vmx_vmptrst(&vmx->found_pa);
	if (found != vmx->vmcs_pa) {
		if (vmx->cpu < 0) {
			if (vmx_vmclear(&vmx->vmcs_pa))
				vmx_insn_failed("vmclear", 0);
			vmx->launched = false;
			vmx->cpu = cpu;
			list_add(&vmx->active, &c->active);
		}
		if (vmx_vmptrld(&vmx->vmcs_pa))
			vmx_insn_failed("vmptrld", 0);
	}
	/* What another vCPU of ours left current needs no putting back. */
	vmx->foreign = found != VMX_NO_VMCS && found != c->current_pa && found != vmx->vmcs_pa;
	vmx->put_back = vmx_transient || READ_ONCE(vmx_stopped) ? VMX_PUT_MORE :
			vmx->foreign ? VMX_PUT_VMCS : VMX_PUT_NOTHING;
	vmx->foreign_pa = found;
	if (!vmx->foreign)
		c->current_pa = vmx->vmcs_pa;
opened:
	vmx->vcpu.todo &= ~DUNE_TODO_OPEN;
	if (unlikely(!vmx->ready))
		vmx_vmcs_init(vmx);
	return true;
}

/**
 * vmx_close_slow() - end a window that something has to be put back after
 * @vmx: the vCPU that vmx_open() was called for
 *
 * Context: interrupts off since vmx_open(). Called by vmx_close().
 */
void vmx_close_slow(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);

	vmx->vcpu.todo |= DUNE_TODO_OPEN;
	if (vmx->put_back == VMX_PUT_OFF) {
		vmx_close_transient(vmx, c);
		return;
	}
	if (vmx->put_back == VMX_PUT_MORE)
		vmx_clear_here(vmx);
	if (vmx->foreign && vmx_vmptrld(&vmx->foreign_pa))
		vmx_insn_failed("vmptrld", 1);
}

static __always_inline void vmx_load_msr(struct vmx_cpu *c, struct vmx_vcpu *vmx, unsigned int i)
{
	c->host_msrs[i] = read_msr_now(vmx_msr_index[i]);
	write_msr_now(vmx_msr_index[i], vmx->msrs[i]);
}

static __always_inline void vmx_put_msrs(struct vmx_cpu *c)
{
	unsigned int differ;

	if (!c->msrs_loaded)
		return;
	c->msrs_loaded = false;
	differ = c->loaded->msrs_differ;
	if (likely(differ == BIT(VMX_MSR_LSTAR))) {
		write_msr_now(MSR_LSTAR, c->host_msrs[VMX_MSR_LSTAR]);
		return;
	}
	for (; differ; differ &= differ - 1)
		write_msr_now(vmx_msr_index[__ffs(differ)], c->host_msrs[__ffs(differ)]);
}

/* VM exit made the limits 0xffff and 0x67, LDTR null and DEBUGCTL 0 (SDM 28.5.1, 28.5.2). */
static __always_inline void vmx_put_tables(struct vmx_vcpu *vmx)
{
	u64 debugctl = vmx->host_debugctl;

	if (!vmx->tables_dirty)
		return;
	vmx->tables_dirty = false;
	native_load_gdt(&vmx->host_gdt);
	native_load_idt(&vmx->host_idt);
	/* The kernel reloads TR before the limit matters to it. */
	this_cpu_write(__tss_limit_invalid, true);
	if (unlikely(vmx->host_ldt))
		asm volatile("lldt %0" : : "r"(vmx->host_ldt));
	if (unlikely(test_thread_flag(TIF_BLOCKSTEP)))
		debugctl |= DEBUGCTLMSR_BTF;
	if (unlikely(debugctl))
		wrmsrl(MSR_IA32_DEBUGCTLMSR, debugctl);
}

/*
 * Where the kernel does not look at the inactive GS base, it takes what it has noted, and tells its
 * own by the sign (paranoid_entry): user mode must have none of that half. The guest's waits.
 */
static void vmx_put_gs_base(struct vmx_vcpu *vmx)
{
	u64 base = read_msr_now(MSR_KERNEL_GS_BASE);

	if (base >= TASK_SIZE_MAX) {
		vmx->high_gs_base = base;
		base = 0;
		write_msr_now(MSR_KERNEL_GS_BASE, 0);
	}
	current->thread.gsbase = base;
}

/**
 * vmx_msrs_load() - give the guest its own system-call MSRs
 * @vmx: the vCPU
 *
 * They stay until the thread leaves the CPU or the run loop: kernel mode does not use them. What is
 * put back is what was found, since KVM does the same with values of its own.
 *
 * Context: interrupts off.
 */
void vmx_msrs_load(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);
	unsigned int differ = vmx->msrs_differ;

	c->loaded = vmx;
	vmx->vcpu.loaded = true;
	if (c->msrs_loaded)
		return;
	c->msrs_loaded = true;
	/* The one that all guests have, but for those that want it all. */
	if (likely(differ == BIT(VMX_MSR_LSTAR))) {
		vmx_load_msr(c, vmx, VMX_MSR_LSTAR);
		return;
	}
	for (; differ; differ &= differ - 1)
		vmx_load_msr(c, vmx, __ffs(differ));
}

/**
 * vmx_msrs_put() - put the host's system-call MSRs back
 *
 * Context: interrupts off.
 */
void vmx_msrs_put(void)
{
	vmx_put_msrs(this_cpu_ptr(&vmx_cpus));
}

/**
 * vmx_leave_cpu() - put back what the guest's runs changed on this CPU
 * @vmx: the vCPU that ran here
 *
 * Context: interrupts off; the thread leaves the CPU, or the run loop.
 */
void vmx_leave_cpu(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);

	if (likely(c->loaded == vmx)) {
		vmx_put_msrs(c);
		vmx_put_tables(vmx);
		c->loaded = NULL;
		vmx->vcpu.loaded = false;
		if (!boot_cpu_has(X86_FEATURE_FSGSBASE))
			vmx_put_gs_base(vmx);
	}
	vmx->vcpu.todo |= DUNE_TODO_OPEN | DUNE_TODO_LOAD;
	cpumask_clear_cpu(raw_smp_processor_id(), vmx->vcpu.proc->cpus);
}

/**
 * vmx_clear_cpu() - leave no VMCS of ours active on this CPU
 * @unused: as on_each_cpu() wants it
 *
 * Context: preemption off, or an IPI.
 */
void vmx_clear_cpu(void *unused)
{
	struct vmx_cpu *c = this_cpu_ptr(&vmx_cpus);
	struct vmx_vcpu *vmx, *next;
	unsigned long flags;

	local_irq_save(flags);
	list_for_each_entry_safe(vmx, next, &c->active, active)
		vmx_clear_here(vmx);
	c->current_pa = 0;
	/* The one that is running has to open a window anew. */
	if (c->loaded)
		c->loaded->vcpu.todo |= DUNE_TODO_OPEN;
	local_irq_restore(flags);
}

static void vmx_put_here(void *unused)
{
	struct vmx_vcpu *vmx = this_cpu_ptr(&vmx_cpus)->loaded;

	if (vmx)
		vmx_leave_cpu(vmx);
}

/*
 * On Hyper-V, KVM names its VMCS by a page that it shares with the hypervisor, and does not load it
 * (TLFS, "Enlightened VMCS"): a VMLAUNCH of ours would enter that one.
 */
static bool vmx_by_assist_page(void)
{
	return hypervisor_is_type(X86_HYPER_MS_HYPERV) && cpuid_eax(0x40000000) >= 0x4000000a &&
	       cpuid_eax(0x40000004) & BIT(14) && cpuid_eax(0x4000000a) & 0xff;
}

/*
 * A KVM that comes later looks at the system-call MSRs of each CPU in an interrupt, and puts these
 * values back after its guests. They must be the host's then: from now on they are whenever
 * interrupts are on.
 */
static int vmx_module_notify(struct notifier_block *nb, unsigned long state, void *module)
{
	if (strcmp(((struct module *)module)->name, "kvm_intel") ||
	    (state != MODULE_STATE_COMING && state != MODULE_STATE_GOING))
		return NOTIFY_DONE;
	if (state == MODULE_STATE_COMING && vmx_by_assist_page())
		return notifier_from_errno(-EBUSY);
	WRITE_ONCE(vmx_kvm_came, state == MODULE_STATE_COMING);
	if (state == MODULE_STATE_COMING)
		on_each_cpu(vmx_put_here, NULL, 1);
	return NOTIFY_OK;
}

static struct notifier_block vmx_module_nb = { .notifier_call = vmx_module_notify };

/* Before KVM turns VMX off on a CPU that goes down, and after the last thread left it. */
static int vmx_cpu_down(unsigned int cpu)
{
	vmx_clear_cpu(NULL);
	return 0;
}

static int vmx_cpu_up(unsigned int cpu)
{
	struct vmx_cpu *c = per_cpu_ptr(&vmx_cpus, cpu);
	u64 fc;

	if (!vmx_transient)
		return 0;
	/* Firmware that left the lock open left the choice to us (SDM 24.7). */
	rdmsrl(MSR_IA32_FEAT_CTL, fc);
	if (!(fc & FEAT_CTL_LOCKED)) {
		fc |= FEAT_CTL_LOCKED | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
		wrmsrl(MSR_IA32_FEAT_CTL, fc);
	}
	if (!(fc & FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX)) {
		pr_err("VMX is disabled by the firmware on CPU %u: enable it in the BIOS setup\n", cpu);
		return -EOPNOTSUPP;
	}
	*(u32 *)c->vmxon = vmx_config.revision;
	c->vmxon_pa = __pa(c->vmxon);
	return 0;
}

/* Keeps kvm_intel loaded, and VMX on, by a VM of our own that never runs. */
static int vmx_hold_kvm(void)
{
	struct file *kvm = filp_open("/dev/kvm", O_RDWR | O_CLOEXEC, 0);
	long fd = -ENOTTY;

	if (IS_ERR(kvm))
		return PTR_ERR(kvm);
	/* Whatever stands there under that name: a shell's ">" makes a plain file. */
	if (kvm->f_op->unlocked_ioctl)
		fd = kvm->f_op->unlocked_ioctl(kvm, KVM_CREATE_VM, 0);
	fput(kvm);
	if (fd < 0)
		return fd;
	vmx_kvm_vm = fget(fd);
	close_fd(fd);
	return vmx_kvm_vm ? 0 : -EBADF;
}

static bool __init vmx_kvm_is_there(void)
{
	/* Any function of it, and never armed. By its name alone, as it may be a part of the kernel. */
	struct kprobe kp = {
		.symbol_name = "vmx_vcpu_load_vmcs", .flags = KPROBE_FLAG_DISABLED,
	};

	/* To look through all symbols takes long. */
	if (!__symbol_get("kvm_get_kvm_safe"))
		return false;
	__symbol_put("kvm_get_kvm_safe");
	if (register_kprobe(&kp))
		return false;
	unregister_kprobe(&kp);
	return true;
}

static void vmx_count_on(void *arg)
{
	if (READ_CR(4) & X86_CR4_VMXE)
		atomic_inc(arg);
}

/**
 * vmx_own_init() - find out who owns VMX, and be ready on each CPU
 *
 * Return: 0 or a negative errno, with a message.
 */
int __init vmx_own_init(void)
{
	atomic_t on = ATOMIC_INIT(0);
	int cpu, ret;

	for_each_possible_cpu(cpu)
		INIT_LIST_HEAD(&per_cpu(vmx_cpus, cpu).active);
	/* Before we look: one that comes now is seen by the one or the other. */
	ret = register_module_notifier(&vmx_module_nb);
	if (ret)
		return ret;
	ret = vmx_hold_kvm();
	on_each_cpu(vmx_count_on, &on, 1);
	if (!ret && vmx_by_assist_page()) {
		pr_err("kvm may use Hyper-V's enlightened VMCS: unload kvm_intel\n");
		ret = -EBUSY;
		goto out;
	}
	/* It announced itself before, and would not again when it turns VMX on. */
	if (ret && !atomic_read(&on) && vmx_kvm_is_there()) {
		pr_err("kvm_intel is loaded, but makes no VM for us (/dev/kvm: %d): unload it, or see why\n", ret);
		ret = -EBUSY;
		goto out;
	}
	if (!ret && atomic_read(&on) != num_online_cpus()) {
		pr_err("kvm made a VM, but VMX is active on %d of %u CPUs only\n", atomic_read(&on),
		       num_online_cpus());
		ret = -EIO;
		goto out;
	}
	if (ret && atomic_read(&on)) {
		pr_err("VMX is in use, but not by a kvm that could share it (/dev/kvm: %d): unload the other hypervisor\n",
		       ret);
		ret = -EBUSY;
		goto out;
	}
	vmx_transient = ret;
	if (vmx_transient) {
		for_each_possible_cpu(cpu) {
			void *region = (void *)get_zeroed_page(GFP_KERNEL);

			per_cpu(vmx_cpus, cpu).vmxon = region;
			ret = -ENOMEM;
			if (!region)
				goto out;
		}
	}
	/* A state of the dynamic range is torn down before KVM's own. */
	ret = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "x86/dune:online", vmx_cpu_up, vmx_cpu_down);
	if (ret < 0)
		goto out;
	vmx_cpuhp = ret;
	return 0;
out:
	vmx_own_exit();
	return ret;
}

/** vmx_own_exit() - give VMX back; no vCPU is left */
void vmx_own_exit(void)
{
	int cpu;

	unregister_module_notifier(&vmx_module_nb);
	if (vmx_cpuhp >= 0)
		cpuhp_remove_state(vmx_cpuhp);
	vmx_cpuhp = -1;
	if (vmx_kvm_vm)
		fput(vmx_kvm_vm);
	for_each_possible_cpu(cpu)
		free_page((unsigned long)per_cpu(vmx_cpus, cpu).vmxon);
}
