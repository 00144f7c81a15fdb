/* SPDX-License-Identifier: MIT */
/*
 * Entry and return of exceptions and interrupts.
 *
 * Interrupted ring-0 code has a red zone, so the hardware may not push onto its stack: every vector
 * enters on the stack of IST 1. A handler, though, belongs onto the interrupted stack (it may be
 * interrupted itself, and may switch threads), so the frame moves there at once, below the red zone.
 * Should that stack be unusable, the fault is seen as one that came while the IST stack was in use
 * (layout.h), and is dealt with at the end of this file.
 *
 * From ring 3 a frame moves to the stack of dune_jump_to_user().
 */
#include "entry.h"
#include "pgflt.h"

	.text

/*
 * Save the vector state where the thread has room for it; go to `taken` if that is an outer trap's.
 * Leaves the area in r12: the trap may end on another thread. Clobbers rax.
 */
.macro TRAP_FPU_SAVE variant, taken
	mov	%gs:TH_TRAP_FPU, %r12
	testb	$1, FPU_OWNER(%r12)
	jz	\taken
	mov	%rsp, FPU_OWNER(%r12)
	FPU_SAVE \variant
.endm

.macro TRAP_FPU_LOAD variant
	FPU_LOAD \variant
	movq	$FPU_FREE, FPU_OWNER(%r12)
.endm

/*
 * The area is a trap's. Go to `dead` if that trap will not return. Clobbers rax, rbx, rcx.
 */
.macro TRAP_FPU_CHECK_OWNER dead
	call	dune_owner_is_gone
	test	%eax, %eax
	jnz	\dead
.endm

/* The vector state of ring 3, to the area that belongs to it. */
.macro USER_FPU_SAVE variant
	mov	%gs:TH_USER_FPU, %r12
	FPU_SAVE \variant
.endm

/*
 * Make the frame at rsp one that IRET takes, whatever a handler wrote: a fault of IRET itself would
 * be ring 0's. An address that is not canonical, or not one of 32-bit code, is a #GP of ring 3.
 */
.macro CHECK_USER_FRAME again
	mov	TF_RIP(%rsp), %rax
	sar	$47, %rax
	inc	%rax			/* 0 or 1 if canonical */
	cmp	$1, %rax
	ja	.Lnot_canonical\@
	andl	$RFLAGS_USER, TF_RFLAGS(%rsp)
	orl	$RFLAGS_USER_SET, TF_RFLAGS(%rsp)
	movl	$0, TF_RFLAGS + 4(%rsp)
	movq	$SEL_USER_DS, TF_SS(%rsp)
	cmpq	$SEL_USER32_CS, TF_CS(%rsp)
	je	.Lcompatibility\@
	movq	$SEL_USER_CS, TF_CS(%rsp)
.Lframe_ok\@:
	.subsection 1
.Lcompatibility\@:
	cmpl	$0, TF_RIP + 4(%rsp)	/* beyond the segment's limit? */
	je	.Lframe_ok\@
.Lnot_canonical\@:
	mov	%rsp, %rbx
	and	$-16, %rsp
	mov	%gs:TH_USER_FPU, %r12
	FPU_SAVE_FULL
	movq	$0, TF_ERR(%rbx)
	mov	%rbx, %rdi
	mov	$13, %esi		/* #GP */
	mov	%r12, %rdx
	call	*dune_intr_handlers + 13 * 8(%rip)
	mov	%rbx, %rsp
	testb	$3, TF_CS(%rsp)
	jnz	\again
	mov	%gs:TH_USER_FPU, %r12
	FPU_LOAD legacy
	jmp	dune_trap_return_legacy
	.previous
.endm

/*
 * A fault on an address that no table maps: see whether it lies in a GiB that is to be mapped, and
 * go on with what was interrupted if so; otherwise go on here. rsp is at the error code on the IST
 * stack, all other registers are as they were.
 *
 * If that was the entry of another page fault, CR2 does not tell its address any more. So that one is
 * forgotten: the entry has changed no register but rsp, and what faulted first does so again, now on
 * a stack that is there.
 */
