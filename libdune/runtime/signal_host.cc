// SPDX-License-Identifier: MIT
/*
 * The handler that Linux calls, in host mode, instead of the program's.
 *
 * At most one signal at a time is on its way to a handler in Dune mode: until that runs, all others
 * stay blocked in Linux, which so keeps them in its order and merges them as it would.
 */
#include <ucontext.h>

#include <csignal>
#include <cstring>

#include "signal_table.h"
#include "trap.h"

extern "C" {
extern const char dune_window_begin[], dune_window_syscall[], dune_window_abort[];
}

namespace dune::rt {
namespace {

/** The kernel's signal mask in a ucontext: 8 of the C library's 128 bytes. */
std::uint64_t& mask_of(ucontext_t& context) noexcept {
    return *reinterpret_cast<std::uint64_t*>(&context.uc_sigmask);
}

/** A call that was not begun, or that Linux is about to restart, waits for the handler. */
void abort_call(const Thread& thread, ucontext_t& context) noexcept {
    auto& rip = context.uc_mcontext.gregs[REG_RIP];
    const auto at = static_cast<std::uint64_t>(rip);
    if (at >= reinterpret_cast<std::uint64_t>(dune_window_begin) &&
        at <= reinterpret_cast<std::uint64_t>(dune_window_syscall) &&
        takes_interrupts(*thread.page))
        rip = static_cast<greg_t>(reinterpret_cast<std::uint64_t>(dune_window_abort));
}

void call_in_host_mode(int sig, siginfo_t* info, ucontext_t* context) noexcept {
    const SignalAction action = signal_get(sig);
    if (action.monitor) {
        monitor_signal(*info);
        return;
    }
    if (action.callback != nullptr || !is_handler(action.wanted))
        return;
    std::uint64_t mask = mask_of(*context) | action.wanted.mask;
    if ((action.wanted.flags & SA_NODEFER) == 0)
        mask |= sigbit(sig);
    sys_sigprocmask(SIG_SETMASK, &mask, nullptr);
    reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.wanted.handler)(sig, info, context);
}

}  // namespace

void host_handler(int sig, siginfo_t* info, void* ctx) noexcept {
    auto* const context = static_cast<ucontext_t*>(ctx);
    Thread* const thread = current();
    // A child of fork() has a copy of the variable, one of vfork() even shares it.
    if (thread == nullptr || !thread->active || thread->tid != sys(SYS_gettid)) {
        call_in_host_mode(sig, info, context);
        return;
    }
    const SignalAction action = signal_get(sig);
    unsigned vector = signal_vector(sig);
    if (action.monitor) {
        monitor_signal(*info);
        thread->signal.restart = (action.wanted.flags & SA_RESTART) != 0;
        vector = kMonitorVector;
    } else if (action.callback == nullptr) {
        if (!is_handler(action.wanted))
            return;
        if (thread->signal.number != 0) {
            // Interrupts are masked, and the program unblocked signals: it waits in Linux again.
            signal_requeue(sig, *info);
            mask_of(*context) = ~std::uint64_t{0};
            return;
        }
        thread->signal.number = sig;
        thread->signal.info = *info;
        thread->signal.mask = mask_of(*context);
        thread->signal.restart = (action.wanted.flags & SA_RESTART) != 0;
        mask_of(*context) = ~std::uint64_t{0};
    } else {
        thread->signal.restart = true;
    }
    if (vector == 255 && action.callback != nullptr)
        __atomic_fetch_or(&thread->high_signals, sigbit(sig), __ATOMIC_RELAXED);
    __atomic_fetch_or(&thread->page->pending[vector / 64], 1ULL << (vector % 64), __ATOMIC_RELEASE);
    // From now on each call comes by the trampoline, which looks whether a handler comes first.
    thread->page->flags &= ~DUNE_RUN_FAST;
    __atomic_store_n(&thread->page->pending_any, 1, __ATOMIC_RELEASE);
    abort_call(*thread, *context);
}

}  // namespace dune::rt
