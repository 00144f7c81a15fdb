/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The interface between /dev/dune and user space (C and C++). docs/abi.md explains it.
 *
 * Names: "host mode" is the thread as Linux knows it; "the guest" is the same thread in VMX
 * non-root operation, in the same address space. A "bounce" is a return of the module to host
 * mode that asks for nothing but to come back (signals, scheduling and the like were handled by
 * the kernel on the way).
 */
#ifndef _UAPI_DUNE_H
#define _UAPI_DUNE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DUNE_ABI_VERSION 1
#define DUNE_DEVICE "/dev/dune"

/* ---- guest-physical memory ------------------------------------------------------------------
 *
 * Guest-physical space is cut in slots of 1 GiB. A slot shows 1 GiB of the process' virtual
 * address space; user space chooses which (DUNE_SET_SLOTS). Slot 0 shows nothing, ever, so that
 * guest-physical 0 is invalid.
 */
#define DUNE_SLOT_SHIFT 30
#define DUNE_SLOT_NONE 0xffffffffu	/* a slot that shows nothing */

/* ---- device file ioctls ---------------------------------------------------------------------
 * A device file belongs to the address space (mm) that opened it; from another: -EPERM.
 * Each struct begins with its own size; another size, or a reserved field that is not zero, is
 * -EINVAL. Unknown ioctls are -ENOTTY.
 */
#define DUNE_IOC 0xdb

#define DUNE_FEAT_FAST_SYSCALLS (1ull << 0) /* system calls can be done without leaving the kernel */
#define DUNE_FEAT_KVM (1ull << 1)	    /* VMX is borrowed from KVM; else it is ours for each entry */
#define DUNE_FEAT_EPT_2M (1ull << 2)
#define DUNE_FEAT_EPT_1G (1ull << 3)
#define DUNE_FEAT_EPT_AD (1ull << 4)	/* EPT has accessed and dirty bits */
#define DUNE_FEAT_VPID (1ull << 5)	/* the guest's TLB entries are tagged */
#define DUNE_FEAT_INVPCID (1ull << 6)	/* INVPCID is usable in the guest */
#define DUNE_FEAT_UNRESTRICTED (1ull << 7)

struct dune_info {
	__u32 size;		/* in: sizeof(struct dune_info) */
	__u32 abi_version;	/* DUNE_ABI_VERSION */
	__u64 features;		/* DUNE_FEAT_* */
	__u32 gpa_bits;		/* width of a guest-physical address */
	__u32 nr_slots;		/* slots 1 .. nr_slots - 1 can be used */
	__u64 cr0_guest_bits;	/* bits of CR0 and CR4 that the guest may change without an exit */
	__u64 cr4_guest_bits;
	__u64 cr0_initial;	/* what a new vCPU has in them */
	__u64 cr4_initial;
	__u32 vcpu_page_size;	/* bytes to map at offset 0 of a vCPU file */
	__u32 door_offset;	/* file offset of the door page in a vCPU file */
	__u64 reserved[7];
};

struct dune_vcpu_create {
	__u32 size;
	__u32 flags;		/* must be 0 */
	__u64 reserved[2];
};

/* Show the virtual 1 GiB numbered va_slots[i] (address >> 30) in guest-physical slot first + i. */
struct dune_slots {
	__u32 size;
	__u32 first;
	__u32 count;
	__u32 reserved;
	__u64 va_slots;		/* user pointer to __u32[count] */
};

#define DUNE_NR_EXITS 80

struct dune_stats {		/* of the whole process; never goes back */
	__u32 size;
	__u32 vcpus;		/* now */
	__u64 entries;		/* VM entries */
	__u64 exits[DUNE_NR_EXITS]; /* VM exits by basic exit reason */
	__u64 bounces;
	__u64 fast_calls;	/* system calls done in the module */
	__u64 slow_calls;	/* system calls done in host mode */
	__u64 ept_faults;	/* EPT violations answered with a mapping */
	__u64 guest_faults;	/* EPT violations answered with #PF */
	__u64 ept_bytes;	/* EPT tables, now */
	__u64 ept_flushes;	/* INVEPT executed */
	__u64 foreign;		/* entries made while a VMCS of KVM was loaded */
	__u64 migrations;
	__u64 reserved[8];
};

