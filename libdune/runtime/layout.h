/* SPDX-License-Identifier: MIT */
/*
 * Numbers that assembly and C++ share. layout.cc holds each against the structure it
 * describes, at compile time.
 */
#pragma once

/* Selectors: Linux' own, since STAR is the host's and SYSCALL and SYSRET follow it. */
#define SEL_KERNEL_CS 0x10
#define SEL_KERNEL_DS 0x18
#define SEL_USER32_CS 0x23
#define SEL_USER_DS 0x2b
#define SEL_USER_CS 0x33
#define SEL_TSS 0x40
#define SEL_CPU_NODE 0x7b /* its limit is the number of CPU and node: what the vDSO looks at */

/*
 * Ring 0 runs with IOPL 3, ring 3 with IOPL 0. In ring 0 it has no effect (I/O exits), ring 3
 * cannot change it (SDM vol. 2, POPF), and SYSCALL saves it in R11: so the one entry that both
 * rings share can tell them apart, whatever ring 3 does.
 */
#define RFLAGS_IOPL 0x3000
#define RFLAGS_IOPL_BIT 12
#define RFLAGS_RING0 0x3002 /* IOPL 3, interrupts masked */
#define RFLAGS_IF 0x200
/* What ring 3 may have in RFLAGS: arithmetic, TF, DF, AC, ID; IF is always set. */
#define RFLAGS_USER 0x240dd5
#define RFLAGS_USER_SET 0x202

/*
 * All vectors enter on the stack of IST 1, whose top is at a fixed place before the thread's area:
 * a multiple of 64 KiB plus 256. While a frame there is in use, byte 1 of the IST pointer is one
 * less. So a fault meanwhile does not overwrite the frame, and does not go unnoticed: its
 * decrement borrows.
 */
#define IST_TOP (-0x1000 + 0x100) /* from GS */
#define IST_SS (IST_TOP - 8)
#define IST_RSP (IST_TOP - 16)
#define IST_RFLAGS (IST_TOP - 24)
#define IST_CS (IST_TOP - 32)
#define IST_RIP (IST_TOP - 40)
#define IST_ERR (IST_TOP - 48)
#define IST_VECTOR (IST_TOP - 56)
#define IST_LEVEL2 (-0x100) /* from there to a frame that came meanwhile */

/* struct dune_tf */
#define TF_RDI 0
#define TF_RSI 8
#define TF_RDX 16
#define TF_RCX 24
#define TF_R8 32
#define TF_R9 40
#define TF_R10 48
#define TF_R11 56
#define TF_RBX 64
#define TF_RBP 72
#define TF_R12 80
#define TF_R13 88
#define TF_R14 96
#define TF_R15 104
#define TF_RAX 112
#define TF_ERR 120
#define TF_RIP 128
#define TF_CS 136
#define TF_RFLAGS 144
#define TF_RSP 152
#define TF_SS 160
#define TF_SIZE 168

/* dune::rt::Thread; GS points to it in ring 0 */
#define TH_SELF 0
#define TH_KERNEL_RSP 8
#define TH_SCRATCH 16
#define TH_KERNEL_FS 24
#define TH_USER_FS 32
#define TH_TRAP_FPU 40
#define TH_USER_FPU 48
#define TH_FIX_STACK 56
#define TH_JUMP_RSP 64
#define TH_PAGE 72
#define TH_GDT_PTR 86
#define TH_IDT_PTR 102
#define TH_TSS 112
#define TH_IST1_BYTE1 (TH_TSS + 36 + 1)
#define TH_FIX_FPU 216
#define TH_SLOT_EPOCH 224
#define TH_BAD_STACK 232
#define TH_BAD_FPU 240
#define TH_CPU_NODE 248
#define TH_WATCHES_RESUMES 252
#define TH_VCPU_FD 80

/* struct dune_regs, in the order of their encoding */
#define REGS_RAX 0
#define REGS_RCX 8
#define REGS_RDX 16
#define REGS_RBX 24
#define REGS_RSP 32
#define REGS_RBP 40
#define REGS_RSI 48
#define REGS_RDI 56
#define REGS_R8 64
#define REGS_R9 72
#define REGS_R10 80
#define REGS_R11 88
#define REGS_R12 96
#define REGS_R13 104
#define REGS_R14 112
#define REGS_R15 120

/* struct dune_vcpu_page */
#define PAGE_RIP 0x80
#define PAGE_RFLAGS 0x88
#define PAGE_FLAGS 0xd4
#define PAGE_EXIT 0xd8
#define PAGE_PENDING_ANY 0xe8

#define RUN_FAST 1         /* DUNE_RUN_FAST */
#define RUN_REQUEST 0xdb10 /* DUNE_RUN */
#define EXIT_SYSCALL 2     /* DUNE_EXIT_SYSCALL */

/* System calls below 64 that the trampoline does not just do: 15, 56 to 58, 60 (trampoline.cc). */
#define CALLS_NOT_ORDINARY 0x1700000000008000

/*
 * An area for XSAVE has, this far before it, the frame of the trap that saved to it, or FPU_FREE:
 * the bits that entry.S looks at in an error code (not present; FROM_HOST_BIT).
 */
#define FPU_OWNER (-64)
#define FPU_FREE 0x4001
/* Components that handlers do not get a fresh copy of: PKRU (9), which they may want to change. */
#define FPU_MASK_LOW 0xfffffdff

#define FROM_HOST_BIT 14 /* of a page-fault error code: DUNE_PF_FROM_HOST */

#define HC_LEAVE 0x44550000 /* DUNE_HC_LEAVE */

#define DUNE_NR_VECTORS 256
#define VECTOR_STUB_SIZE 16
