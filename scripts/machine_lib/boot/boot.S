# SPDX-License-Identifier: MIT
# Boot ROM of the emulated machine, run in place at 0xd0000: the BIOS calls it as an option ROM, when its tables are
# ready. The emulator has put the kernel, the initial RAM file system, the boot parameters and the command line into RAM;
# this goes from real mode to long mode and enters the kernel by its 64-bit boot protocol (the kernel's
# Documentation/arch/x86/boot.rst, "64-bit boot protocol"): identity-mapped RAM, flat segments with the selectors 0x10
# (code) and 0x18 (data), interrupts off, RSI = boot parameters. Bochs 2.7 cannot put them into RAM: there the ROM reads
# them from a disk first, by LOADS. machine_lib/bootimage.py fills in LOADS, the kernel's entry point and the byte that
# makes the sum of all 512 zero.

	.set	PAGE_TABLES, 0x70000		# PML4, PDPT and four page directories: 4 GiB in pages of 2 MiB
	.set	BOOT_PARAMETERS, 0x90000	# BOOT_PARAMETERS and ENTRY_OFFSET as in machine_lib/bootimage.py
	.set	ENTRY_OFFSET, 504
	.set	STACK, 0x7c00
	.set	LOADS_OFFSET, 456		# four of: address, first sector, number of sectors (0: none)
	.set	ATA_DATA, 0x1f0			# the first drive's registers (ATA/ATAPI-6, section 5)
	.set	ATA_COUNT, 0x1f2
	.set	ATA_STATUS, 0x1f7
	.set	ATA_BSY, 0x80
	.set	ATA_DRQ, 0x08
	.set	ATA_READ_SECTORS, 0x20
	.set	EFER, 0xc0000080
	.set	EFER_LME, 1 << 8
	.set	CR0_PE, 1
	.set	CR0_PG, 1 << 31
	.set	CR4_PAE, 1 << 5
	.set	PORT_A20, 0x92

	.code16
	.globl	_start
_start:
	.word	0xaa55				# signature of an option ROM
	.byte	1				# its length in units of 512 bytes
	cli
	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$STACK, %sp
	inb	$PORT_A20, %al
	orb	$2, %al
	andb	$0xfe, %al			# bit 0 would reset the machine
	outb	%al, $PORT_A20
	lgdtl	%cs:(gdt_pointer - _start)
	movl	%cr0, %eax
	orl	$CR0_PE, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $protected_mode

	.code32
protected_mode:
	movw	$0x18, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	%ax, %fs
	movw	%ax, %gs

	movl	$STACK, %esp
	cld
	movl	$(_start + LOADS_OFFSET), %ebp
2:	movl	(%ebp), %edi
	movl	4(%ebp), %ebx
	movl	8(%ebp), %esi
	testl	%esi, %esi
	jz	4f
3:	call	read_sector
	incl	%ebx
	decl	%esi
	jnz	3b
	addl	$12, %ebp
	jmp	2b

# Reads sector EBX to EDI, which goes on by its length.
read_sector:
	movw	$ATA_STATUS, %dx
1:	inb	%dx, %al
	testb	$ATA_BSY, %al
	jnz	1b
	movw	$ATA_COUNT, %dx
	movb	$1, %al
	outb	%al, %dx
	movl	%ebx, %eax
	movb	$3, %cl
1:	incw	%dx				# LBA bits 0-7, 8-15, 16-23
	outb	%al, %dx
	shrl	$8, %eax
	decb	%cl
	jnz	1b
	incw	%dx				# LBA bits 24-27, drive 0
	orb	$0xe0, %al
	outb	%al, %dx
	incw	%dx
	movb	$ATA_READ_SECTORS, %al
	outb	%al, %dx
1:	inb	%dx, %al
	testb	$ATA_DRQ, %al
	jz	1b
	movw	$ATA_DATA, %dx
	movl	$256, %ecx
	rep insw
	ret

4:	movl	$PAGE_TABLES, %edi
	xorl	%eax, %eax
	movl	$(0x6000 / 4), %ecx
	rep stosl
	movl	$(PAGE_TABLES + 0x1003), PAGE_TABLES
	movl	$(PAGE_TABLES + 0x2003), PAGE_TABLES + 0x1000
	movl	$(PAGE_TABLES + 0x3003), PAGE_TABLES + 0x1008
	movl	$(PAGE_TABLES + 0x4003), PAGE_TABLES + 0x1010
	movl	$(PAGE_TABLES + 0x5003), PAGE_TABLES + 0x1018
	movl	$(PAGE_TABLES + 0x2000), %edi
	movl	$0x83, %eax			# present, writable, 2 MiB
	movl	$2048, %ecx
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	loop	1b

	movl	$PAGE_TABLES, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$(CR0_PG | CR0_PE), %eax
	movl	%eax, %cr0
	ljmpl	$0x10, $long_mode

	.code64
long_mode:
	movl	$BOOT_PARAMETERS, %esi
	movl	_start + ENTRY_OFFSET, %eax
	xorl	%ebx, %ebx
	xorl	%ebp, %ebp
	xorl	%edi, %edi
	jmp	*%rax

	.balign 8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff		# 0x08: 32-bit code
	.quad	0x00af9b000000ffff		# 0x10: 64-bit code
	.quad	0x00cf93000000ffff		# 0x18: data
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.org	LOADS_OFFSET			# fails when the code is too long
	.org	512