.macro FIX_ABSENT
	push	%rax
	mov	%rsp, %rax
	mov	%gs:TH_FIX_STACK, %rsp
	push	%rax
	PUSH_REGS
	cld
	mov	8(%rax), %esi
	mov	%gs:TH_FIX_FPU, %r12
	FPU_SAVE_FULL
	mov	%cr2, %rdi
	call	dune_fix_absent
	mov	%eax, %ebx
	test	%al, %al
	jz	.Lgo_on\@
	mov	%gs:IST_RIP + IST_LEVEL2, %rax
	lea	dune_pgflt_begin(%rip), %rcx
	sub	%rcx, %rax
	cmp	$(dune_pgflt_end - dune_pgflt_begin), %rax
	jae	.Lgo_on\@
	.irp	word, IST_RIP, IST_CS, IST_RFLAGS, IST_RSP, IST_SS
	mov	%gs:\word, %rax
	mov	%rax, %gs:\word + IST_LEVEL2
	.endr
	addb	$1, %gs:TH_IST1_BYTE1	/* the first frame is done with */
.Lgo_on\@:
	FPU_LOAD legacy
	test	%bl, %bl
	POP_REGS_BUT_RAX
	pop	%rsp
	pop	%rax			/* none of these pops changed the flags */
	jz	.Lnot_fixed\@
	addb	$1, %gs:TH_IST1_BYTE1
	lea	8(%rsp), %rsp
	iretq
.Lnot_fixed\@:
.endm

/*
 * Return to ring 0, if the handler left it at that. rsp is at the frame, whose vector state is
 * loaded.
 */
.macro RETURN_RING0 variant
	testb	$3, TF_CS(%rsp)
	jnz	dune_begin_user_\variant
	orl	$RFLAGS_IOPL, TF_RFLAGS(%rsp)
	POP_REGS
	add	$8, %rsp
	iretq
.endm

.macro ENTRY_CODE variant

/*
 * All vectors but the page fault. On the IST stack: vector, error code, hardware frame.
 */
FUNCTION dune_trap_\variant
	testb	$3, 24(%rsp)
	jnz	.Lfrom_user_\variant
	subb	$1, %gs:TH_IST1_BYTE1
	jc	dune_nested_trap
	MOVE_HARDWARE_FRAME
	push	%rax
	PUSH_REGS
	mov	%gs:IST_VECTOR, %esi
	addb	$1, %gs:TH_IST1_BYTE1
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	cld
.Ltrap_save_\variant:
	TRAP_FPU_SAVE \variant, .Ltrap_area_taken_\variant
	mov	%rsp, %rdi
	mov	%r12, %rdx
	lea	dune_intr_handlers(%rip), %rax
	call	*(%rax,%rsi,8)
	TRAP_FPU_LOAD \variant

/* rsp is at a struct dune_tf of ring 0 or 3. */
	.globl	dune_trap_return_\variant
	.hidden	dune_trap_return_\variant
dune_trap_return_\variant:
	RETURN_RING0 \variant

.Ltrap_area_taken_\variant:
	TRAP_FPU_CHECK_OWNER .Ltrap_take_area_\variant
	FPU_SAVE_ON_STACK
	mov	%rbx, %rdi
	mov	%r12, %rdx
	lea	dune_intr_handlers(%rip), %rax
	call	*(%rax,%rsi,8)
	FPU_LOAD_FROM_STACK
	jmp	dune_trap_return_\variant
.Ltrap_take_area_\variant:
	movq	$FPU_FREE, FPU_OWNER(%r12)
	jmp	.Ltrap_save_\variant

/* A frame of ring 0 has become one of ring 3, perhaps the first. Vector registers stay. */
	.globl	dune_begin_user_\variant
	.hidden	dune_begin_user_\variant
