/* SPDX-License-Identifier: MIT */
/*
 * The gate: all VMCALLs of the library, in pages of their own. The module takes a VMCALL from here
 * without a look at the privilege level, so no root that ring 3 runs on may map these pages for it.
 */
#include "entry.h"

	.section .dune.gate, "ax", @progbits
	.balign	4096
	.globl	dune_gate_start
	.hidden	dune_gate_start
dune_gate_start:

/*
 * SYSCALL in ring 0: libc's, and the program's. rsp is the program's, with a red zone below; rcx is
 * where to return to, r11 its flags. Unwinders go on there: handlers of signals interrupt this, and
 * thread cancellation unwinds from one.
 */
FUNCTION dune_lstar_ring0
	.cfi_startproc
	.cfi_signal_frame		/* rcx is behind SYSCALL, which need not be within a call */
	.cfi_def_cfa %rsp, 0
	.cfi_register %rip, %rcx
	cmp	$13, %eax		/* rt_sigaction */
	je	.Lspecial
	cmp	$131, %eax		/* sigaltstack */
	je	.Lspecial
	cmp	$158, %eax		/* arch_prctl */
	je	.Lspecial
	vmcall
	.globl	dune_lstar_done
	.hidden	dune_lstar_done
dune_lstar_done:
	lea	-128(%rsp), %rsp
	.cfi_adjust_cfa_offset 128
	push	%r11
	.cfi_adjust_cfa_offset 8
	popfq
	.cfi_adjust_cfa_offset -8
	lea	128(%rsp), %rsp
	.cfi_adjust_cfa_offset -128
	jmp	*%rcx

/* A signal came before the call: its handler first, as soon as the flags are back; then SYSCALL again. */
	.globl	dune_lstar_restart
	.hidden	dune_lstar_restart
dune_lstar_restart:
	sub	$2, %rcx
	jmp	dune_lstar_done

/*
 * Calls that are not Linux' alone: signals.cc and syscalls.cc. All registers but rax survive. SYSCALL
 * has cleared IOPL, which says that this is ring 0, also in handlers of what faults here.
 */
.Lspecial:
	lea	-128(%rsp), %rsp
	.cfi_adjust_cfa_offset 128
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	push	%rcx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rip, 0
	mov	%rsp, %rbx
	.cfi_def_cfa_register %rbx
	and	$-16, %rsp
	FLAGS_RING0
	push	%r11
	push	%rdi
	push	%rsi
	push	%rdx
	push	%r10
	push	%r8
	push	%r9
	push	%r9			/* a multiple of 16 */
	mov	%r10, %rcx
	mov	%eax, %r8d
	call	dune_special_syscall
	pop	%r9
	pop	%r9
	pop	%r8
	pop	%r10
	pop	%rdx
	pop	%rsi
	pop	%rdi
	pop	%r11
	mov	%rbx, %rsp
	.cfi_def_cfa_register %rsp
	pop	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rcx
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %rbx
	lea	128(%rsp), %rsp
	.cfi_adjust_cfa_offset -128
	jmp	dune_lstar_done
	.cfi_endproc
	END dune_lstar_ring0

/* void dune_passthrough_syscall(struct dune_tf *tf) */
	.globl	dune_passthrough_syscall
	.type	dune_passthrough_syscall, @function
	.balign	16
dune_passthrough_syscall:
	.cfi_startproc
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	mov	%rdi, %rbx
	mov	TF_RAX(%rbx), %rax
	mov	TF_RSI(%rbx), %rsi
	mov	TF_RDX(%rbx), %rdx
	mov	TF_R10(%rbx), %r10
	mov	TF_R8(%rbx), %r8
	mov	TF_R9(%rbx), %r9
	mov	TF_RDI(%rbx), %rdi
	vmcall
	.globl	dune_passthrough_done
	.hidden	dune_passthrough_done
dune_passthrough_done:
	mov	%rax, TF_RAX(%rbx)
	pop	%rbx
	ret
	.globl	dune_passthrough_restart
	.hidden	dune_passthrough_restart
dune_passthrough_restart:
	subq	$2, TF_RIP(%rbx)
	pop	%rbx
	ret
	.cfi_endproc
	END dune_passthrough_syscall

/* long dune_interruptible_call(long nr, const uint64_t args[6]): dune::user::call() */
FUNCTION dune_interruptible_call
	mov	%rdi, %rax
	mov	%rsi, %r11
	mov	(%r11), %rdi
	mov	8(%r11), %rsi
	mov	16(%r11), %rdx
	mov	24(%r11), %r10
	mov	32(%r11), %r8
	mov	40(%r11), %r9
	vmcall
	.globl	dune_interruptible_done
	.hidden	dune_interruptible_done
dune_interruptible_done:
	ret
	.globl	dune_interruptible_restart
	.hidden	dune_interruptible_restart
dune_interruptible_restart:
	mov	$-513, %rax		/* -ERESTARTNOINTR */
	ret
	END dune_interruptible_call

/* long dune_vmcall(long nr, long a, long b, long c, long d, long e, long f): in ring 0 */
FUNCTION dune_vmcall
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	vmcall
	ret
	END dune_vmcall

/* long dune_hypercall_leave(void): goes on in host mode */
FUNCTION dune_hypercall_leave
	mov	$HC_LEAVE, %eax
	xor	%edi, %edi
	vmcall
	xor	%eax, %eax
	ret
	END dune_hypercall_leave

	.balign	4096
	.globl	dune_gate_end
	.hidden	dune_gate_end
dune_gate_end:

	.section .note.GNU-stack, "", @progbits
