/* SPDX-License-Identifier: MIT */
#include "entry.h"

	.text

/*
 * int dune_keep_vectors(int (*function)(void *), void *argument)
 * Call it, and leave all vector registers as they were: for what a page-fault handler may call that
 * has not saved them. Context: host mode, ring 0, trap.
 */
FUNCTION dune_keep_vectors
	.cfi_startproc
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	push	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r12, 0
	FPU_SAVE_ON_STACK
	mov	%rdi, %rax
	mov	%rsi, %rdi
	call	*%rax
	mov	%eax, %ecx
	FPU_LOAD_FROM_STACK
	mov	%ecx, %eax
	pop	%r12
	.cfi_adjust_cfa_offset -8
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	END dune_keep_vectors

	.section .note.GNU-stack, "", @progbits