dune_begin_user_\variant:
	call	dune_ring3_begins
	jmp	dune_return_user_\variant
	.cfi_endproc

/* ---- from ring 3 -------------------------------------------------------------------------- */

.Lfrom_user_\variant:
	swapgs
	mov	%gs:TH_KERNEL_RSP, %rsp
	PUSH_HARDWARE_FRAME
	push	%rax
	PUSH_REGS
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	mov	%gs:IST_VECTOR, %esi
	FS_TO_RING0 \variant
	FLAGS_RING0
	USER_FPU_SAVE \variant
	mov	%rsp, %rdi
	mov	%r12, %rdx
	lea	dune_intr_handlers(%rip), %rax
	call	*(%rax,%rsi,8)
	jmp	.Luser_done_\variant
	END dune_trap_\variant

FUNCTION dune_pgflt_user_\variant
	swapgs
	mov	%gs:TH_KERNEL_RSP, %rsp
	PUSH_HARDWARE_FRAME
	push	%rax
	PUSH_REGS
	FS_TO_RING0 \variant
	FLAGS_RING0
	USER_FPU_SAVE \variant
	mov	%cr2, %rdi
	mov	%gs:IST_ERR, %esi
	mov	%rsp, %rdx
	btr	$FROM_HOST_BIT, %esi
	jc	.Lpgflt_user_host_\variant
	call	*PGFLT_HANDLER_VECTORS(%rip)
	jmp	.Luser_done_\variant
.Lpgflt_user_host_\variant:
	mov	%r12, %rcx
	call	dune_pgflt_from_host
.Luser_done_\variant:
	testb	$3, TF_CS(%rsp)		/* a handler may have made it a frame of ring 0 */
	jz	.Luser_to_ring0_\variant

/* rsp is at a struct dune_tf of ring 3; the vector state is in the thread's area for that. */
	.globl	dune_return_user_\variant
	.hidden	dune_return_user_\variant
dune_return_user_\variant:
	cli
	mov	%gs:TH_USER_FPU, %r12
	FPU_LOAD \variant
/* The same with the vector state loaded. */
	.globl	dune_enter_user_\variant
	.hidden	dune_enter_user_\variant
dune_enter_user_\variant:
	CHECK_USER_FRAME dune_return_user_\variant
	FS_TO_RING3 \variant
	POP_REGS
	add	$8, %rsp
	swapgs
	iretq
.Luser_to_ring0_\variant:
	mov	%gs:TH_USER_FPU, %r12
	FPU_LOAD \variant
	jmp	dune_trap_return_\variant
	.cfi_endproc
	END dune_pgflt_user_\variant

/* SYSCALL. Ring 0's (libc's) goes to Linux, in gate.S; ring 3's to the program's handler. */
FUNCTION dune_lstar_\variant
	bt	$RFLAGS_IOPL_BIT, %r11d
	jc	dune_lstar_ring0
	swapgs
	mov	%rsp, %gs:TH_SCRATCH
	mov	%gs:TH_KERNEL_RSP, %rsp
	push	$SEL_USER_DS
	push	%gs:TH_SCRATCH
	push	%r11
	push	$SEL_USER_CS
	push	%rcx
	push	$0
	push	%rax
	PUSH_REGS
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	FS_TO_RING0 \variant
	FLAGS_RING0
	USER_FPU_SAVE \variant
	mov	%rsp, %rdi
	call	*dune_syscall_handler(%rip)
	cli
	FPU_LOAD \variant
	/* SYSRET if it gives back all that the frame says, and cannot fault in ring 0. */
	cmpl	$SEL_USER_CS, TF_CS(%rsp)
	jne	.Lsyscall_iret_\variant
	mov	TF_RIP(%rsp), %rcx
	cmp	TF_RCX(%rsp), %rcx
	jne	.Lsyscall_iret_\variant
	mov	TF_RFLAGS(%rsp), %r11
	cmp	TF_R11(%rsp), %r11
	jne	.Lsyscall_iret_\variant
	shr	$47, %rcx
	jnz	.Lsyscall_iret_\variant
	FS_TO_RING3 \variant
	POP_REGS
	and	$RFLAGS_USER, %r11d
	or	$RFLAGS_USER_SET, %r11d
	mov	TF_RSP - TF_ERR(%rsp), %rsp
	swapgs
	sysretq