#define DUNE_GET_INFO _IOWR(DUNE_IOC, 0x00, struct dune_info)
#define DUNE_CREATE_VCPU _IOW(DUNE_IOC, 0x01, struct dune_vcpu_create) /* returns the vCPU's file */
#define DUNE_SET_SLOTS _IOW(DUNE_IOC, 0x02, struct dune_slots)
#define DUNE_GET_SLOTS _IOWR(DUNE_IOC, 0x03, struct dune_slots)
#define DUNE_GET_STATS _IOWR(DUNE_IOC, 0x04, struct dune_stats)

/* ---- vCPU file ------------------------------------------------------------------------------
 * DUNE_RUN may only be called by the thread that created the vCPU (-EPERM). It returns 0 with
 * the why in dune_vcpu_page.exit, or an error of its own: -EINVAL (a value in the page that the
 * hardware would refuse; nothing ran), -EPERM (another thread's, or prctl() forbids this one RDTSC or
 * CPUID), -EIO (the vCPU died earlier and was not reset).
 *
 * lseek(vcpu, DUNE_RUN, SEEK_DATA) is the same call with less of the kernel around it: no look-up
 * of the command and no security module's hook, a third of the cost of entering and leaving.
 *
 * A read of the door page (by a two-byte load instruction, which is skipped) does what DUNE_RUN
 * does, without a system call: the way in that neither ptrace nor seccomp can make sleep. Take it
 * after a bounce that made no progress. If page->exit is 0 then, the run was refused, and DUNE_RUN
 * would say why. Another thread's read of the door raises SIGBUS.
 *
 * DUNE_INTERRUPT makes an external interrupt of a vector pending in the vCPU, from any thread of
 * the process: sets the bit in dune_vcpu_page.pending and gets the vCPU to look at it.
 */
#define DUNE_RUN _IO(DUNE_IOC, 0x10)
#define DUNE_INTERRUPT _IOW(DUNE_IOC, 0x11, __u32)
#define DUNE_DOOR_OFFSET 0x10000

struct dune_regs {		/* in the order of their encoding */
	__u64 rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi;
	__u64 r8, r9, r10, r11, r12, r13, r14, r15;
};

/* dune_vcpu_page.exit */
#define DUNE_EXIT_BOUNCE 1	/* nothing to do but run again */
#define DUNE_EXIT_SYSCALL 2	/* do the system call in regs (number in rax), put its result there */
#define DUNE_EXIT_LEAVE 3	/* the guest called DUNE_HC_LEAVE; rdi is its argument */
#define DUNE_EXIT_DEATH 4	/* the guest cannot go on: dune_vcpu_page.death says why */

/* dune_vcpu_page.set: what the next run loads from the page; the module clears what it accepted */
#define DUNE_SET_RIP (1u << 0)	/* rip, rflags and regs.rsp */
#define DUNE_SET_CR3 (1u << 1)
#define DUNE_SET_FS_BASE (1u << 2)
#define DUNE_SET_GS_BASE (1u << 3)
#define DUNE_SET_CR (1u << 4)	/* cr0 and cr4: only bits of cr*_guest_bits may differ from cr*_initial */
#define DUNE_SET_LSTAR (1u << 5)
#define DUNE_SET_GATE (1u << 6)
#define DUNE_SET_RESET (1u << 7) /* first: segments, tables, CRs and MSRs as in a new vCPU */
#define DUNE_SET_ALL 0xffu

/* dune_vcpu_page.flags */
#define DUNE_RUN_FAST (1u << 0)	/* system calls may be done in the module */

/*
 * VMCALL with a number in rax that is no system call. From ring 3, VMCALL is #UD, except that the
 * gate (below) is trusted to be out of ring 3's reach.
 */
