// SPDX-License-Identifier: MIT
// Running the program's signal handlers in Dune mode.
#include <ucontext.h>

#include <csignal>
#include <cstring>

#include "signal_table.h"
#include "trap.h"

namespace dune::rt {
namespace {

struct Regs {
    int greg;
    std::uint64_t dune_tf::*field;
};

constexpr Regs kRegs[] = {
    {REG_R8, &dune_tf::r8},   {REG_R9, &dune_tf::r9},   {REG_R10, &dune_tf::r10},
    {REG_R11, &dune_tf::r11}, {REG_R12, &dune_tf::r12}, {REG_R13, &dune_tf::r13},
    {REG_R14, &dune_tf::r14}, {REG_R15, &dune_tf::r15}, {REG_RDI, &dune_tf::rdi},
    {REG_RSI, &dune_tf::rsi}, {REG_RBP, &dune_tf::rbp}, {REG_RBX, &dune_tf::rbx},
    {REG_RDX, &dune_tf::rdx}, {REG_RAX, &dune_tf::rax}, {REG_RCX, &dune_tf::rcx},
    {REG_RSP, &dune_tf::rsp}, {REG_RIP, &dune_tf::rip}, {REG_EFL, &dune_tf::rflags},
};

/** What a handler may change in the flags: all but what rings and interrupts depend on. */
constexpr std::uint64_t kFlags = RFLAGS_USER;

void tf_to_context(const dune_tf& tf, mcontext_t& context) noexcept {
    for (const auto& reg : kRegs)
        context.gregs[reg.greg] = static_cast<greg_t>(tf.*reg.field);
    context.gregs[REG_CSGSFS] = static_cast<greg_t>(tf.cs | tf.ss << 48);
    context.gregs[REG_ERR] = static_cast<greg_t>(tf.err);
}

void context_to_tf(const mcontext_t& context, dune_tf& tf) noexcept {
    const std::uint64_t flags = tf.rflags;
    for (const auto& reg : kRegs)
        tf.*reg.field = static_cast<std::uint64_t>(context.gregs[reg.greg]);
    tf.rflags = (flags & ~kFlags) | (tf.rflags & kFlags);
}

/** Call a handler on another stack. */
void call_on(std::uintptr_t top, std::uintptr_t handler, int sig, siginfo_t* info,
             ucontext_t* context) noexcept {
    long a = sig;
    asm volatile(
        "mov %%rsp, %%rbx\n\t"
        "mov %[top], %%rsp\n\t"
        "call *%[handler]\n\t"
        "mov %%rbx, %%rsp"
        : "+D"(a), "+S"(info), "+d"(context)
        : [top] "r"(top & ~std::uintptr_t{15}), [handler] "r"(handler)
        : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
}

bool within(const stack_t& stack, std::uintptr_t sp) noexcept {
    return sp - reinterpret_cast<std::uintptr_t>(stack.ss_sp) < stack.ss_size;
}

/** The alternate stack if the handler is to run there. */
std::uintptr_t alternate_top(const KernelSigaction& action, const dune_tf& tf) noexcept {
    const stack_t& stack = self()->altstack;
    if ((action.flags & SA_ONSTACK) == 0 || (stack.ss_flags & SS_DISABLE) != 0 ||
        ((tf.cs & 3) == 0 && within(stack, tf.rsp)))
        return 0;
    return reinterpret_cast<std::uintptr_t>(stack.ss_sp) + stack.ss_size;
}

/**
 * Run a handler whose signals are blocked already; interrupts are masked.
 * @param mask the signals that were blocked before
 */
void run_handler(const KernelSigaction& action, dune_tf* tf, void* fpu, int sig, siginfo_t* info,
                 std::uint64_t mask, std::uint64_t trapno, std::uint64_t address) noexcept {
    ucontext_t context;
    std::memset(&context, 0, sizeof(context));
    context.uc_stack = self()->altstack;
    tf_to_context(*tf, context.uc_mcontext);
    context.uc_mcontext.gregs[REG_TRAPNO] = static_cast<greg_t>(trapno);
    context.uc_mcontext.gregs[REG_CR2] = static_cast<greg_t>(address);
    context.uc_mcontext.fpregs = static_cast<fpregset_t>(fpu);
    auto& context_mask = *reinterpret_cast<std::uint64_t*>(&context.uc_sigmask);
    context_mask = mask;

    if ((action.flags & static_cast<std::uint32_t>(SA_RESETHAND)) != 0)
        signal_reset(sig);
    const std::uintptr_t top = alternate_top(action, *tf);
    sti();
    if (top != 0)
        call_on(top, action.handler, sig, info, &context);
    else
        reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.handler)(sig, info, &context);
    cli();
    // What this lets through is an interrupt right after the return to what was interrupted.
    sys_sigprocmask(SIG_SETMASK, &context_mask, nullptr);
    context_to_tf(context.uc_mcontext, *tf);
}

std::uint64_t blocked_by(const KernelSigaction& action, int sig) noexcept {
    return action.mask | ((action.flags & SA_NODEFER) != 0 ? 0 : sigbit(sig));
}

void run_callbacks(dune_tf* tf) noexcept {
    std::uint64_t signals = __atomic_exchange_n(&self()->high_signals, 0, __ATOMIC_ACQUIRE);
    for (; signals != 0; signals &= signals - 1) {
        const SignalAction action = signal_get(__builtin_ctzll(signals) + 1);
        if (action.callback != nullptr)
            action.callback(tf);
    }
}

}  // namespace

void signal_interrupt(dune_tf* tf, std::uint64_t vector, void* fpu) noexcept {
    if (vector == 255)
        run_callbacks(tf);
    Thread& thread = *self();
    if (thread.signal.number == 0)
        return;
    PendingSignal signal = thread.signal;
    thread.signal.number = 0;
    const KernelSigaction action = signal_wanted(signal.number);
    if (!is_handler(action)) {
        sys_sigprocmask(SIG_SETMASK, &signal.mask, nullptr);
        return;
    }
    const std::uint64_t mask = signal.mask | blocked_by(action, signal.number);
    sys_sigprocmask(SIG_SETMASK, &mask, nullptr);
    run_handler(action, tf, fpu, signal.number, &signal.info, signal.mask, 0, 0);
}

siginfo_t describe_fault(int sig, int code, std::uintptr_t addr) noexcept {
    siginfo_t info;
    std::memset(&info, 0, sizeof(info));
    info.si_signo = sig;
    info.si_code = code;
    info.si_addr = reinterpret_cast<void*>(addr);
    // How much is bad: a page, of whatever size that the module does not tell.
    if (sig == SIGBUS && code == BUS_MCEERR_AR)
        info.si_addr_lsb = PGSHIFT;
    return info;
}

void fault_to_signal(dune_tf* tf, void* fpu, int sig, int code, std::uintptr_t addr,
                     int vector) noexcept {
    const SignalAction action = signal_get(sig);
    if (action.callback != nullptr) {
        action.callback(tf);
        return;
    }
    if (!is_handler(action.wanted))
        report_fault(tf, vector, sig, addr, nullptr);
    std::uint64_t mask = 0;
    const std::uint64_t block = blocked_by(action.wanted, sig);
    sys_sigprocmask(SIG_BLOCK, &block, &mask);
    if ((mask & sigbit(sig)) != 0)  // as Linux does
        report_fault(tf, vector, sig, addr, nullptr);
    siginfo_t info = describe_fault(sig, code, addr);
    run_handler(action.wanted, tf, fpu, sig, &info, mask, static_cast<std::uint64_t>(vector), addr);
}

bool fault_on_alternate_stack(const dune_tf* tf, int sig) noexcept {
    const SignalAction action = signal_get(sig);
    return action.callback == nullptr && is_handler(action.wanted) &&
           alternate_top(action.wanted, *tf) != 0;
}

}  // namespace dune::rt
