// SPDX-License-Identifier: MIT
#include "trap.h"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "../mm/backing.h"
#include "../mm/fault.h"
#include "../mm/tables.h"
#include "fpu_area.h"
#include "gates.h"
#include "layout.h"
#include "process.h"

extern "C" {
extern const char dune_copy_user_insn[], dune_copy_user_fixup[];
extern const char dune_user_cmpxchg_insn[], dune_user_cmpxchg_fixup[];

// What it calls.
__attribute__((visibility("hidden"))) dune::rt::TrapHandler dune_intr_handlers[DUNE_NR_VECTORS];
// The page-fault handler, by what is saved where it is called: an entry that runs while the handler
// is changed finds one for which it saves enough, if not the new one.
__attribute__((visibility("hidden"))) dune_pgflt_cb dune_pgflt_handlers[3];
__attribute__((visibility("hidden"))) dune_syscall_cb dune_syscall_handler;
}

namespace dune::rt {
namespace {

/** Where access to ring 3's memory may fault, and where it goes on then (user.S). */
struct Fixup {
    const char* insn;
    const char* fixup;
};

constexpr Fixup kFixups[] = {{dune_copy_user_insn, dune_copy_user_fixup},
                             {dune_user_cmpxchg_insn, dune_user_cmpxchg_fixup}};

struct Exception {
    int sig;
    int code;
};

constexpr Exception kExceptions[32] = {
    {SIGFPE, FPE_INTDIV}, {SIGTRAP, TRAP_TRACE}, {SIGSEGV, SI_KERNEL},   {SIGTRAP, SI_KERNEL},
    {SIGSEGV, SI_KERNEL}, {SIGSEGV, SI_KERNEL},  {SIGILL, ILL_ILLOPN},   {SIGSEGV, SI_KERNEL},
    {SIGSEGV, SI_KERNEL}, {SIGSEGV, SI_KERNEL},  {SIGSEGV, SI_KERNEL},   {SIGBUS, SI_KERNEL},
    {SIGBUS, SI_KERNEL},  {SIGSEGV, SI_KERNEL},  {SIGSEGV, SEGV_MAPERR}, {SIGSEGV, SI_KERNEL},
    {SIGFPE, FPE_FLTINV}, {SIGBUS, BUS_ADRALN},  {SIGBUS, SI_KERNEL},    {SIGFPE, FPE_FLTINV},
};

void default_trap(dune_tf* tf, std::uint64_t vector, void* fpu) noexcept {
    if (vector >= 32)
        return;  // an interrupt that nobody waits for
    const FaultSignal what = signal_of_exception(static_cast<unsigned>(vector));
    fault_to_signal(tf, fpu, what.sig, what.code, what.at_instruction ? tf->rip : 0,
                    static_cast<int>(vector));
}

TrapHandler default_handler(unsigned vector) noexcept {
    return vector > DUNE_SIGNAL_INTR_BASE ? signal_interrupt : default_trap;
}

/** Without a handler of the program: a page table of its own that says no. */
void default_pgflt(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
    default_page_fault(addr, fec, tf);
}

void default_syscall(dune_tf* tf) {
    report_fault(tf, -1, SIGSYS, tf->rip,
                 "system call of ring 3, and no handler registered for it");
}

/** The program's handler, which says that it needs no more than that; null: the default one. */
void register_page_fault_handler(dune_pgflt_cb cb, HandlerNeeds most) noexcept {
    if (cb == nullptr)  // it looks for the vector registers that were saved
        set_page_fault_handler(default_pgflt, HandlerNeeds::Vectors);
    else
        set_page_fault_handler(cb, std::min(scan_handler(reinterpret_cast<const void*>(cb)), most));
}

/** Does an access to ring 3's memory fault? Then it goes on elsewhere. */
bool fix_up(dune_tf* tf) noexcept {
    for (const auto& [insn, fixup] : kFixups)
        if (tf->rip == reinterpret_cast<std::uint64_t>(insn)) {
            tf->rip = reinterpret_cast<std::uint64_t>(fixup);
            return true;
        }
    return false;
}

/** Where the page-fault entry saved the vector registers of what it interrupted (entry.S). */
void* saved_vector_state(const dune_tf& tf) noexcept {
    const Thread& thread = *self();
    if ((tf.cs & 3) != 0)
        return thread.user_fpu;
    const auto frame = reinterpret_cast<std::uint64_t>(&tf);
    if (*reinterpret_cast<const std::uint64_t*>(thread.trap_fpu + FPU_OWNER) == frame)
        return thread.trap_fpu;
    return reinterpret_cast<void*>((frame - fpu_area_size()) & ~std::uint64_t{63});
}

}  // namespace

FaultSignal signal_of_exception(unsigned vector) noexcept {
    const Exception& exception = kExceptions[vector];
    const int sig = exception.sig != 0 ? exception.sig : SIGSEGV;
    return {sig, exception.sig != 0 ? exception.code : SI_KERNEL, sig == SIGFPE || sig == SIGILL};
}

bool is_from_host(const dune_tf& tf) noexcept {
    return (tf.err & DUNE_PF_FROM_HOST) != 0;
}

FaultSignal signal_of_page_fault(std::uintptr_t addr, std::uint64_t fec,
                                 const dune_tf& tf) noexcept {
    const dune_vcpu_page* const page = self()->page;
    // The page remembers Linux' last refusal.
    if (page->fault_signal != 0 && page->fault_address == addr && is_from_host(tf))
        return {static_cast<int>(page->fault_signal), page->fault_si_code, false};
    return {SIGSEGV, (fec & FEC_P) != 0 ? SEGV_ACCERR : SEGV_MAPERR, false};
}

/**
 * Can the rights in the tables be why? Not if a bit was reserved, by a protection key, or where
 * SMEP or SMAP keep ring 0 off memory of ring 3.
 */
bool tables_explain(std::uintptr_t addr, std::uint64_t fec) noexcept {
    if ((fec & (FEC_RSV | FEC_PK)) != 0)
        return false;
    if ((fec & FEC_U) != 0 || (read_cr4() & (CR4_SMEP | CR4_SMAP)) == 0)
        return true;
    const mm::Found found = mm::find<mm::PoolSpace>(mm::backing().current_root(), addr);
    return (mm::load(found.slot) & PTE_U) == 0;
}

void default_page_fault(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) noexcept {
    if (!is_from_host(*tf) && tables_explain(addr, fec) &&
        mm::resolve_fault(mm::backing().current_root(), addr, fec) == 0)
        return;
    if (fix_up(tf))
        return;
    const FaultSignal what = signal_of_page_fault(addr, fec, *tf);
    fault_to_signal(tf, saved_vector_state(*tf), what.sig, what.code, addr, T_PGFLT);
}

void set_trap_handler(unsigned vector, TrapHandler handler) noexcept {
    __atomic_store_n(&dune_intr_handlers[vector], handler, __ATOMIC_RELEASE);
}

void traps_init(bool fast) noexcept {
    for (unsigned vector = 0; vector < DUNE_NR_VECTORS; ++vector)
        if (dune_intr_handlers[vector] == nullptr)
            dune_intr_handlers[vector] = default_handler(vector);
    dune_intr_handlers[DUNE_SIGNAL_INTR_BASE] = default_trap;
    if (page_fault_handler() == nullptr)
        set_page_fault_handler(default_pgflt, HandlerNeeds::Vectors);
    if (dune_syscall_handler == nullptr)
        dune_syscall_handler = default_syscall;
    gates_init(fast);
}

void set_page_fault_handler(dune_pgflt_cb cb, HandlerNeeds needs) noexcept {
    for (auto level = static_cast<unsigned>(HandlerNeeds::Vectors);; --level) {
        __atomic_store_n(&dune_pgflt_handlers[level], cb, __ATOMIC_RELEASE);
        if (level == static_cast<unsigned>(needs))
            break;
    }
    gate_page_faults(needs);
}

dune_pgflt_cb page_fault_handler() noexcept {
    const dune_pgflt_cb cb = __atomic_load_n(
        &dune_pgflt_handlers[static_cast<unsigned>(HandlerNeeds::Vectors)], __ATOMIC_ACQUIRE);
    return cb == default_pgflt ? nullptr : cb;
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

/** A page fault that is Linux' doing. On the interrupted stack. */
__attribute__((visibility("hidden"))) void dune_pgflt_from_host(std::uintptr_t addr,
                                                                std::uint64_t fec, dune_tf* tf,
                                                                void* fpu) {
    if (fix_up(tf))
        return;
    if (self()->page->fault_si_code == SEGV_MAPERR)
        fec &= ~FEC_P;
    if (const dune_pgflt_cb cb = page_fault_handler(); cb != nullptr) {
        cb(addr, fec, tf);
        return;
    }
    const FaultSignal what = signal_of_page_fault(addr, fec, *tf);
    fault_to_signal(tf, fpu, what.sig, what.code, addr, T_PGFLT);
}

int dune_register_intr_handler(int vec, dune_intr_cb cb) {
    if (vec < 0 || vec >= DUNE_NR_VECTORS || vec == T_PGFLT || vec == T_DBLFLT)
        return -EINVAL;
    // Handlers of the program do not look at the further arguments.
    const TrapHandler handler =
        cb == nullptr ? default_handler(static_cast<unsigned>(vec))
                      : reinterpret_cast<TrapHandler>(reinterpret_cast<void (*)()>(cb));
    set_trap_handler(static_cast<unsigned>(vec), handler);
    return 0;
}

void dune_register_pgflt_handler(dune_pgflt_cb cb) {
    register_page_fault_handler(cb, HandlerNeeds::Vectors);
}

void dune_register_pgflt_handler_general_regs(dune_pgflt_cb cb) {
    register_page_fault_handler(cb, HandlerNeeds::Frame);
}

void dune_register_syscall_handler(dune_syscall_cb cb) {
    __atomic_store_n(&dune_syscall_handler, cb == nullptr ? default_syscall : cb, __ATOMIC_RELEASE);
}

}  // extern "C"
