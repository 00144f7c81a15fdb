/* SPDX-License-Identifier: GPL-2.0-only */
/* The VT-x engine's own declarations. */
#ifndef DUNE_VMX_VMX_H
#define DUNE_VMX_VMX_H

#include <linux/percpu.h>
#include <asm/desc_defs.h>

#include "../compat.h"
#include "../vcpu.h"
#include "entry.h"
#include "vmcs.h"

/* MSRs of the system-call path, of which the guest has its own. */
enum { VMX_MSR_STAR, VMX_MSR_LSTAR, VMX_MSR_CSTAR, VMX_MSR_FMASK, VMX_NR_MSRS };

/* Of the interruptibility state: interrupts wait for one more instruction (SDM 25.4.2). */
#define VMX_SHADOW (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)

struct vmx_event {		/* what VM entry injects; SDM 25.8.3 */
	u32 info;
	u32 error;
	u32 len;
};

/* What has to be put back at the end of a window. */
enum {
	VMX_PUT_NOTHING,		/* our VMCS may stay current */
	VMX_PUT_VMCS,			/* KVM's VMCS, and no more */
	VMX_PUT_MORE,			/* that, and ours has to be cleared: VMX may go off meanwhile */
	VMX_PUT_OFF,			/* VMX, which the window turned on */
};

struct vmx_vcpu {
	/* entry.S knows where these are */
	struct dune_regs *regs;		/* = vcpu.page->regs */
	unsigned long host_rsp;		/* what HOST_RSP holds */
	unsigned long cr2;		/* the guest's */
	bool launched;

	struct dune_vcpu vcpu;

	void *vmcs;
	u64 vmcs_pa;
	u64 eptp;
	struct list_head active;	/* in vmx_cpu.active of .cpu */
	int cpu;			/* where the VMCS is active, or -1 */
	int host_cpu;			/* whose host state the VMCS holds, or -1 */
	bool ready;			/* the VMCS has been filled */
	bool foreign;			/* KVM's VMCS was current, and is after each window */
	u64 foreign_pa;			/* that one, or what else was found */
	u64 found_pa;			/* what VMPTRST said last */
	u8 put_back;			/* VMX_PUT_*, at the end of a window */
	bool tables_dirty;		/* GDT, IDT and TSS limits are not the host's now */
	bool repaired;			/* a refused guest state, in this run */
	bool triple_fault;

	unsigned long host_cr0, host_cr3, host_cr4, host_fs_base;
	u64 host_debugctl;		/* what of it may be put back late */
	u64 high_gs_base;		/* the guest's inactive GS base, where user mode must not have it */
	u16 host_ldt;
	struct desc_ptr host_gdt, host_idt;

	u16 vpid;
	u64 msrs[VMX_NR_MSRS];		/* the guest's */
	unsigned int msrs_differ;	/* mask of those that are not the host's */
	u64 db[4], dr6, cr8;
	struct vmx_event event;
	bool pf_pending;		/* make a #PF of the last EPT violation */
	u64 fault_gpa, fault_qual;	/* of the last EPT violation */

	void *last_table;		/* of level 1, for gpa >> 21; see vmx_ept_map() */
	u64 last_table_gpa, last_table_gone;
};

/* As the guest's tables have four levels. */
#define vmx_canonical(addr) __is_canonical_address(addr, 48)

static inline struct vmx_vcpu *to_vmx(struct dune_vcpu *vcpu)
{
	return container_of(vcpu, struct vmx_vcpu, vcpu);
}

/* What we left on a CPU, and what was there. */
struct vmx_cpu {
	bool msrs_loaded;
	u64 host_msrs[VMX_NR_MSRS];
	struct vmx_vcpu *loaded;	/* whose state is on the CPU */
	u64 current_pa;			/* the VMCS of ours that we left current, or 0 */
	struct list_head active;	/* vCPUs whose VMCS is active here */
	void *vmxon;			/* VMXON region, where nobody else has VMX on */
	u64 vmxon_pa;
	/* only inside a window that turned VMX on */
	unsigned long window_cr4;
};

DECLARE_PER_CPU(struct vmx_cpu, vmx_cpus);

/* Set once at load, from the capability MSRs. */
struct vmx_config {
	u32 revision;
	u32 pin, proc, proc2, exit, entry;
	u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
	bool ept_ad;
	bool vpid;
	bool small_code;		/* no large EPT leaf may be executable */
	u64 eptp_flags;
};

extern struct vmx_config vmx_config;
extern bool vmx_transient;		/* nobody has VMX on: VMXON for each window */
extern bool vmx_kvm_came;		/* a KVM was loaded after us: nothing of a guest's outside windows */
extern unsigned long vmx_msr_bitmap[];

/* caps.c */
int vmx_caps_init(bool allow_unsafe);

/* power.c */
extern bool vmx_stopped;		/* the machine is going to sleep or restart */
int vmx_power_init(void);
void vmx_power_exit(void);

/* own.c */
void vmx_clear_cpu(void *unused);
int vmx_own_init(void);
void vmx_own_exit(void);
bool vmx_open_slow(struct vmx_vcpu *vmx);
void vmx_close_slow(struct vmx_vcpu *vmx);
void vmx_leave_cpu(struct vmx_vcpu *vmx);
void vmx_clear(struct vmx_vcpu *vmx);
void vmx_msrs_load(struct vmx_vcpu *vmx);
void vmx_msrs_put(void);

/*
 * Makes the vCPU's VMCS current on this CPU. Interrupts are off, and stay so until vmx_close().
 * False if the VMCS is active on another CPU: vmx_clear() it first.
 */
