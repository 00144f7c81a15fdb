// SPDX-License-Identifier: MIT
// Holds the numbers of layout.h, which assembly uses, against the structures they describe.
#include "layout.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cstddef>

#include "kern/dune.h"
#include "libdune/dune.h"
#include "thread.h"

#define SAME(number, structure, member) static_assert((number) == offsetof(structure, member))

SAME(TF_RDI, dune_tf, rdi);
SAME(TF_RSI, dune_tf, rsi);
SAME(TF_RDX, dune_tf, rdx);
SAME(TF_RCX, dune_tf, rcx);
SAME(TF_R8, dune_tf, r8);
SAME(TF_R9, dune_tf, r9);
SAME(TF_R10, dune_tf, r10);
SAME(TF_R11, dune_tf, r11);
SAME(TF_RBX, dune_tf, rbx);
SAME(TF_RBP, dune_tf, rbp);
SAME(TF_R12, dune_tf, r12);
SAME(TF_R13, dune_tf, r13);
SAME(TF_R14, dune_tf, r14);
SAME(TF_R15, dune_tf, r15);
SAME(TF_RAX, dune_tf, rax);
SAME(TF_ERR, dune_tf, err);
SAME(TF_RIP, dune_tf, rip);
SAME(TF_CS, dune_tf, cs);
SAME(TF_RFLAGS, dune_tf, rflags);
SAME(TF_RSP, dune_tf, rsp);
SAME(TF_SS, dune_tf, ss);
static_assert(TF_SIZE == sizeof(dune_tf));

SAME(REGS_RAX, dune_regs, rax);
SAME(REGS_RCX, dune_regs, rcx);
SAME(REGS_RDX, dune_regs, rdx);
SAME(REGS_RBX, dune_regs, rbx);
SAME(REGS_RSP, dune_regs, rsp);
SAME(REGS_RBP, dune_regs, rbp);
SAME(REGS_RSI, dune_regs, rsi);
SAME(REGS_RDI, dune_regs, rdi);
SAME(REGS_R8, dune_regs, r8);
SAME(REGS_R9, dune_regs, r9);
SAME(REGS_R10, dune_regs, r10);
SAME(REGS_R11, dune_regs, r11);
SAME(REGS_R12, dune_regs, r12);
SAME(REGS_R13, dune_regs, r13);
SAME(REGS_R14, dune_regs, r14);
SAME(REGS_R15, dune_regs, r15);

static_assert(offsetof(dune_vcpu_page, regs) == 0);
SAME(PAGE_RIP, dune_vcpu_page, rip);
SAME(PAGE_RFLAGS, dune_vcpu_page, rflags);
SAME(PAGE_FLAGS, dune_vcpu_page, flags);
SAME(PAGE_EXIT, dune_vcpu_page, exit);
SAME(PAGE_PENDING_ANY, dune_vcpu_page, pending_any);
static_assert(RUN_FAST == DUNE_RUN_FAST);
static_assert(RUN_REQUEST == DUNE_RUN);
static_assert(EXIT_SYSCALL == DUNE_EXIT_SYSCALL);
constexpr std::uint64_t bit(int nr) {
    return std::uint64_t{1} << nr;
}
static_assert(CALLS_NOT_ORDINARY == (bit(SYS_rt_sigreturn) | bit(SYS_clone) | bit(SYS_fork) |
                                     bit(SYS_vfork) | bit(SYS_exit)));
static_assert(SYS_clone3 == 435);
static_assert(1U << FROM_HOST_BIT == DUNE_PF_FROM_HOST);  // NOLINT(misc-redundant-expression)
static_assert(FPU_FREE == (DUNE_PF_FROM_HOST | FEC_P));
static_assert(HC_LEAVE == DUNE_HC_LEAVE);

namespace dune::rt {

// The same places in what a thread or process starts from.
SAME(PAGE_RIP, HostContext, rip);
SAME(PAGE_RFLAGS, HostContext, rflags);

SAME(TH_SELF, Thread, self);
SAME(TH_KERNEL_RSP, Thread, kernel_rsp);
SAME(TH_SCRATCH, Thread, scratch);
SAME(TH_KERNEL_FS, Thread, kernel_fs);
SAME(TH_USER_FS, Thread, user_fs);
SAME(TH_TRAP_FPU, Thread, trap_fpu);
SAME(TH_USER_FPU, Thread, user_fpu);
SAME(TH_FIX_STACK, Thread, fix_stack);
SAME(TH_JUMP_RSP, Thread, jump_rsp);
SAME(TH_PAGE, Thread, page);
SAME(TH_VCPU_FD, Thread, vcpu_fd);
SAME(TH_GDT_PTR, Thread, gdt_ptr);
SAME(TH_IDT_PTR, Thread, idt_ptr);
SAME(TH_TSS, Thread, tss);
SAME(TH_FIX_FPU, Thread, fix_fpu);
SAME(TH_SLOT_EPOCH, Thread, slot_epoch);
SAME(TH_BAD_STACK, Thread, bad_stack);
SAME(TH_BAD_FPU, Thread, bad_fpu);
SAME(TH_CPU_NODE, Thread, cpu_node);
SAME(TH_WATCHES_RESUMES, Thread, watches_resumes);
static_assert(TH_IST1_BYTE1 == offsetof(Thread, tss) + offsetof(TaskState, ist) + 1);
static_assert(sizeof(TaskState) == 104 && sizeof(TablePointer) == 10);

}  // namespace dune::rt