#define DUNE_HC_BASE 0x44550000u
#define DUNE_HC_LEAVE (DUNE_HC_BASE + 0) /* DUNE_EXIT_LEAVE */
#define DUNE_HC_SYSCALL (DUNE_HC_BASE + 1) /* DUNE_EXIT_SYSCALL always (slow way), number in r11 moved to rax */
#define DUNE_HC_NOP (DUNE_HC_BASE + 2)	/* does nothing, returns 0 */
#define DUNE_HC_COUNT 3

struct dune_death {
	__u32 exit_reason;	/* Intel SDM vol. 3, appendix C; bit 31: the VM entry failed */
	__u32 instruction_error; /* VM-instruction error, or 0 */
	__u64 qualification;
	__u64 gpa;		/* guest-physical address, of EPT exits */
	__u64 gla;		/* guest-linear address, where the qualification says it is valid */
	__u32 intr_info, intr_error;
	__u32 vectoring_info, vectoring_error;
	__u64 cr0, cr2, cr3, cr4, efer;
	__u64 fs_base, gs_base, gdt_base, idt_base, tr_base;
	__u32 gdt_limit, idt_limit, activity, interruptibility;
	__u16 cs, ss, ds, es, fs, gs, tr, ldtr;
	char text[160];		/* one line for a person, NUL-terminated */
};

struct dune_vcpu_page {
	/* Registers. GPRs are always the guest's at its last exit, but for rsp, which like rip and
	 * rflags is stored with every exit but a bounce, and loaded only by DUNE_SET_RIP.
	 */
	struct dune_regs regs;	/* 0x000 */
	__u64 rip;		/* 0x080 */
	__u64 rflags;		/* 0x088 */
	__u64 cr3;		/* 0x090: guest-physical */
	__u64 fs_base;		/* 0x098 */
	__u64 gs_base;		/* 0x0a0 */
	__u64 cr0;		/* 0x0a8 */
	__u64 cr4;		/* 0x0b0 */
	__u64 lstar;		/* 0x0b8 */

	/* VMCALLs whose own address is in [gate_start, gate_end) are taken without a look at the
	 * privilege level. User space promises that ring 3 cannot execute there. Empty: none.
	 */
	__u64 gate_start;	/* 0x0c0 */
	__u64 gate_end;		/* 0x0c8 */

	__u32 set;		/* 0x0d0: in, DUNE_SET_* */
	__u32 flags;		/* 0x0d4: in, DUNE_RUN_* */
	__u32 exit;		/* 0x0d8: out, DUNE_EXIT_* */
	__u32 progress;		/* 0x0dc: out, 1 if the guest was entered in this run */
	/* Out, with DUNE_EXIT_SYSCALL: 0, or the -ERESTART* (512..516) that the call returned when
	 * it was tried in the module.
	 */
	__s32 restart;		/* 0x0e0 */
	__u32 pad0;

	/* External interrupts: bit v % 64 of pending[v / 64]. Set by user space (atomically), taken
	 * by the module, highest vector first, when the guest's RFLAGS.IF allows. pending_any must be
	 * set to 1 after a bit was. 0..31 are ignored.
	 */
	__u32 pending_any;	/* 0x0e8 */
	__u32 pad1;
	__u64 pending[4];	/* 0x0f0 */

	/* The last #PF that the module injected, for an access that Linux refuses though the guest's
	 * page table allows it. The error code has DUNE_PF_FROM_HOST set.
	 */
	__u64 fault_address;	/* 0x110 */
	__u32 fault_signal;	/* 0x118: what Linux would send: SIGSEGV or SIGBUS */
	__s32 fault_si_code;	/* 0x11c: SEGV_MAPERR, _ACCERR, _PKUERR, BUS_ADRERR, _MCEERR_AR */

	struct dune_death death; /* 0x120 */
};

/* A bit of the page-fault error code that no processor uses and that VM entry lets pass (SDM 27.2.1.3
 * wants bits 31:15 zero).
 */
#define DUNE_PF_FROM_HOST (1u << 14)

#endif /* _UAPI_DUNE_H */
