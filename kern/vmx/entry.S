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

/* The registers that a C function keeps. */
.macro LOAD_KEPT_REGS
	mov REGS_RBX(%rdi), %rbx
	mov REGS_RBP(%rdi), %rbp
	mov REGS_R12(%rdi), %r12
	mov REGS_R13(%rdi), %r13
	mov REGS_R14(%rdi), %r14
	mov REGS_R15(%rdi), %r15
.endm

.macro LOAD_SCRATCH_REGS
	mov REGS_RAX(%rdi), %rax
	mov REGS_RCX(%rdi), %rcx
	mov REGS_RDX(%rdi), %rdx
	mov REGS_RSI(%rdi), %rsi
	mov REGS_R8(%rdi), %r8
	mov REGS_R9(%rdi), %r9
	mov REGS_R10(%rdi), %r10
	mov REGS_R11(%rdi), %r11
	mov REGS_RDI(%rdi), %rdi
.endm

/* Leaves vmx in %rdi. RSP is HOST_RSP, where vmx_loop pushed it. */
.macro SAVE_GUEST_REGS
	push %rdi
	mov 8(%rsp), %rdi
	mov VMX_OFF_REGS(%rdi), %rdi
	mov %rax, REGS_RAX(%rdi)
	mov %rcx, REGS_RCX(%rdi)
	mov %rdx, REGS_RDX(%rdi)
	mov %rbx, REGS_RBX(%rdi)
	mov %rbp, REGS_RBP(%rdi)
	mov %rsi, REGS_RSI(%rdi)
	mov %r8, REGS_R8(%rdi)
	mov %r9, REGS_R9(%rdi)
	mov %r10, REGS_R10(%rdi)
	mov %r11, REGS_R11(%rdi)
	mov %r12, REGS_R12(%rdi)
	mov %r13, REGS_R13(%rdi)
	mov %r14, REGS_R14(%rdi)
	mov %r15, REGS_R15(%rdi)
	pop REGS_RDI(%rdi)
	mov (%rsp), %rdi
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
	LOAD_KEPT_REGS
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
	.endif
	cmpb $0, VMX_OFF_LAUNCHED(%rdi)
	mov VMX_OFF_REGS(%rdi), %rdi
	LOAD_SCRATCH_REGS
	UNWIND_HINT_SAVE
	je .Llaunch\@
	vmresume
	jmp .Lfail\@
.Llaunch\@:
	vmlaunch
	jmp .Lfail\@

	/* HOST_RIP. Only RSP and what the VMCS holds are the host's here. */
SYM_INNER_LABEL(\exit, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR
	SAVE_GUEST_REGS
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
1:	testl $VMX_MIT_VERW, vmx_mitigations(%rip)
	jz 2f
	verw vmx_verw_selector(%rip)
2:	lfence
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
