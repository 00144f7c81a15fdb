/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way into the guest and back, round and round.
 *
 * void vmx_loop(struct vmx_vcpu *vmx), interrupts off: enters the guest and calls vmx_turn() after
 * each VM exit, until that says to leave. Two of them: the plain one, and vmx_loop_safe for CPUs
 * whose bugs want something done at each entry and exit; vmx_run() picks one.
 *
 * The plain one leaves the guest's callee-saved registers where they are while C code runs, which
 * keeps them as any function does; it loads them anew only when vmx_turn() says that they changed.
 * The safe one leaves no value of the guest's in any register for the host to speculate with.
 */
#include <linux/linkage.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

#include "entry.h"

/* Where struct dune_regs has each of them: in the order of their encoding. */
.set .Lnext, 0
.irp reg, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
.set .Lat_\reg, .Lnext
.set .Lnext, .Lnext + 8
.endr

.macro LOAD_REGS regs:vararg
	.irp reg, \regs
	mov .Lat_\reg(%rdi), %\reg
	.endr
.endm

.macro SAVE_REGS regs:vararg
	.irp reg, \regs
	mov %\reg, .Lat_\reg(%rdi)
	.endr
.endm

.macro CLEAR_GUEST_REGS
	.irp reg, eax, ecx, edx, ebx, ebp, esi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d
	xor %\reg, %\reg
	.endr
.endm

.macro VMX_LOOP name, exit, safe
SYM_FUNC_START(\name)
	.irp reg, rbp, rbx, r12, r13, r14, r15, rdi
	push %\reg
	.endr
	cmp %rsp, VMX_OFF_HOST_RSP(%rdi)
	je .Lenter\@
	mov %rsp, VMX_OFF_HOST_RSP(%rdi)
	mov $VMCS_HOST_RSP, %eax
	vmwrite %rsp, %rax

.Lenter\@:
	mov VMX_OFF_REGS(%rdi), %rax
	xchg %rax, %rdi
	LOAD_REGS rbx, rbp, r12, r13, r14, r15	/* those that a C function keeps */
	xchg %rax, %rdi
.Lenter_kept\@:
	/* CR2 is not in the VMCS. Host page faults change it, so it is written when it differs. */
	mov VMX_OFF_CR2(%rdi), %rax
	mov %cr2, %rcx
	cmp %rax, %rcx
	jne .Lcr2\@
.Lcr2_done\@:
	.if \safe
	call vmx_guard_entry
	testl $VMX_MIT_VERW, vmx_mitigations(%rip)
	.endif
	btl $0, VMX_OFF_LAUNCHED(%rdi)	/* leaves ZF alone, as VERW leaves CF */
	mov VMX_OFF_REGS(%rdi), %rdi
	LOAD_REGS rax, rcx, rdx, rsi, r8, r9, r10, r11, rdi
	.if \safe
	/* Last of all: what is loaded, pushed or popped after it is in the buffers again. */
	jz .Lcleared\@
	verw vmx_verw_selector(%rip)
.Lcleared\@:
	.endif
	UNWIND_HINT_SAVE
	jnc .Llaunch\@
	vmresume
	jmp .Lfail\@
.Llaunch\@:
	vmlaunch
	jmp .Lfail\@

	/* HOST_RIP. Only RSP and what the VMCS holds are the host's here. */
SYM_INNER_LABEL(\exit, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR
	push %rdi
	mov 8(%rsp), %rdi	/* RSP is HOST_RSP, where vmx was pushed */
	mov VMX_OFF_REGS(%rdi), %rdi
	SAVE_REGS rax, rcx, rdx, rbx, rbp, rsi, r8, r9, r10, r11, r12, r13, r14, r15
	pop .Lat_rdi(%rdi)
	mov (%rsp), %rdi
	mov %cr2, %rcx
	mov %rcx, VMX_OFF_CR2(%rdi)
	.if \safe
	CLEAR_GUEST_REGS
	/* Before the first RET: none may be predicted from the guest's return stack. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	call vmx_guard_exit
	.endif
	call vmx_turn
.Lturned\@:
	mov (%rsp), %rdi
	test %eax, %eax
	.if \safe
	jns .Lenter\@
	.else
	je .Lenter_kept\@
	jns .Lenter\@
	.endif
	.irp reg, rdi, r15, r14, r13, r12, rbx, rbp
	pop %\reg
	.endr
	RET

.Lcr2\@:
	mov %rax, %cr2
	jmp .Lcr2_done\@
.Lfail\@:
	/* VMfail: nothing of the guest ran. */
	mov (%rsp), %rdi
	call vmx_turn_failed
	jmp .Lturned\@
SYM_FUNC_END(\name)
.endm

.section .text, "ax"

VMX_LOOP vmx_loop, vmx_exit_point, 0
VMX_LOOP vmx_loop_safe, vmx_exit_point_safe, 1

/* Before an entry. Keeps %rdi, and the guest's registers that are loaded already. */
SYM_FUNC_START_LOCAL(vmx_guard_entry)
	testl $VMX_MIT_L1D, vmx_mitigations(%rip)
	jz 1f
	/* SDM vol. 4, IA32_FLUSH_CMD: an L1TF CPU lets the guest see L1D beyond its EPT. */
	mov $MSR_IA32_FLUSH_CMD, %ecx
	mov $L1D_FLUSH, %eax
	xor %edx, %edx
	wrmsr
1:	lfence
	RET
SYM_FUNC_END(vmx_guard_entry)

/* After an exit. Keeps %rdi. */
SYM_FUNC_START_LOCAL(vmx_guard_exit)
	testl $VMX_MIT_IBRS, vmx_mitigations(%rip)
	jz 1f
	/* IBRS that is not enhanced takes effect anew with each write after a change of mode. */
	mov $MSR_IA32_SPEC_CTRL, %ecx
	rdmsr
	wrmsr
1:	testl $VMX_MIT_BHB, vmx_mitigations(%rip)
	jz 5f
	/* Taken branches enough to push the guest's out of the history buffer (Intel's BHI paper). */
	mov $8, %ecx
2:	mov $32, %edx
3:	jmp 4f
	nop
4:	dec %edx
	jnz 3b
	dec %ecx
	jnz 2b
5:	lfence
	RET
SYM_FUNC_END(vmx_guard_exit)