.Lsyscall_iret_\variant:
	testb	$3, TF_CS(%rsp)
	jnz	dune_enter_user_\variant
	jmp	dune_trap_return_\variant
	.cfi_endproc
	END dune_lstar_\variant
.endm

dune_entry_begin:
	ENTRY_CODE fast
	ENTRY_CODE legacy
dune_pgflt_begin:
	PGFLT preserve, fast
	PGFLT general, fast
	PGFLT preserve, legacy
	PGFLT general, legacy
	PGFLT_SCRATCH fast
	PGFLT_SCRATCH legacy
dune_pgflt_end:
dune_entry_end:

/*
 * Is the trap that owns the area in r12 sure not to return, since its handler was left by
 * siglongjmp()? It is if its frame lies where ours is now, or what we interrupted; and if something
 * else is where the handler's return address was. That place may not be memory any more: the
 * page-fault entry knows dune_owner_probe. Our frame is above the return address. To eax; clobbers
 * rbx, rcx.
 */
FUNCTION dune_owner_is_gone
	mov	FPU_OWNER(%r12), %rcx
	lea	8(%rsp), %rbx
	cmp	%rbx, %rcx
	jb	dune_owner_probe
	cmp	8 + TF_RSP(%rsp), %rcx
	jb	dune_owner_is_gone_yes
dune_owner_probe:
	mov	-8(%rcx), %rcx
	lea	dune_entry_begin(%rip), %rbx
	sub	%rbx, %rcx
	xor	%eax, %eax
	cmp	$(dune_entry_end - dune_entry_begin), %rcx
	jae	dune_owner_is_gone_yes
	ret
dune_owner_is_gone_yes:
	mov	$1, %eax
	ret
	END dune_owner_is_gone

/* ---- faults while the IST stack was in use --------------------------------------------------- */

/* A page fault: the interrupted stack lies in a GiB that was not mapped yet, or is unusable. */
FUNCTION dune_nested_pgflt
	FIX_ABSENT
	mov	%gs:TH_BAD_STACK, %rsp
	PUSH_HARDWARE_FRAME
	push	%rax
	PUSH_REGS
	mov	%cr2, %rsi
	jmp	.Lbad_stack
	END dune_nested_pgflt

/* Another exception: the interrupted stack pointer is not even an address. */
FUNCTION dune_nested_trap
	mov	%gs:TH_BAD_STACK, %rsp
	PUSH_HARDWARE_FRAME		/* of what was interrupted first */
	push	%rax
	PUSH_REGS
	mov	%gs:IST_RSP, %rsi
.Lbad_stack:
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	addb	$2, %gs:TH_IST1_BYTE1	/* the IST stack is free again */
	FLAGS_RING0			/* what faults may be the push in the SYSCALL entry */
	mov	%gs:TH_BAD_FPU, %r12
	FPU_SAVE_FULL
	mov	%rsp, %rbx
	.cfi_def_cfa_register %rbx
	mov	%rbx, %rdi
	mov	%r12, %rdx
	call	dune_bad_stack
	FPU_LOAD legacy
	mov	%rbx, %rsp
	.cfi_def_cfa_register %rsp
	jmp	dune_trap_return_legacy
	.cfi_endproc
	END dune_nested_trap

/* #DF, on its own stack: the frame cannot be returned to. */
FUNCTION dune_double_fault
	push	%rax
	PUSH_REGS
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	cld
	mov	%rsp, %rdi
	and	$-16, %rsp
	call	dune_report_double_fault
	ud2
	.cfi_endproc
	END dune_double_fault

	.section .note.GNU-stack, "", @progbits
