// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each VM exit means. All of this runs in the window right after the exit, with interrupts
 * off and the VMCS current: it reads and writes the VMCS, and leaves what may sleep to run.c.
 */
#include <linux/percpu.h>
#include <asm/debugreg.h>
#include <asm/fpu/xcr.h>
#include <asm/kvm_para.h>
#include <asm/mce.h>
#include <asm/trapnr.h>

#include "vmx.h"

/**
 * vmx_skip() - past the instruction that caused the exit
 * @vmx: the vCPU; its VMCS is current
 */
__noendbr void vmx_skip(struct vmx_vcpu *vmx)
{
	u32 intr = vmcs_read32(GUEST_INTERRUPTIBILITY_INFO), len = vmcs_read32(VM_EXIT_INSTRUCTION_LEN);
	u64 rip = vmcs_readl(GUEST_RIP) + len;

	/* Outside 64-bit code it wraps. */
	if (unlikely((u32)rip < len && !(vmcs_read32(GUEST_CS_AR_BYTES) & BIT(13))))
		rip = (u32)rip;
	vmcs_writel(GUEST_RIP, rip);
	/* The shadow of STI and MOV SS is one instruction long. */
	if (unlikely(intr & VMX_SHADOW))
		vmcs_write32(GUEST_INTERRUPTIBILITY_INFO, intr & ~VMX_SHADOW);
	/* A single step over it is due. */
	if (unlikely(vmcs_readl(GUEST_RFLAGS) & X86_EFLAGS_TF))
		vmcs_writel(GUEST_PENDING_DBG_EXCEPTIONS,
			    vmcs_readl(GUEST_PENDING_DBG_EXCEPTIONS) | DR_STEP);
}

static enum vmx_next refuse(struct vmx_vcpu *vmx, u8 vector)
{
	vmx_queue_exception(vmx, vector, vector == X86_TRAP_GP, 0);
	return VMX_AGAIN;
}

static u64 gpr_read(struct vmx_vcpu *vmx, unsigned int n)
{
	return n == 4 ? vmcs_readl(GUEST_RSP) : ((u64 *)vmx->regs)[n & 15];
}

static void gpr_write(struct vmx_vcpu *vmx, unsigned int n, u64 val)
{
	if (n == 4)
		vmcs_writel(GUEST_RSP, val);
	else
		((u64 *)vmx->regs)[n & 15] = val;
}

/**
 * vmx_vmcall_from_ring3() - refuse a VMCALL that comes from ring 3
 * @vmx: the vCPU; its VMCS is current
 *
 * Return: VMX_AGAIN if it does, with #UD queued, else VMX_CALL.
 */
enum vmx_next vmx_vmcall_from_ring3(struct vmx_vcpu *vmx)
{
	return vmcs_read32(GUEST_SS_AR_BYTES) >> 5 & 3 ? refuse(vmx, X86_TRAP_UD) : VMX_CALL;
}

static enum vmx_next exit_db(struct vmx_vcpu *vmx, u32 info)
{
	u64 qual = vmcs_readl(EXIT_QUALIFICATION);

	/*
	 * A single step over SYSCALL: FMASK cleared TF, so there is none to report. Where one comes all
	 * the same, as on emulated CPUs, a #DB at the first instruction of ring 0 would find it with
	 * ring 3's GS base.
	 */
	if (qual & DR_STEP && !(vmcs_readl(GUEST_RFLAGS) & X86_EFLAGS_TF) &&
	    vmcs_readl(GUEST_RIP) == vmx->msrs[VMX_MSR_LSTAR]) {
		vmcs_writel(GUEST_PENDING_DBG_EXCEPTIONS, 0);
		return VMX_AGAIN;
	}
	vmx->dr6 = (vmx->dr6 & ~0xfull) | (qual & 0xe00f) | 0xffff0ff0;
	vmcs_write32(GUEST_INTERRUPTIBILITY_INFO,
		     vmcs_read32(GUEST_INTERRUPTIBILITY_INFO) & ~VMX_SHADOW);
	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_PRIV_SW_EXCEPTION)
		vmx_skip(vmx); /* INT1 is a trap */
	return refuse(vmx, X86_TRAP_DB);
}

/*
 * In ring 3's name, as KVM does it: it may cost the process. In the kernel's, which had nothing to do
 * with that access, it would be the end of the machine.
 */
static enum vmx_next machine_check(void)
{
#ifdef CONFIG_X86_MCE
	struct pt_regs regs = { .cs = 3, .flags = X86_EFLAGS_IF };

