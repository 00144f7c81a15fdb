/* SPDX-License-Identifier: MIT */
/*
 * The parts of the trampoline that are not C++: the way into ring 0, and system calls with the
 * guest's registers.
 */
#include "entry.h"

	.text

.macro SAVE_CALLEE
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
.endm

.macro RESTORE_CALLEE
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
.endm

/* The arguments of the guest's system call, to where SYSCALL takes them; rbx is the page. */
.macro LOAD_ARGUMENTS
	mov	REGS_RDI(%rbx), %rdi
	mov	REGS_RSI(%rbx), %rsi
	mov	REGS_RDX(%rbx), %rdx
	mov	REGS_R10(%rbx), %r10
	mov	REGS_R8(%rbx), %r8
	mov	REGS_R9(%rbx), %r9
.endm

/*
 * int dune_enter_guest(struct Thread *, void *trampoline_stack, uint64_t rflags)
 * Called in host mode, returns 0 in ring 0. The trampoline goes on meanwhile.
 */
FUNCTION dune_enter_guest
	SAVE_CALLEE
	push	%rdx
	mov	TH_PAGE(%rdi), %rax
	mov	%rsp, REGS_RSP(%rax)
	lea	.Lin_ring0(%rip), %rcx
	mov	%rcx, PAGE_RIP(%rax)
	movq	$RFLAGS_RING0, PAGE_RFLAGS(%rax)
	mov	%rsi, %rsp
	xor	%ebp, %ebp
	call	dune_trampoline
	ud2
.Lin_ring0:
	lgdt	%gs:TH_GDT_PTR
	lidt	%gs:TH_IDT_PTR
	mov	$SEL_KERNEL_DS, %eax
	mov	%eax, %ss
	mov	$SEL_TSS, %eax
	ltr	%ax
	popfq
	RESTORE_CALLEE
	xor	%eax, %eax
	ret
	END dune_enter_guest

/*
 * void dune_trampoline(struct Thread *)
 * Runs the guest, and does in host mode what it asks for. Ordinary system calls are done here,
 * everything else is trampoline.cc's. In between, registers stay where they are: Linux preserves them.
 *
 * A signal for the guest comes before the call if there is time. One that comes between the look at
 * pending_any and the SYSCALL, or that makes Linux restart the call, finds the instruction pointer in
 * the window, and its handler moves it to the way out (signal_host.cc).
 */
FUNCTION dune_trampoline
	sub	$8, %rsp		/* a multiple of 16 */
	mov	%rdi, %rbp
	mov	TH_PAGE(%rdi), %rbx
	movabs	$CALLS_NOT_ORDINARY, %r13
.Lnext:
	mov	$SEL_CPU_NODE, %esi
	lsl	%esi, %esi
	cmp	TH_CPU_NODE(%rbp), %esi
	jne	.Lmoved
.Lplaced:
	cmpl	$0, PAGE_PENDING_ANY(%rbx)
	jne	.Lslow_calls
	orl	$RUN_FAST, PAGE_FLAGS(%rbx)
.Lslow_calls:
	movl	$0, PAGE_EXIT(%rbx)
	mov	TH_VCPU_FD(%rbp), %edi	/* a program may give it another number */
	mov	$RUN_REQUEST, %esi
	mov	$3, %edx		/* SEEK_DATA */
	mov	$8, %eax		/* lseek */
	syscall
.Llook:
	cmpl	$EXIT_SYSCALL, PAGE_EXIT(%rbx)
	jne	.Lother
	mov	REGS_RAX(%rbx), %rax
	cmp	$64, %rax
	jae	.Lhigh_number
	bt	%rax, %r13
	jc	.Lother
.Lordinary:
	LOAD_ARGUMENTS
	.globl	dune_window_begin
	.hidden	dune_window_begin
dune_window_begin:
	cmpl	$0, PAGE_PENDING_ANY(%rbx)
	jne	.Lother
	.globl	dune_window_syscall
	.hidden	dune_window_syscall
dune_window_syscall:
	syscall
	mov	%rax, REGS_RAX(%rbx)
	cmpb	$0, TH_WATCHES_RESUMES(%rbp)
	je	.Lnext
	mov	%rbp, %rdi
	call	dune_trampoline_disturbed
	jmp	.Lnext
.Lmoved:
	mov	%rbp, %rdi
	call	dune_trampoline_moved
	jmp	.Lplaced
.Lhigh_number:
	cmp	$435, %rax		/* clone3 */
	jne	.Lordinary

.Lother:
	mov	%rbp, %rdi
	call	dune_trampoline_other
	cmp	$1, %eax
	jb	.Lnext
	je	.Llook
	/* Do the call, though a signal waits. */
	mov	REGS_RAX(%rbx), %rax
	LOAD_ARGUMENTS
	jmp	dune_window_syscall
	.globl	dune_window_abort
	.hidden	dune_window_abort
