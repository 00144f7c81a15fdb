// SPDX-License-Identifier: GPL-2.0-only
/* The VT-x engine: load, unload, vCPUs. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitmap.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <asm/cpufeature.h>

#include "vmx.h"

static bool allow_unsafe;
module_param(allow_unsafe, bool, 0444);
MODULE_PARM_DESC(allow_unsafe, "load on a CPU whose bugs cannot be guarded against (default: no)");

/* 4 KiB: read low, read high, write low, write high (SDM 25.6.9); a set bit exits. */
unsigned long vmx_msr_bitmap[PAGE_SIZE / sizeof(long)] __aligned(PAGE_SIZE);

/* KVM takes VPIDs from the bottom, we from the top. */
#define VPID_TOP 0xffff
#define VPID_COUNT 0x7000
static DECLARE_BITMAP(vpids, VPID_COUNT);

/* Without one, each entry and exit flushes: slower, and right. */
static u16 vpid_get(void)
{
	unsigned long n;

	if (!vmx_config.vpid)
		return 0;
	do {
		n = find_first_zero_bit(vpids, VPID_COUNT);
		if (n >= VPID_COUNT)
			return 0;
	} while (test_and_set_bit(n, vpids));
	return VPID_TOP - n;
}

static void vpid_put(u16 vpid)
{
	if (vpid)
		clear_bit(VPID_TOP - vpid, vpids);
}

static void msr_allow(u32 msr, bool write)
{
	unsigned int bit = (msr & 0x1fff) + (msr >= 0xc0000000 ? 0x2000 : 0);

	clear_bit(bit, vmx_msr_bitmap);
	if (write)
		clear_bit(bit + 0x4000, vmx_msr_bitmap);
}

static void __init vmx_msr_bitmap_init(void)
{
	memset(vmx_msr_bitmap, 0xff, sizeof(vmx_msr_bitmap));
	/* In the VMCS, or, for KERNEL_GS_BASE, the user's own while the thread is in the kernel. */
	msr_allow(MSR_FS_BASE, true);
	msr_allow(MSR_GS_BASE, true);
	msr_allow(MSR_KERNEL_GS_BASE, true);
	msr_allow(MSR_IA32_SYSENTER_CS, true);
	msr_allow(MSR_IA32_SYSENTER_ESP, true);
	msr_allow(MSR_IA32_SYSENTER_EIP, true);
	msr_allow(MSR_TSC_AUX, false);
	msr_allow(MSR_IA32_TSC, false);
}

static struct dune_vcpu *vmx_vcpu_create(struct dune_process *proc, struct dune_vcpu_page *page)
{
	struct vmx_vcpu *vmx = kzalloc(sizeof(*vmx), GFP_KERNEL_ACCOUNT);
	unsigned long vmcs = get_zeroed_page(GFP_KERNEL_ACCOUNT);

	if (!vmx || !vmcs) {
		free_page(vmcs);
		kfree(vmx);
		return ERR_PTR(-ENOMEM);
	}
	vmx->vmcs = (void *)vmcs;
	*(u32 *)vmx->vmcs = vmx_config.revision;
	vmx->vmcs_pa = __pa(vmx->vmcs);
	vmx->eptp = __pa(proc->root) | vmx_config.eptp_flags;
	vmx->regs = &page->regs;
	vmx->cpu = -1;
	vmx->host_cpu = -1;
	INIT_LIST_HEAD(&vmx->active);
	vmx->vpid = vpid_get();
	return &vmx->vcpu;
}

static void vmx_vcpu_destroy(struct dune_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx_clear(vmx);
	vpid_put(vmx->vpid);
	free_page((unsigned long)vmx->vmcs);
	kfree(vmx);
}

static void vmx_sched_out(struct dune_vcpu *vcpu)
{
	unsigned long flags;

	local_irq_save(flags);
	vmx_leave_cpu(to_vmx(vcpu));
	local_irq_restore(flags);
}

