/* SPDX-License-Identifier: MIT */
/* What the tests of ring 3 run there: a page of code that touches nothing else. */
#define CALL_DONE 1000	/* ends the run with rdi */
#define CALL_ADD 1001	/* rax = rdi + ... + r9 */

	.section .text.ring3, "ax", @progbits
	.balign	4096
	.globl	ring3_code
ring3_code:

.macro CASE name
	.globl	ring3_\name
ring3_\name:
.endm

.macro DONE
	mov	$CALL_DONE, %eax
	syscall
	ud2
.endm

CASE getpid
	mov	$39, %eax
	syscall
	mov	%eax, %edi
	DONE

CASE arguments
	mov	$1, %edi
	mov	$2, %esi
	mov	$4, %edx
	mov	$8, %r10d
	mov	$16, %r8d
	mov	$32, %r9d
	mov	$CALL_ADD, %eax
	syscall
	mov	%eax, %edi
	DONE

/* All registers but rax, rcx, r11 are what they were; returns 0. */
CASE registers
	mov	$101, %rbx
	mov	$102, %rbp
	mov	$103, %r12
	mov	$104, %r13
	mov	$105, %r14
	mov	$106, %r15
	mov	$107, %rdx
	mov	$108, %rsi
	mov	$109, %r8
	mov	$110, %r9
	mov	$111, %r10
	mov	%rsp, %rdi
	mov	$CALL_ADD, %eax
	syscall
	sub	%rsp, %rdi
	sub	$101, %rbx
	or	%rbx, %rdi
	sub	$102, %rbp
	or	%rbp, %rdi
	sub	$103, %r12
	or	%r12, %rdi
	sub	$104, %r13
	or	%r13, %rdi
	sub	$105, %r14
	or	%r14, %rdi
	sub	$106, %r15
	or	%r15, %rdi
	sub	$107, %rdx
	or	%rdx, %rdi
	sub	$108, %rsi
	or	%rsi, %rdi
	sub	$109, %r8
	or	%r8, %rdi
	sub	$110, %r9
	or	%r9, %rdi
	sub	$111, %r10
	or	%r10, %rdi
	DONE

CASE cli
	cli
	DONE
CASE hlt
	hlt
	DONE
CASE read_cr3
	mov	%cr3, %rax
	DONE
CASE in_port
	in	$0x80, %al
	DONE
CASE vmcall
	mov	$39, %eax
	vmcall
	DONE
CASE int80
	int	$0x80
	DONE

/* POPF of all flags: IOPL and IF stay; returns RFLAGS. */
CASE popf
	push	$0x3ed7
	popfq
	pushfq
	pop	%rdi
	push	$2
	popfq
	DONE

/* A system call with NT, DF and AC set. */
CASE odd_flags
	push	$0x44402
	popfq
	mov	$39, %eax
	syscall
	push	$2
	popfq
	mov	$7, %edi
	DONE

/* SYSCALL with a stack pointer that is not canonical. */
CASE odd_stack
	mov	$0x8000000000000000, %rsp
	mov	$39, %eax
	syscall
	mov	$8, %edi
	DONE

CASE wrgsbase
	wrgsbase %rdi
	rdgsbase %rdi
	mov	$CALL_ADD, %eax
	xor	%esi, %esi
	xor	%edx, %edx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	syscall
	rdgsbase %rdi
	shr	$12, %rdi
	DONE

CASE fs_read
	mov	%fs:0, %rdi
	DONE

CASE load
	mov	(%rdi), %rdi
	DONE
CASE store
	movq	$5, (%rdi)
	DONE
CASE jump
	jmp	*%rdi

/* Waits until memory says so. */
CASE spin
	cmpq	$0, (%rdi)
	je	ring3_spin
	mov	$9, %edi
	DONE

/* xmm registers across a system call; returns what is in xmm5. */
CASE xmm
	mov	$0x12345, %eax
	movq	%rax, %xmm5
	mov	$39, %eax
	syscall
	movq	%xmm5, %rdi
	DONE

CASE divide
	xor	%ecx, %ecx
	xor	%edx, %edx
	div	%ecx
	mov	$11, %edi
	DONE

/* Exceptions that are ring 3's own, and gates that are not for it. */
CASE int3
	int3
CASE int4
	int	$4
CASE int1
	int	$1
CASE int14
	int	$14
CASE int200
	int	$200
CASE selector
	mov	$0x58, %eax
	mov	%eax, %ds
CASE odd_load
	mov	1(%rsp), %rax
CASE odd_push
	mov	$0x8000000000000000, %rsp
	push	%rax
CASE far_jump
	mov	$0x8000000000000000, %rax
	jmp	*%rax
CASE iret_ring0
	push	$0x18
	push	%rsp
	pushfq
	push	$0x10
	push	%rax
	iretq
/* To 32-bit code at rdi. */
CASE far_return
	push	$0x23
	push	%rdi
	lretq

	.balign	4096
	.section .note.GNU-stack, "", @progbits
