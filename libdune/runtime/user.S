/* SPDX-License-Identifier: MIT */
/* dune_jump_to_user() and what belongs to it. */
#include "entry.h"

	.text

/*
 * long dune_run_user(struct dune_tf *, size_t fpu_area_size)
 * On the stack, from the top: callee-saved registers; the kernel_rsp, jump_rsp and user_fpu of before;
 * the area for ring 3's vector state; then what entries from ring 3 use.
 */
.macro RUN_USER variant
FUNCTION dune_run_user_\variant
	.cfi_startproc
	push	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbp, 0
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	cli
	push	%gs:TH_KERNEL_RSP
	push	%gs:TH_USER_FPU
	push	%gs:TH_JUMP_RSP
	mov	%rsp, %gs:TH_JUMP_RSP
	sub	%rsi, %rsp
	and	$-64, %rsp
	mov	%rsp, %r12
	FPU_CLEAR_HEADER
	/* Whole, so that XSAVEOPT may later leave out what did not change. */
	FPU_SAVE_FULL
	mov	%r12, %gs:TH_USER_FPU
	lea	-8(%rsp), %rax		/* entries push 21 words */
	mov	%rax, %gs:TH_KERNEL_RSP
.ifc \variant,fast
	rdfsbase %rax
	mov	%rax, %gs:TH_KERNEL_FS
.else
	mov	$0xc0000100, %ecx
	rdmsr
	mov	%eax, %gs:TH_KERNEL_FS
	mov	%edx, %gs:TH_KERNEL_FS + 4
.endif
	/* The frame itself is the caller's: go on with a copy. */
	lea	-TF_SIZE - 8(%rsp), %rsp
	mov	%rdi, %rsi
	mov	%rsp, %rdi
	mov	$(TF_SIZE / 8), %ecx
	rep movsq
	movq	$SEL_USER_CS, TF_CS(%rsp)
	jmp	dune_enter_user_\variant
	.cfi_endproc
	END dune_run_user_\variant
.endm

	RUN_USER fast
	RUN_USER legacy

/* void dune_leave_user(long ret): the innermost dune_run_user() of this thread returns ret */
FUNCTION dune_leave_user
	cli
	mov	%gs:TH_JUMP_RSP, %rsp
	mov	%rdi, %rax
	pop	%gs:TH_JUMP_RSP
	pop	%gs:TH_USER_FPU
	pop	%gs:TH_KERNEL_RSP
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	END dune_leave_user

/*
 * void dune_go_frame_VARIANT(struct dune_tf *): go on with the frame, wherever it is. If it is that of
 * the trap whose handler calls this, the vector state that belongs to it comes with it.
 */
.macro GO_FRAME variant
FUNCTION dune_go_frame_\variant
	cli				/* nothing may be pushed below the frame */
	mov	%gs:TH_TRAP_FPU, %r12
	cmp	%rdi, FPU_OWNER(%r12)
	jne	.Lgo_\variant
	FPU_LOAD \variant
	movq	$FPU_FREE, FPU_OWNER(%r12)
.Lgo_\variant:
	mov	%rdi, %rsp
	testb	$3, TF_CS(%rsp)
	jnz	dune_enter_user_\variant
	jmp	dune_trap_return_\variant
	END dune_go_frame_\variant
.endm

	GO_FRAME fast
	GO_FRAME legacy

/*
 * size_t dune_copy_user(void *to, const void *from, size_t len): what was not copied.
 * A page fault between the labels goes on at dune_copy_user_fixup (fault.cc). With SMAP on, AC lets
 * ring 0 through.
 */
FUNCTION dune_copy_user
	.cfi_startproc
	mov	%rdx, %rcx
	pushfq
	.cfi_adjust_cfa_offset 8
	orq	$0x40000, (%rsp)	/* AC; STAC would be an invalid opcode on older CPUs */
	popfq
	.cfi_adjust_cfa_offset -8
	.globl	dune_copy_user_insn
	.hidden	dune_copy_user_insn
dune_copy_user_insn:
	rep movsb
	.globl	dune_copy_user_fixup
	.hidden	dune_copy_user_fixup
dune_copy_user_fixup:
	pushfq
	.cfi_adjust_cfa_offset 8
	andq	$~0x40000, (%rsp)
	popfq
	.cfi_adjust_cfa_offset -8
	mov	%rcx, %rax
	ret
	.cfi_endproc
	END dune_copy_user

/* bool dune_user_cmpxchg(uint32_t *word, uint32_t from, uint32_t to, uint32_t *seen) */
FUNCTION dune_user_cmpxchg
	.cfi_startproc
	mov	%esi, %eax
	pushfq
	.cfi_adjust_cfa_offset 8
	orq	$0x40000, (%rsp)
	popfq
	.cfi_adjust_cfa_offset -8
	.globl	dune_user_cmpxchg_insn
	.hidden	dune_user_cmpxchg_insn
dune_user_cmpxchg_insn:
	lock cmpxchg %edx, (%rdi)
	mov	%eax, (%rcx)
	mov	$1, %eax
	jmp	.Lcmpxchg_out
	.globl	dune_user_cmpxchg_fixup
	.hidden	dune_user_cmpxchg_fixup
dune_user_cmpxchg_fixup:
	xor	%eax, %eax
.Lcmpxchg_out:
	pushfq
	.cfi_adjust_cfa_offset 8
	andq	$~0x40000, (%rsp)
	popfq
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	END dune_user_cmpxchg

	.section .note.GNU-stack, "", @progbits