struct dune_engine dune_vmx_engine = {
	.name = "VT-x",
	.vcpu_create = vmx_vcpu_create,
	.vcpu_destroy = vmx_vcpu_destroy,
	.run = vmx_run,
	.sched_out = vmx_sched_out,
	.map = vmx_ept_map,
	.zap = vmx_ept_zap,
	.young = vmx_ept_young,
	.mirror_create = vmx_ept_create,
	.mirror_destroy = vmx_ept_destroy,
};

/* SDM 29.2: an EPT address has at most 48 bits. More slots than this only cost memory. */
#define GPA_BITS_MAX 42

static void __init vmx_engine_init(void)
{
	const u64 cr4_free = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE |
			     X86_CR4_PGE | X86_CR4_PCE | X86_CR4_FSGSBASE | X86_CR4_PCIDE |
			     X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_UMIP;
	const u64 cr4_host = X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_OSFXSR |
			     X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_FSGSBASE;
	struct dune_engine *e = &dune_vmx_engine;
	u64 cap, cr4 = __read_cr4();

	rdmsrl(MSR_IA32_VMX_EPT_VPID_CAP, cap);
	e->gpa_bits = min_t(unsigned int, boot_cpu_data.x86_phys_bits, GPA_BITS_MAX);
	e->max_level = cap & VMX_EPT_1GB_PAGE_BIT ? 3 : cap & VMX_EPT_2MB_PAGE_BIT ? 2 : 1;
	e->cr0_initial = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |
			 X86_CR0_AM | X86_CR0_PG;
	e->cr0_guest_bits = X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_WP | X86_CR0_AM;
	e->cr4_initial = cr4 & cr4_host;
	e->cr4_guest_bits = cr4_free & vmx_config.cr4_fixed1;
	/* Protection keys only where the host keeps PKRU for each thread. */
	if (cr4 & X86_CR4_PKE)
		e->cr4_guest_bits |= X86_CR4_PKE;
	e->features = (vmx_transient ? 0 : DUNE_FEAT_KVM) |
		      (e->max_level >= 2 ? DUNE_FEAT_EPT_2M : 0) |
		      (e->max_level >= 3 ? DUNE_FEAT_EPT_1G : 0) |
		      (vmx_config.ept_ad ? DUNE_FEAT_EPT_AD : 0) |
		      (vmx_config.vpid ? DUNE_FEAT_VPID : 0) |
		      (vmx_config.proc2 & SECONDARY_EXEC_ENABLE_INVPCID ? DUNE_FEAT_INVPCID : 0) |
		      (vmx_config.proc2 & SECONDARY_EXEC_UNRESTRICTED_GUEST ?
			       DUNE_FEAT_UNRESTRICTED : 0);
}

/**
 * dune_vmx_init() - start the engine
 *
 * Return: 0 or a negative errno, with a message that says what is missing.
 */
int __init dune_vmx_init(void)
{
	int ret;

	BUILD_BUG_ON(offsetof(struct vmx_vcpu, regs) != VMX_OFF_REGS);
	BUILD_BUG_ON(offsetof(struct vmx_vcpu, host_rsp) != VMX_OFF_HOST_RSP);
	BUILD_BUG_ON(offsetof(struct vmx_vcpu, cr2) != VMX_OFF_CR2);
	BUILD_BUG_ON(offsetof(struct vmx_vcpu, launched) != VMX_OFF_LAUNCHED);
	BUILD_BUG_ON(offsetof(struct dune_regs, rax) != 0);
	BUILD_BUG_ON(offsetof(struct dune_regs, rdi) != 7 * 8);
	BUILD_BUG_ON(offsetof(struct dune_regs, r15) != 15 * 8);
	BUILD_BUG_ON(VMCS_HOST_RSP != HOST_RSP);
	BUILD_BUG_ON(sizeof(struct dune_vcpu_page) > PAGE_SIZE);

	ret = vmx_caps_init(allow_unsafe);
	if (ret)
		return ret;
	ret = vmx_own_init();
	if (ret)
		return ret;
	ret = vmx_power_init();
	if (ret) {
		vmx_own_exit();
		return ret;
	}
	vmx_msr_bitmap_init();
	vmx_engine_init();
	return 0;
}

/** dune_vmx_exit() - stop the engine; no vCPU is left */
void dune_vmx_exit(void)
{
	vmx_power_exit();
	vmx_own_exit();
}