static __always_inline bool vmx_open(struct vmx_vcpu *vmx)
{
	/* Ours was left current, and nobody came meanwhile. */
	if (likely(vmx->cpu == raw_smp_processor_id() && !vmx_transient &&
		   vmx_vmptrst(&vmx->found_pa) == vmx->vmcs_pa)) {
		vmx->foreign = false;
		vmx->put_back = VMX_PUT_NOTHING;
		vmx->vcpu.todo &= ~DUNE_TODO_OPEN;
		return true;
	}
	return vmx_open_slow(vmx);
}

/* Ends a window. The VMCS stays current if nothing else was. Interrupts off since vmx_open(). */
static __always_inline void vmx_close(struct vmx_vcpu *vmx)
{
	if (unlikely(vmx->put_back && !(vmx->vcpu.todo & DUNE_TODO_OPEN)))
		vmx_close_slow(vmx);
}

/* As vmx_close(), where something has to be put back. */
static __always_inline void vmx_park(struct vmx_vcpu *vmx)
{
	if (unlikely(vmx->put_back != VMX_PUT_VMCS)) {
		vmx_close_slow(vmx);
		return;
	}
	vmx->vcpu.todo |= DUNE_TODO_OPEN;
	if (vmx_vmptrld(&vmx->foreign_pa))
		vmx_insn_failed("vmptrld", 1);
}

/*
 * Opens the window again that vmx_park() just closed, if nothing came between: interrupts were on,
 * but the thread stayed on the CPU, with its state (todo has DUNE_TODO_OPEN alone). Else todo keeps
 * that, and the long way is due.
 */
static __always_inline void vmx_reopen(struct vmx_vcpu *vmx)
{
	if (unlikely(vmx->put_back != VMX_PUT_VMCS)) {
		if (vmx_transient && !READ_ONCE(vmx_stopped))
			vmx_open_slow(vmx);
	} else if (likely(vmx->cpu >= 0 && vmx_vmptrst(&vmx->found_pa) == vmx->foreign_pa)) {
		/* KVM's VMCS is current still, and ours is active here still. */
		if (vmx_vmptrld(&vmx->vmcs_pa))
			vmx_insn_failed("vmptrld", 0);
		vmx->vcpu.todo = 0;
		vmx->vcpu.count.foreign++;
	}
}

/* vmcs.c */
void vmx_vmcs_init(struct vmx_vcpu *vmx);
void vmx_vmcs_reset_guest(struct vmx_vcpu *vmx);
void vmx_vmcs_host_cpu(struct vmx_vcpu *vmx);
int vmx_vmcs_set(struct vmx_vcpu *vmx, u32 set);

/* inject.c */
void vmx_queue_exception(struct vmx_vcpu *vmx, u8 vector, bool has_error, u32 error);
void vmx_queue_page_fault(struct vmx_vcpu *vmx);
__noendbr void vmx_requeue_vectoring(struct vmx_vcpu *vmx);
void vmx_inject(struct vmx_vcpu *vmx);

/* Shows user space where the guest is; the VMCS is current. */
static __always_inline void vmx_store_regs(struct vmx_vcpu *vmx)
{
	struct dune_vcpu_page *page = vmx->vcpu.page;

	page->rip = vmcs_readl(GUEST_RIP);
	page->regs.rsp = vmcs_readl(GUEST_RSP);
	page->rflags = vmcs_readl(GUEST_RFLAGS);
}

/* exits.c: what a VM exit wants next */
enum vmx_next {
	VMX_AGAIN,		/* enter again */
	VMX_CHANGED,		/* enter again, with registers that we changed */
	VMX_IRQ,		/* take the interrupt that made it exit, then enter again */
	VMX_CALL,		/* a system call for the module */
	VMX_FAULT,		/* an EPT violation */
	VMX_WAIT,		/* HLT */
	VMX_USER,		/* to user space: page->exit is set */
};
enum vmx_next vmx_handle_exit(struct vmx_vcpu *vmx, u32 reason);
enum vmx_next vmx_vmcall_from_ring3(struct vmx_vcpu *vmx);
__noendbr void vmx_skip(struct vmx_vcpu *vmx);

/* msr.c, cpuid.c, death.c */
bool vmx_rdmsr(struct vmx_vcpu *vmx, u32 msr, u64 *val);
bool vmx_wrmsr(struct vmx_vcpu *vmx, u32 msr, u64 val);
__noendbr void vmx_cpuid(struct dune_regs *regs);
void vmx_die(struct vmx_vcpu *vmx, u32 reason);

/* ept.c */
int vmx_ept_create(struct dune_process *proc);
void vmx_ept_destroy(struct dune_process *proc);
bool vmx_ept_map(struct dune_vcpu *vcpu, u64 gpa, const struct dune_leaf *leaf);
bool vmx_ept_zap(struct dune_process *proc, u64 start, u64 end, bool unmapped,
		 struct list_head *freed);
bool vmx_ept_young(struct dune_process *proc, u64 start, u64 end, bool clear, bool *flush);

/* run.c */
int vmx_run(struct dune_vcpu *vcpu);

/* entry.S: how vmx_turn() tells it to go on */
#define VMX_LOOP_ENTER 0	/* the registers in memory are those in the CPU */
#define VMX_LOOP_RELOAD 1	/* they are not */
#define VMX_LOOP_LEAVE -1
void vmx_loop(struct vmx_vcpu *vmx);
void vmx_loop_safe(struct vmx_vcpu *vmx);
__noendbr int vmx_turn(struct vmx_vcpu *vmx);
int vmx_turn_failed(struct vmx_vcpu *vmx);
extern const char vmx_exit_point[], vmx_exit_point_safe[];
extern bool vmx_use_safe_entry;
extern u32 vmx_mitigations;		/* VMX_MIT_*, read by entry.S */
extern u16 vmx_verw_selector;

#endif