	do_machine_check(&regs);
#endif
	return VMX_AGAIN;
}

static enum vmx_next exit_exception(struct vmx_vcpu *vmx)
{
	u32 info = vmcs_read32(VM_EXIT_INTR_INFO), type = info & INTR_INFO_INTR_TYPE_MASK;
	u64 apf;

	if (type == INTR_TYPE_NMI_INTR) {
		/* NMIs are blocked since the exit; the handler's IRET ends that. */
		asm volatile("int $2");
		return VMX_AGAIN;
	}
	vmx_requeue_vectoring(vmx);
	switch (info & INTR_INFO_VECTOR_MASK) {
	case X86_TRAP_MC:
		return machine_check();
	case X86_TRAP_DB:
		return exit_db(vmx, info);
	case X86_TRAP_AC:
		vmx_queue_exception(vmx, X86_TRAP_AC, true, vmcs_read32(VM_EXIT_INTR_ERROR_CODE));
		return VMX_AGAIN;
	case X86_TRAP_PF:
		/*
		 * Nobody asked for it but Linux, when it found that it runs in a KVM: that one has to fetch
		 * a page, and has the guest wait when it comes back for it. Its note must not be there at
		 * the next #PF of the kernel's own, which would be taken for another, and panic.
		 */
		if (rdmsrl_safe(MSR_KVM_ASYNC_PF_EN, &apf) || !(apf & KVM_ASYNC_PF_ENABLED))
			break;
		((struct kvm_vcpu_pv_apf_data *)__va(apf & ~63ull))->flags = 0;
		return VMX_AGAIN;
	}
	vmx_die(vmx, EXIT_REASON_EXCEPTION_NMI);
	return VMX_USER;
}

/* SDM table 28-3. CR0 and CR4 get here only for bits that are not the guest's to change. */
static enum vmx_next exit_cr(struct vmx_vcpu *vmx)
{
	u64 qual = vmcs_readl(EXIT_QUALIFICATION), val;
	unsigned int gpr = qual >> 8 & 15;

	if ((qual & 15) != 8)
		return refuse(vmx, X86_TRAP_GP);
	if (qual >> 4 & 3) {
		gpr_write(vmx, gpr, vmx->cr8);
	} else {
		val = gpr_read(vmx, gpr);
		if (val > 15)
			return refuse(vmx, X86_TRAP_GP);
		vmx->cr8 = val;
	}
	vmx_skip(vmx);
	return VMX_CHANGED;
}

/* SDM table 28-4. No breakpoint can be armed: the registers read back, and that is all. */
static enum vmx_next exit_dr(struct vmx_vcpu *vmx)
{
	u64 qual = vmcs_readl(EXIT_QUALIFICATION), val;
	unsigned int dr = qual & 7, gpr = qual >> 8 & 15;

	if (dr == 4 || dr == 5) {
		if (vmcs_readl(GUEST_CR4) & X86_CR4_DE)
			return refuse(vmx, X86_TRAP_UD);
		dr += 2;
	}
	/* The exit comes before the CPU's own look at the ring (SDM 26.1.3). */
	if (vmcs_read32(GUEST_SS_AR_BYTES) >> 5 & 3)
		return refuse(vmx, X86_TRAP_GP);
	if (qual & BIT(4)) {
		gpr_write(vmx, gpr, dr == 6 ? vmx->dr6 : dr == 7 ? 0x400 : vmx->db[dr]);
	} else {
		val = gpr_read(vmx, gpr);
		if ((dr >= 6 && val >> 32) || (dr == 7 && val & 0x20ff))
			return refuse(vmx, X86_TRAP_GP);
		if (dr == 6)
			vmx->dr6 = (val & 0xe00f) | 0xffff0ff0;
		else if (dr < 4)
			vmx->db[dr] = val;
	}
	vmx_skip(vmx);
	return VMX_CHANGED;
}

static enum vmx_next exit_msr(struct vmx_vcpu *vmx, bool write)
{
	struct dune_regs *r = vmx->regs;
	u64 val = (u32)r->rax | r->rdx << 32;

	if (!(write ? vmx_wrmsr(vmx, r->rcx, val) : vmx_rdmsr(vmx, r->rcx, &val)))
		return refuse(vmx, X86_TRAP_GP);
	if (!write) {
		r->rax = (u32)val;
		r->rdx = val >> 32;
	}
	vmx_skip(vmx);
	return VMX_AGAIN;
}

