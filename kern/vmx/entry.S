/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way into the guest and back.
 *
 * int vmx_enter(struct vmx_vcpu *vmx, bool launched), interrupts off. Two of them: the plain one,
 * and vmx_enter_safe for CPUs whose bugs want something done at each entry and exit. run.c picks
 * one by static call, so that the plain one tests nothing.
 */
#include <linux/linkage.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

#include "entry.h"

.macro LOAD_GUEST_REGS
	mov REGS_RAX(%rdi), %rax
	mov REGS_RCX(%rdi), %rcx
	mov REGS_RDX(%rdi), %rdx
	mov REGS_RBX(%rdi), %rbx
	mov REGS_RBP(%rdi), %rbp
	mov REGS_RSI(%rdi), %rsi
	mov REGS_R8(%rdi), %r8
	mov REGS_R9(%rdi), %r9
	mov REGS_R10(%rdi), %r10
	mov REGS_R11(%rdi), %r11
	mov REGS_R12(%rdi), %r12
	mov REGS_R13(%rdi), %r13
	mov REGS_R14(%rdi), %r14
	mov REGS_R15(%rdi), %r15
	mov REGS_RDI(%rdi), %rdi
.endm

/* Leaves vmx in %rax and regs in %rdi. */
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
	pop %rax
.endm

/* No value of the guest's is left for the host to speculate with; the others are popped. */
.macro CLEAR_SCRATCH
	xor %ecx, %ecx
	xor %edx, %edx
	xor %esi, %esi
	xor %edi, %edi
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
.endm

.macro VMX_ENTER name, exit, safe
SYM_FUNC_START(\name)
	push %rbp
	mov %rsp, %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi
	cmp %rsp, VMX_OFF_HOST_RSP(%rdi)
	jne .Lrsp\@
.Lrsp_done\@:
	/* CR2 is not in the VMCS. Host page faults change it, so it is written when it differs. */
	mov VMX_OFF_CR2(%rdi), %rax
	mov %cr2, %rcx
	cmp %rax, %rcx
	jne .Lcr2\@
.Lcr2_done\@:
	.if \safe
	call vmx_guard_entry
	.endif
	test %sil, %sil
	mov VMX_OFF_REGS(%rdi), %rdi
	LOAD_GUEST_REGS
	UNWIND_HINT_SAVE
	jz .Llaunch\@
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
	mov %rcx, VMX_OFF_CR2(%rax)
	.if \safe
	/* Before the first RET: none may be predicted from the guest's return stack. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	.endif
	CLEAR_SCRATCH
	xor %eax, %eax
.Lout\@:
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	.if \safe
	jmp vmx_guard_exit
	.else
	RET
	.endif

.Lrsp\@:
	mov %rsp, VMX_OFF_HOST_RSP(%rdi)
	mov $VMCS_HOST_RSP, %eax
	vmwrite %rsp, %rax
	jmp .Lrsp_done\@
.Lcr2\@:
	mov %rax, %cr2
	jmp .Lcr2_done\@
.Lfail\@:
	/* VMfail: nothing of the guest ran, the registers are as we loaded them. */
	pop %rdi
	CLEAR_SCRATCH
	mov $1, %eax
	jmp .Lout\@
SYM_FUNC_END(\name)
.endm

.section .text, "ax"

VMX_ENTER vmx_enter, vmx_exit_point, 0
VMX_ENTER vmx_enter_safe, vmx_exit_point_safe, 1

/* Before an entry. Keeps %rdi and %rsi. */
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

/* After an exit, with the caller's frame gone: returns to vmx_enter's caller. Keeps %eax. */
SYM_FUNC_START_LOCAL(vmx_guard_exit)
	testl $VMX_MIT_IBRS, vmx_mitigations(%rip)
	jz 1f
	/* IBRS that is not enhanced takes effect anew with each write after a change of mode. */
	mov %eax, %r8d
	mov $MSR_IA32_SPEC_CTRL, %ecx
	rdmsr
	wrmsr
	mov %r8d, %eax
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
	xor %ecx, %ecx
	xor %edx, %edx
	xor %r8d, %r8d
	RET
SYM_FUNC_END(vmx_guard_exit)
