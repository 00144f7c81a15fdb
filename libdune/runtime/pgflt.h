/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Macros of the page-fault entries, which entry.S makes: one for each of what a handler may need
 * (handler_scan.h). They return by RETURN_RING0 there.
 */

/*
 * Page fault. From ring 0 and of a present page, this is the short way to the handler. kind:
 * "preserve" saves the vector state around the handler, "general" has a handler that does not need
 * it. Entered at _ring0 as long as there is no ring 3.
 *
 * One look tells all that is unusual: in rax, bit 0 is set if the page is not present, bit 14 if
 * the fault is Linux' doing, and all bits from 16 on are. An area that is free has bits 0 and 14 in
 * its owner's place; one that is not has an address there, which is above 64 KiB.
 */
.macro PGFLT kind, variant
FUNCTION dune_pgflt_\kind\()_\variant
	testb	$3, 16(%rsp)
	jnz	dune_pgflt_user_\variant
	.globl	dune_pgflt_\kind\()_\variant\()_ring0
	.hidden	dune_pgflt_\kind\()_\variant\()_ring0
dune_pgflt_\kind\()_\variant\()_ring0:
	subb	$1, %gs:TH_IST1_BYTE1
	jc	dune_nested_pgflt
.Lmove_\kind\()_\variant:
	MOVE_HARDWARE_FRAME
	push	%rax
	PUSH_REGS
	mov	%gs:IST_ERR, %esi
	addb	$1, %gs:TH_IST1_BYTE1
	.cfi_startproc
	.cfi_signal_frame
	CFI_FRAME
	cld
	mov	%cr2, %rdi
	lea	-0x10001(%rsi), %rax
.ifc \kind,general
	test	$FPU_FREE, %eax
	jnz	.Lunusual_\kind\()_\variant
.Lcall_\kind\()_\variant:
	mov	%rsp, %rdx
	call	*PGFLT_HANDLER_FRAME(%rip)
.else
	mov	%gs:TH_TRAP_FPU, %r12
	test	%rax, FPU_OWNER(%r12)
	jnz	.Lunusual_\kind\()_\variant
.Lcall_\kind\()_\variant:
	mov	%rsp, FPU_OWNER(%r12)
	FPU_SAVE \variant
	mov	%rsp, %rdx
	call	*PGFLT_HANDLER_VECTORS(%rip)
	TRAP_FPU_LOAD \variant
.endif
.Lreturn_\kind\()_\variant:
	RETURN_RING0 \variant

.Lunusual_\kind\()_\variant:
	lea	dune_owner_probe(%rip), %rax
	cmp	%rax, TF_RIP(%rsp)
	je	.Lprobe_\kind\()_\variant
	testb	$1, %sil		/* not present: may be a GiB that was not mapped yet */
	jz	.Labsent_\kind\()_\variant
.Lpresent_\kind\()_\variant:
	btr	$FROM_HOST_BIT, %esi
	jc	.Lfrom_host_\kind\()_\variant
.ifc \kind,general
	jmp	.Lcall_\kind\()_\variant
.else
	testb	$1, FPU_OWNER(%r12)
	jnz	.Lcall_\kind\()_\variant
	TRAP_FPU_CHECK_OWNER .Lcall_\kind\()_\variant
	FPU_SAVE_ON_STACK
	mov	%rbx, %rdx
	call	*PGFLT_HANDLER_VECTORS(%rip)
	FPU_LOAD_FROM_STACK
	jmp	.Lreturn_\kind\()_\variant
.endif

.Lfrom_host_\kind\()_\variant:
	FLAGS_RING0			/* as for .Lbad_stack */
	FPU_SAVE_ON_STACK
	mov	%rbx, %rdx
	mov	%r12, %rcx
	call	dune_pgflt_from_host
	FPU_LOAD_FROM_STACK
	jmp	.Lreturn_\kind\()_\variant

.Labsent_\kind\()_\variant:
	mov	%rdi, %rax
	shr	$30, %rax
	cmp	$(1 << 17), %rax
	jae	.Lpresent_\kind\()_\variant
	bt	%rax, dune_slot_mapped(%rip)
	jnc	.Lfix_\kind\()_\variant
	mov	%cr3, %rax
	xor	dune_pgroot_cr3(%rip), %rax
	shr	$12, %rax		/* the PCID may differ */
	jnz	.Lfix_\kind\()_\variant
	mov	dune_slot_epoch(%rip), %rax
	cmp	%gs:TH_SLOT_EPOCH, %rax	/* mapped after the fault, perhaps */
	je	.Lpresent_\kind\()_\variant
.Lfix_\kind\()_\variant:
	mov	%rsp, %rbx
	.cfi_def_cfa_register %rbx
	mov	%rdi, %r13
	mov	%esi, %r14d
	mov	%gs:TH_FIX_STACK, %rsp
	push	%rax			/* a multiple of 16 */
	mov	%gs:TH_FIX_FPU, %r12
	FPU_SAVE_FULL
	call	dune_fix_absent
	mov	%eax, %r15d
	FPU_LOAD legacy
	mov	%rbx, %rsp
	.cfi_def_cfa_register %rsp
	test	%r15b, %r15b
	jnz	.Lreturn_\kind\()_\variant
	mov	%gs:TH_TRAP_FPU, %r12
	mov	%r13, %rdi
	mov	%r14d, %esi
	jmp	.Lpresent_\kind\()_\variant

.Lprobe_\kind\()_\variant:
	lea	dune_owner_is_gone_yes(%rip), %rax
	mov	%rax, TF_RIP(%rsp)
	jmp	.Lreturn_\kind\()_\variant
	.cfi_endproc
	END dune_pgflt_\kind\()_\variant
.endm

/*
 * The same for a handler that looks at no frame and changes no register but those that any function
 * may change (handler_scan.h). All that is unusual goes the way of "general". Here is no FPU, so
 * `variant` matters for that alone.
 */
.macro PGFLT_SCRATCH variant
FUNCTION dune_pgflt_scratch_\variant
	testb	$3, 16(%rsp)
	jnz	dune_pgflt_user_\variant
	.globl	dune_pgflt_scratch_\variant\()_ring0
	.hidden	dune_pgflt_scratch_\variant\()_ring0
dune_pgflt_scratch_\variant\()_ring0:
	subb	$1, %gs:TH_IST1_BYTE1
	jc	dune_nested_pgflt
	testb	$1, %gs:IST_ERR
	jz	.Lmove_general_\variant
	testb	$(1 << (FROM_HOST_BIT - 8)), %gs:IST_ERR + 1
	jnz	.Lmove_general_\variant
	MOVE_HARDWARE_FRAME
	.irp	reg, rax, r11, r10, r9, r8, rcx, rdx, rsi, rdi
	push	%\reg
	.endr
	mov	%gs:IST_ERR, %esi
	addb	$1, %gs:TH_IST1_BYTE1
	.cfi_startproc
	.cfi_signal_frame
	CFI_SCRATCH_FRAME
	cld
	mov	%cr2, %rdi
	call	*PGFLT_HANDLER_SCRATCH(%rip)
	.irp	reg, rdi, rsi, rdx, rcx, r8, r9, r10, r11, rax
	pop	%\reg
	.endr
	add	$8, %rsp
	iretq
	.cfi_endproc
	END dune_pgflt_scratch_\variant
.endm
