// SPDX-License-Identifier: MIT
#include "trap.h"

#include <cerrno>
#include <csignal>

#include "../mm/backing.h"
#include "../mm/fault.h"
#include "layout.h"
#include "process.h"

extern "C" {
// Entry code (entry.S, vectors.S).
extern const char dune_vectors_fast[], dune_vectors_legacy[];
extern const char dune_pgflt_preserve_fast[], dune_pgflt_preserve_legacy[];
extern const char dune_pgflt_general_fast[], dune_pgflt_general_legacy[];
extern const char dune_lstar_fast[], dune_lstar_legacy[];
extern const char dune_double_fault[];
extern const char dune_copy_user_insn[], dune_copy_user_fixup[];

// What it calls.
__attribute__((visibility("hidden"))) dune::rt::TrapHandler dune_intr_handlers[DUNE_NR_VECTORS];
__attribute__((visibility("hidden"))) dune_pgflt_cb dune_pgflt_handler;
__attribute__((visibility("hidden"))) dune_syscall_cb dune_syscall_handler;
}

namespace dune::rt {
namespace {

/** A gate of the IDT (SDM vol. 3, figure 6-8). */
struct Gate {
    std::uint64_t low, high;
};

alignas(4096) Gate idt[DUNE_NR_VECTORS];
bool fast_entry;

void set_gate(unsigned vector, const char* entry, unsigned ist) noexcept {
    const auto address = reinterpret_cast<std::uint64_t>(entry);
    constexpr std::uint64_t kInterruptGate = 0x8e;
    // INT3 and INTO are instructions of ring 3.
    const std::uint64_t dpl = vector == T_BRKPT || vector == T_OFLOW ? 3 : 0;
    idt[vector].high = address >> 32;
    idt[vector].low = (address & 0xffff) | std::uint64_t{SEL_KERNEL_CS} << 16 |
                      std::uint64_t{ist} << 32 | (kInterruptGate | dpl << 5) << 40 |
                      (address >> 16 & 0xffff) << 48;
}

struct Exception {
    int sig;
    int code;
    const char* name;
};

constexpr Exception kExceptions[32] = {
    {SIGFPE, FPE_INTDIV, "divide error"},
    {SIGTRAP, TRAP_TRACE, "debug exception"},
    {SIGSEGV, SI_KERNEL, "non-maskable interrupt"},
    {SIGTRAP, SI_KERNEL, "breakpoint"},
    {SIGSEGV, SI_KERNEL, "overflow"},
    {SIGSEGV, SI_KERNEL, "bound range exceeded"},
    {SIGILL, ILL_ILLOPN, "invalid opcode"},
    {SIGSEGV, SI_KERNEL, "device not available"},
    {SIGSEGV, SI_KERNEL, "double fault"},
    {SIGSEGV, SI_KERNEL, "coprocessor segment overrun"},
    {SIGSEGV, SI_KERNEL, "invalid TSS"},
    {SIGBUS, SI_KERNEL, "segment not present"},
    {SIGBUS, SI_KERNEL, "stack-segment fault"},
    {SIGSEGV, SI_KERNEL, "general protection"},
    {SIGSEGV, SEGV_MAPERR, "page fault"},
    {SIGSEGV, SI_KERNEL, "exception 15"},
    {SIGFPE, FPE_FLTINV, "x87 floating-point error"},
    {SIGBUS, BUS_ADRALN, "alignment check"},
    {SIGBUS, SI_KERNEL, "machine check"},
    {SIGFPE, FPE_FLTINV, "SIMD floating-point error"},
};

void default_trap(dune_tf* tf, std::uint64_t vector, void* fpu) noexcept {
    const Exception* const exception = vector < 32 ? &kExceptions[vector] : nullptr;
    if (exception == nullptr)
        return;  // an interrupt that nobody waits for
    const int sig = exception->sig != 0 ? exception->sig : SIGSEGV;
    const bool at_instruction = sig == SIGFPE || sig == SIGILL;
    fault_to_signal(tf, fpu, sig, exception->code, at_instruction ? tf->rip : 0,
                    static_cast<int>(vector));
}

TrapHandler default_handler(unsigned vector) noexcept {
    return vector > DUNE_SIGNAL_INTR_BASE ? signal_interrupt : default_trap;
}

/** Without a handler of the program: a page table of its own that says no. */
void default_pgflt(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
    if (mm::resolve_fault(mm::backing().current_root(), addr, fec) == 0)
        return;
    fault_to_signal(tf, nullptr, SIGSEGV, (fec & FEC_P) != 0 ? SEGV_ACCERR : SEGV_MAPERR, addr,
                    T_PGFLT);
}

void default_syscall(dune_tf* tf) {
    report_fault(tf, -1, SIGSYS, tf->rip,
                 "system call of ring 3, and no handler registered for it");
}

void set_pgflt(dune_pgflt_cb cb, bool general_regs) noexcept {
    const char* entry;
    if (general_regs)
        entry = fast_entry ? dune_pgflt_general_fast : dune_pgflt_general_legacy;
    else
        entry = fast_entry ? dune_pgflt_preserve_fast : dune_pgflt_preserve_legacy;
    // Between the two, the entry that preserves more must not meet the other's handler.
    if (!general_regs)
        set_gate(T_PGFLT, entry, kIstTrap);
    __atomic_store_n(&dune_pgflt_handler, cb, __ATOMIC_RELEASE);
    if (general_regs)
        set_gate(T_PGFLT, entry, kIstTrap);
}

}  // namespace

void idt_init(bool fast) noexcept {
    fast_entry = fast;
    const char* const stubs = fast ? dune_vectors_fast : dune_vectors_legacy;
    for (unsigned vector = 0; vector < DUNE_NR_VECTORS; ++vector) {
        set_gate(vector, stubs + static_cast<std::size_t>(vector) * VECTOR_STUB_SIZE, kIstTrap);
        if (dune_intr_handlers[vector] == nullptr)
            dune_intr_handlers[vector] = default_handler(vector);
    }
    set_gate(T_DBLFLT, dune_double_fault, kIstDoubleFault);
    dune_intr_handlers[DUNE_SIGNAL_INTR_BASE] = default_trap;
    if (dune_pgflt_handler == nullptr)
        dune_pgflt_handler = default_pgflt;
    set_pgflt(dune_pgflt_handler, false);
    if (dune_syscall_handler == nullptr)
        dune_syscall_handler = default_syscall;
}

TablePointer idt_pointer() noexcept {
    return {.limit = sizeof(idt) - 1, .base = reinterpret_cast<std::uint64_t>(idt)};
}

std::uint64_t lstar() noexcept {
    return reinterpret_cast<std::uint64_t>(fast_entry ? dune_lstar_fast : dune_lstar_legacy);
}

bool has_pgflt_handler() noexcept {
    return dune_pgflt_handler != default_pgflt;
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

/** A page fault that is Linux' doing. On the interrupted stack. */
__attribute__((visibility("hidden"))) void dune_pgflt_from_host(std::uintptr_t addr,
                                                                std::uint64_t fec, dune_tf* tf,
                                                                void* fpu) {
    if (tf->rip == reinterpret_cast<std::uint64_t>(dune_copy_user_insn)) {
        tf->rip = reinterpret_cast<std::uint64_t>(dune_copy_user_fixup);
        return;
    }
    if (has_pgflt_handler()) {
        dune_pgflt_handler(addr, fec, tf);
        return;
    }
    const dune_vcpu_page* const page = self()->page;
    const bool known = page->fault_signal != 0;
    fault_to_signal(tf, fpu, known ? static_cast<int>(page->fault_signal) : SIGSEGV,
                    known ? page->fault_si_code : SEGV_MAPERR, addr, T_PGFLT);
}

int dune_register_intr_handler(int vec, dune_intr_cb cb) {
    if (vec < 0 || vec >= DUNE_NR_VECTORS || vec == T_PGFLT || vec == T_DBLFLT)
        return -EINVAL;
    // Handlers of the program do not look at the further arguments.
    const TrapHandler handler =
        cb == nullptr ? default_handler(static_cast<unsigned>(vec))
                      : reinterpret_cast<TrapHandler>(reinterpret_cast<void (*)()>(cb));
    __atomic_store_n(&dune_intr_handlers[vec], handler, __ATOMIC_RELEASE);
    return 0;
}

void dune_register_pgflt_handler(dune_pgflt_cb cb) {
    set_pgflt(cb == nullptr ? default_pgflt : cb, false);
}

void dune_register_pgflt_handler_general_regs(dune_pgflt_cb cb) {
    set_pgflt(cb == nullptr ? default_pgflt : cb, cb != nullptr);
}

void dune_register_syscall_handler(dune_syscall_cb cb) {
    __atomic_store_n(&dune_syscall_handler, cb == nullptr ? default_syscall : cb, __ATOMIC_RELEASE);
}

}  // extern "C"
