/* SPDX-License-Identifier: GPL-2.0-only */
/* Offsets that entry.S uses; vmx.c asserts each of them. */
#ifndef DUNE_VMX_ENTRY_H
#define DUNE_VMX_ENTRY_H

#define VMX_OFF_REGS 0
#define VMX_OFF_HOST_RSP 8
#define VMX_OFF_CR2 16
#define VMX_OFF_LAUNCHED 24

#define VMCS_HOST_RSP 0x6c14

/* vmx_mitigations: what the guarded way in and out does besides */
#define VMX_MIT_VERW 1
#define VMX_MIT_IBRS 2
#define VMX_MIT_BHB 4
#define VMX_MIT_L1D 8

#endif