static enum vmx_next exit_xsetbv(struct vmx_vcpu *vmx)
{
	struct dune_regs *r = vmx->regs;

	/* The thread's XCR0 is the kernel's to choose. */
	if ((u32)r->rcx || ((u32)r->rax | r->rdx << 32) != xgetbv(XCR_XFEATURE_ENABLED_MASK))
		return refuse(vmx, X86_TRAP_GP);
	vmx_skip(vmx);
	return VMX_AGAIN;
}

/*
 * VM entry wants a pending single step where TF is set in the shadow of STI or MOV SS (SDM
 * 27.3.1.5). A guest that stepped into our exit can be there without; put it right, once.
 */
static enum vmx_next exit_bad_state(struct vmx_vcpu *vmx, u32 reason)
{
	u32 intr = vmcs_read32(GUEST_INTERRUPTIBILITY_INFO);

	if (vmx->repaired || !(intr & VMX_SHADOW) || (u16)reason != EXIT_REASON_INVALID_STATE) {
		vmx_die(vmx, reason);
		return VMX_USER;
	}
	vmx->repaired = true;
	vmcs_write32(GUEST_INTERRUPTIBILITY_INFO, intr & ~VMX_SHADOW);
	return VMX_AGAIN;
}

/**
 * vmx_handle_exit() - handle a VM exit as far as the VMCS is needed for it
 * @vmx: the vCPU
 * @reason: the exit reason; none that run.c takes itself (VMCALL, EPT violation, CPUID)
 *
 * Context: interrupts off, right after the exit.
 *
 * Return: what is to be done with interrupts on.
 */
enum vmx_next vmx_handle_exit(struct vmx_vcpu *vmx, u32 reason)
{
	/* A VMLAUNCH that was refused launched nothing (SDM 27.8); a VMRESUME may have been it as well. */
	if (reason & VMX_EXIT_REASONS_FAILED_VMENTRY) {
		if (vmx_vmclear(&vmx->vmcs_pa) || vmx_vmptrld(&vmx->vmcs_pa))
			vmx_insn_failed("vmclear", 2);
		vmx->launched = false;
	}
	switch (reason) {
	case EXIT_REASON_EXTERNAL_INTERRUPT:
		return VMX_IRQ;
	case EXIT_REASON_EXCEPTION_NMI:
		return exit_exception(vmx);
	case EXIT_REASON_INTERRUPT_WINDOW:
	case EXIT_REASON_INIT_SIGNAL:
		return VMX_AGAIN;
	case EXIT_REASON_HLT:
	case EXIT_REASON_MWAIT_INSTRUCTION:
		vmx_skip(vmx);
		return VMX_WAIT;
	case EXIT_REASON_MONITOR_INSTRUCTION:
		vmx_skip(vmx);
		return VMX_AGAIN;
	case EXIT_REASON_CR_ACCESS:
		return exit_cr(vmx);
	case EXIT_REASON_DR_ACCESS:
		return exit_dr(vmx);
	case EXIT_REASON_MSR_READ:
		return exit_msr(vmx, false);
	case EXIT_REASON_MSR_WRITE:
		return exit_msr(vmx, true);
	case EXIT_REASON_XSETBV:
		return exit_xsetbv(vmx);
	case EXIT_REASON_IO_INSTRUCTION:
	case EXIT_REASON_RDPMC:
	case EXIT_REASON_INVD:
	case EXIT_REASON_WBINVD:
		return refuse(vmx, X86_TRAP_GP);
	case 11: /* GETSEC */
	case EXIT_REASON_VMCLEAR ... EXIT_REASON_VMON:
	case EXIT_REASON_INVEPT:
	case EXIT_REASON_INVVPID:
	case EXIT_REASON_VMFUNC:
	case EXIT_REASON_ENCLS:
	case 76 ... 77: /* SEAMCALL, TDCALL: exits wherever the CPU has TDX */
	case 84 ... 85: /* RDMSR and WRMSRNS of an immediate number, which CPUID hides */
		return refuse(vmx, X86_TRAP_UD);
	case EXIT_REASON_MCE_DURING_VMENTRY:
	case EXIT_REASON_MCE_DURING_VMENTRY | VMX_EXIT_REASONS_FAILED_VMENTRY:
		return machine_check();
	}
	if (reason & VMX_EXIT_REASONS_FAILED_VMENTRY)
		return exit_bad_state(vmx, reason);
	vmx_die(vmx, reason);
	return VMX_USER;
}
