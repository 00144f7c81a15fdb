/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Macros of the entry code. Two forms of it are made, and dune_init() chooses: FAST for CPUs with
 * FSGSBASE and XSAVEOPT (all since Ivy Bridge), and one for older ones, which takes MSRs, and
 * FXSAVE where there is no XSAVE.
 */
#include "layout.h"

/* The page-fault handler, for the entries that save what it needs (handler_scan.h). */
#define PGFLT_HANDLER_SCRATCH dune_pgflt_handlers
#define PGFLT_HANDLER_FRAME dune_pgflt_handlers + 8
#define PGFLT_HANDLER_VECTORS dune_pgflt_handlers + 16

.macro FUNCTION name
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.balign	16
\name:
.endm

.macro END name
	.size	\name, . - \name
.endm

/* The part of struct dune_tf below rax; the stack pointer is left at the frame. */
.macro PUSH_REGS
	.irp	reg, r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rcx, rdx, rsi, rdi
	push	%\reg
	.endr
.endm

.macro POP_REGS_BUT_RAX
	.irp	reg, rdi, rsi, rdx, rcx, r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15
	pop	%\reg
	.endr
.endm

.macro POP_REGS
	POP_REGS_BUT_RAX
	pop	%rax
.endm

/* From the IST stack to the interrupted one, below the red zone; a multiple of 16 with the frame. */
.macro MOVE_HARDWARE_FRAME
	mov	%gs:IST_RSP, %rsp
	and	$-16, %rsp
	lea	-136(%rsp), %rsp
	PUSH_HARDWARE_FRAME
.endm

.macro PUSH_HARDWARE_FRAME
	push	%gs:IST_SS
	push	%gs:IST_RSP
	push	%gs:IST_RFLAGS
	push	%gs:IST_CS
	push	%gs:IST_RIP
	push	%gs:IST_ERR
.endm

/* For unwinders: the stack pointer is at a struct dune_tf, or `reg` is. */
.macro CFI_FRAME reg=rsp
	.cfi_def_cfa	\reg, TF_SIZE
	.cfi_offset	%rdi, TF_RDI - TF_SIZE
	.cfi_offset	%rsi, TF_RSI - TF_SIZE
	.cfi_offset	%rdx, TF_RDX - TF_SIZE
	.cfi_offset	%rcx, TF_RCX - TF_SIZE
	.cfi_offset	%rax, TF_RAX - TF_SIZE
	.cfi_offset	%rbx, TF_RBX - TF_SIZE
	.cfi_offset	%rbp, TF_RBP - TF_SIZE
	.cfi_offset	%r8, TF_R8 - TF_SIZE
	.cfi_offset	%r9, TF_R9 - TF_SIZE
	.cfi_offset	%r10, TF_R10 - TF_SIZE
	.cfi_offset	%r11, TF_R11 - TF_SIZE
	.cfi_offset	%r12, TF_R12 - TF_SIZE
	.cfi_offset	%r13, TF_R13 - TF_SIZE
	.cfi_offset	%r14, TF_R14 - TF_SIZE
	.cfi_offset	%r15, TF_R15 - TF_SIZE
	.cfi_offset	%rip, TF_RIP - TF_SIZE
	.cfi_offset	%rsp, TF_RSP - TF_SIZE
.endm

/* Where the stack pointer is at what a page fault saves at least: nine registers, the hardware's words. */
.macro CFI_SCRATCH_FRAME
	.cfi_def_cfa	%rsp, 15 * 8
	.cfi_offset	%rdi, -15 * 8
	.cfi_offset	%rsi, -14 * 8
	.cfi_offset	%rdx, -13 * 8
	.cfi_offset	%rcx, -12 * 8
	.cfi_offset	%r8, -11 * 8
	.cfi_offset	%r9, -10 * 8
	.cfi_offset	%r10, -9 * 8
	.cfi_offset	%r11, -8 * 8
	.cfi_offset	%rax, -7 * 8
	.cfi_offset	%rip, TF_RIP - TF_SIZE
	.cfi_offset	%rsp, TF_RSP - TF_SIZE
.endm

/*
 * Save the vector state to the area in r12, and load it from there. Clobbers rax. What is in edx
 * does not matter: XCR0, which masks it, has no bit above 31 (SDM vol. 1, 13.3).
 */
.macro FPU_SAVE variant
.ifc \variant,fast
	mov	$FPU_MASK_LOW, %eax
	xsaveopt64 (%r12)
.else
	FPU_SAVE_FULL
.endif
.endm

.macro FPU_SAVE_FULL
	mov	$FPU_MASK_LOW, %eax
	cmpb	$0, dune_have_xsave(%rip)
	je	.Lfxsave\@
	xsave64	(%r12)
	jmp	.Lsaved\@
.Lfxsave\@:
	fxsave64 (%r12)
.Lsaved\@:
.endm

.macro FPU_LOAD variant
	mov	$FPU_MASK_LOW, %eax
.ifc \variant,fast
	xrstor64 (%r12)
.else
	cmpb	$0, dune_have_xsave(%rip)
	je	.Lfxrstor\@
	xrstor64 (%r12)
	jmp	.Lloaded\@
.Lfxrstor\@:
	fxrstor64 (%r12)
.Lloaded\@:
.endif
.endm

/* What lies in a new area's header has to be 0 for XRSTOR (SDM vol. 1, 13.8.1). */
.macro FPU_CLEAR_HEADER
	.irp	word, 0, 8, 16, 24, 32, 40, 48, 56
	movq	$0, 512 + \word(%r12)
	.endr
.endm

/* Save it on the stack, to r12; rbx keeps the stack pointer. Clobbers rax. And load it from there. */
.macro FPU_SAVE_ON_STACK
	mov	%rsp, %rbx
	.cfi_def_cfa_register %rbx
	mov	dune_fpu_area_size(%rip), %eax
	sub	%rax, %rsp
	and	$-64, %rsp
	mov	%rsp, %r12
	FPU_CLEAR_HEADER
	FPU_SAVE_FULL
.endm

.macro FPU_LOAD_FROM_STACK
	FPU_LOAD legacy
	mov	%rbx, %rsp
	.cfi_def_cfa_register %rsp
.endm

/* From ring 3's FS base to ring 0's, and back. Clobbers rax (and rcx, rdx). */
.macro FS_TO_RING0 variant
.ifc \variant,fast
	rdfsbase %rax
	mov	%rax, %gs:TH_USER_FS
	mov	%gs:TH_KERNEL_FS, %rax
	wrfsbase %rax
.else
	mov	$0xc0000100, %ecx	/* IA32_FS_BASE */
	rdmsr
	mov	%eax, %gs:TH_USER_FS
	mov	%edx, %gs:TH_USER_FS + 4
	mov	%gs:TH_KERNEL_FS, %eax
	mov	%gs:TH_KERNEL_FS + 4, %edx
	wrmsr
.endif
.endm

.macro FS_TO_RING3 variant
.ifc \variant,fast
	mov	%gs:TH_USER_FS, %rax
	wrfsbase %rax
.else
	mov	$0xc0000100, %ecx
	mov	%gs:TH_USER_FS, %eax
	mov	%gs:TH_USER_FS + 4, %edx
	wrmsr
.endif
.endm

/* In ring 0 with interrupts masked, direction flag and AC clear, and the mark of ring 0. */
.macro FLAGS_RING0
	push	$RFLAGS_RING0
	popfq
.endm
