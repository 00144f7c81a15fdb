/* SPDX-License-Identifier: GPL-2.0-only */
/* Offsets that entry.S uses; vmx.c asserts each of them. */
#ifndef DUNE_VMX_ENTRY_H
#define DUNE_VMX_ENTRY_H

#define VMX_OFF_REGS 0
#define VMX_OFF_HOST_RSP 8
#define VMX_OFF_CR2 16
#define VMX_OFF_LAUNCHED 24

#define REGS_RAX 0x00
#define REGS_RCX 0x08
#define REGS_RDX 0x10
#define REGS_RBX 0x18
#define REGS_RBP 0x28
#define REGS_RSI 0x30
#define REGS_RDI 0x38
#define REGS_R8 0x40
#define REGS_R9 0x48
#define REGS_R10 0x50
#define REGS_R11 0x58
#define REGS_R12 0x60
#define REGS_R13 0x68
#define REGS_R14 0x70
#define REGS_R15 0x78

#define VMCS_HOST_RSP 0x6c14

/* vmx_mitigations: what the guarded way in and out does besides */
#define VMX_MIT_VERW 1
#define VMX_MIT_IBRS 2
#define VMX_MIT_BHB 4
#define VMX_MIT_L1D 8

#endif