dune_window_abort:
	mov	%rbp, %rdi
	call	dune_trampoline_repeat
	jmp	.Lnext
	END dune_trampoline

.macro LOAD_GUEST_REGS from
	mov	REGS_RBX(\from), %rbx
	mov	REGS_RBP(\from), %rbp
	mov	REGS_RSI(\from), %rsi
	mov	REGS_RDX(\from), %rdx
	mov	REGS_R8(\from), %r8
	mov	REGS_R9(\from), %r9
	mov	REGS_R10(\from), %r10
	mov	REGS_R11(\from), %r11
	mov	REGS_R12(\from), %r12
	mov	REGS_R13(\from), %r13
	mov	REGS_R14(\from), %r14
	mov	REGS_R15(\from), %r15
.endm

/*
 * void dune_resume_host(const struct { struct dune_regs; rip; rflags } *)
 * Goes on in host mode where the guest was.
 */
FUNCTION dune_resume_host
	mov	REGS_RSP(%rdi), %rcx
	mov	PAGE_RIP(%rdi), %rax
	mov	%rax, -136(%rcx)	/* below the red zone */
	mov	PAGE_RFLAGS(%rdi), %rax
	mov	%rax, -144(%rcx)
	LOAD_GUEST_REGS %rdi
	mov	REGS_RAX(%rdi), %rax
	lea	-144(%rcx), %rsp
	mov	REGS_RCX(%rdi), %rcx
	mov	REGS_RDI(%rdi), %rdi
	popfq
	ret	$128
	END dune_resume_host

/*
 * long dune_host_fork(const struct { struct dune_regs; rip; rflags } *, long nr, void (*child)(void))
 * fork, vfork, and clone without a stack. The child calls `child`, unless that is 0, and goes on as
 * dune_resume_host() says (rax there is 0). If it shares memory, it does not write to this stack.
 */
FUNCTION dune_host_fork
	SAVE_CALLEE
	push	%rdx
	push	%rdi
	mov	%rsi, %rax
	LOAD_GUEST_REGS %rdi
	mov	REGS_RDI(%rdi), %rdi
	syscall
	test	%rax, %rax
	jz	.Lfork_child
	pop	%rdi
	pop	%rdx
	RESTORE_CALLEE
	ret
.Lfork_child:
	mov	8(%rsp), %rax
	test	%rax, %rax
	jz	.Lfork_go
	sub	$8, %rsp		/* a multiple of 16 */
	call	*%rax
	add	$8, %rsp
.Lfork_go:
	mov	(%rsp), %rdi
	jmp	dune_resume_host
	END dune_host_fork

/*
 * long dune_host_clone_thread(const struct dune_regs *, long nr)
 * long dune_host_clone_process(const struct dune_regs *, long nr)
 * clone with a stack of the child's own, where to go is 8 bytes below the new stack pointer. All other
 * registers are the guest's. A process calls dune_fork_child().
 */
.macro HOST_CLONE kind
FUNCTION dune_host_clone_\kind
	SAVE_CALLEE
	mov	%rsi, %rax
	LOAD_GUEST_REGS %rdi
	mov	REGS_RDI(%rdi), %rdi
	syscall
	test	%rax, %rax
	jz	.Lclone_child_\kind
	RESTORE_CALLEE
	ret
.Lclone_child_\kind:
.ifc \kind,process
	push	-8(%rsp)		/* to where it is */
	push	%rbp
	mov	%rsp, %rbp
	.irp	reg, rdi, rsi, rdx, r8, r9, r10
	push	%\reg
	.endr
	and	$-16, %rsp
	call	dune_fork_child
	lea	-48(%rbp), %rsp
	.irp	reg, r10, r9, r8, rdx, rsi, rdi
	pop	%\reg
	.endr
	pop	%rbp
	add	$8, %rsp
	xor	%eax, %eax
.endif
	mov	-8(%rsp), %rcx		/* as after any SYSCALL */
	jmp	*%rcx
	END dune_host_clone_\kind
.endm

	HOST_CLONE thread
	HOST_CLONE process

/* void dune_host_exit_thread(void *stack, size_t len, int status): without the stack */
FUNCTION dune_host_exit_thread
	mov	%edx, %ebx
	mov	$11, %eax		/* munmap */
	syscall
	mov	%ebx, %edi
	mov	$60, %eax		/* exit */
	syscall
	ud2
	END dune_host_exit_thread

/* void dune_host_exit_kept(uint32_t *occupied, int status): the stack is somebody else's at once */
FUNCTION dune_host_exit_kept
	movl	$0, (%rdi)
	mov	%esi, %edi
	mov	$60, %eax		/* exit */
	syscall
	ud2
	END dune_host_exit_kept

/* void dune_sigreturn(void): where handlers of Linux signals return to */
FUNCTION dune_sigreturn
	mov	$15, %eax
	syscall
	ud2
	END dune_sigreturn

	.section .note.GNU-stack, "", @progbits
