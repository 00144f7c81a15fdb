/* SPDX-License-Identifier: MIT */
/*
 * What runs in ring 3: bench_ring3(rdi: samples, esi: number of the call, edx: how many) takes a
 * sample a call, then makes call 0x1000, which ends it. A page of its own, as ring 3 gets it alone.
 */
	.text
	.balign	4096
	.globl	bench_ring3
bench_ring3:
	mov	%rdi, %r14
	mov	%esi, %r13d
	mov	%edx, %r12d
1:	jmp	2f			/* as ticks() */
2:	lfence
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	mov	%rax, %rbx
	mov	%r13d, %eax
	syscall
	jmp	3f
3:	lfence
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	sub	%rbx, %rax
	mov	%rax, (%r14)
	add	$8, %r14
	dec	%r12d
	jnz	1b
	mov	$0x1000, %eax
	syscall
	ud2
	.balign	4096

	.section .note.GNU-stack, "", @progbits
