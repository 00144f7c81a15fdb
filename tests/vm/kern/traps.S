/* SPDX-License-Identifier: MIT */
/* Entry points of the IDT in traps.cc, and the way into a probe and ring 3. */

	.text

/* 256 stubs of 16 bytes. Vectors with an error code: 8, 10 to 14, 17, 21, 29, 30. */
	.globl guest_vectors
	.p2align 4
guest_vectors:
	vector = 0
	.rept 256
	.p2align 4
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	push $0
	.endif
	push $vector
	jmp trap_common
	vector = vector + 1
	.endr

/* On an IST stack of 16 KiB, 16 KiB aligned, whose first word is the Cpu. */
	.p2align 4
trap_common:
	cld
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, %rdi
	mov %rsp, %rsi
	and $~0x3fff, %rsi
	mov (%rsi), %rsi
	mov %rsp, %rbp
	and $~15, %rsp
	call guest_trap
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

/* void guest_probe(fn, argument, cpu) */
	.globl guest_probe
guest_probe:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdx
	mov %rsp, (%rdx)
	movq $1, 8(%rdx)
	mov %rdi, %rax
	mov %rsi, %rdi
	call *%rax
	.globl guest_probe_end
guest_probe_end:
	pop %rdx
	movq $0, 8(%rdx)
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* void guest_to_ring3(code, argument, rsp, rflags) */
	.globl guest_to_ring3
guest_to_ring3:
	pushq $0x2b
	push %rdx
	push %rcx
	pushq $0x33
	push %rdi
	mov %rsi, %rdi
	iretq

/* rdi, rsi: for guest_start; rdx: Cpu; rcx: table descriptors (GDT, 10 bytes; IDT, 10 bytes) */
	.globl guest_start_with_traps
guest_start_with_traps:
	lgdt (%rcx)
	lidt 10(%rcx)
	mov $0x40, %eax
	ltr %ax
	jmp guest_start

	.section .note.GNU-stack, "", @progbits
