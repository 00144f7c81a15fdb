// SPDX-License-Identifier: MIT
// What the program wants done about signals. Compiled without vector registers: see syscalls.cc.
#include "signals.h"

#include <cerrno>
#include <csignal>

#include "../mm/spinlock.h"
#include "signal_table.h"
#include "trap.h"

extern "C" void dune_sigreturn();

namespace dune::rt {
namespace {

/**
 * Read without the lock, by handlers in host mode: one of them may have interrupted the writer. So
 * there are two copies, of which the one that `version` is odd or even for is not written to.
 */
struct Entry {
    SignalAction copy[2];
    std::uint32_t version;
};

Entry table[kSignals + 1];
mm::SpinLock lock;  // for writers
void (*monitor_arrived)(const siginfo_t& info);

const auto kOurs = reinterpret_cast<std::uintptr_t>(&host_handler);

/** What Linux is told where the program has a handler. */
KernelSigaction host_action(const SignalAction& action) noexcept {
    // SA_ONSTACK is for threads in host mode: those in Dune mode have no alternate stack there.
    constexpr std::uint64_t kPassed = SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT | SA_ONSTACK |
                                      static_cast<std::uint32_t>(SA_RESETHAND);
    const std::uint64_t flags = action.callback != nullptr ? static_cast<std::uint64_t>(SA_RESTART)
                                                           : action.wanted.flags & kPassed;
    return {.handler = kOurs,
            .flags = flags | SA_SIGINFO | kSaRestorer,
            .restorer = reinterpret_cast<std::uintptr_t>(&dune_sigreturn),
            .mask = ~std::uint64_t{0}};
}

/** Under the lock. */
void put(int sig, const SignalAction& action) noexcept {
    Entry& entry = table[sig];
    const std::uint32_t next = entry.version + 1;
    entry.copy[next & 1] = action;
    __atomic_store_n(&entry.version, next, __ATOMIC_SEQ_CST);
}

/** Also if this code runs on it: Linux looks at the stack pointer. */
void disable_altstack(const Thread& thread) noexcept {
    const stack_t none = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    long nr = SYS_sigaltstack;
    asm volatile(
        "mov %%rsp, %%rbx\n\t"
        "mov %[stack], %%rsp\n\t"
        "syscall\n\t"
        "mov %%rbx, %%rsp"
        : "+a"(nr)
        : "D"(&none), "S"(nullptr), [stack] "d"(thread.trampoline_stack), "m"(none)
        : "rbx", "rcx", "r11", "memory");
}

bool valid(int sig) noexcept {
    return sig >= 1 && sig <= kSignals;
}

}  // namespace

SignalAction signal_get(int sig) noexcept {
    const Entry& entry = table[sig];
    for (;;) {
        const std::uint32_t version = __atomic_load_n(&entry.version, __ATOMIC_ACQUIRE);
        const SignalAction action = entry.copy[version & 1];
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&entry.version, __ATOMIC_RELAXED) == version)
            return action;
    }
}

KernelSigaction signal_wanted(int sig) noexcept {
    return signal_get(sig).wanted;
}

void signal_reset(int sig) noexcept {
    const mm::SpinGuard guard(lock);
    SignalAction action = signal_get(sig);
    action.wanted.handler = reinterpret_cast<std::uintptr_t>(SIG_DFL);
    put(sig, action);
}

mm::SpinLock& signals_lock() noexcept {
    return lock;
}

long signal_to_monitor(int sig, std::uint64_t flags) noexcept {
    if (!valid(sig))
        return -EINVAL;
    const mm::SpinGuard guard(lock);
    const SignalAction before = signal_get(sig);
    const SignalAction action = {
        .wanted = {.handler = kOurs, .flags = flags, .restorer = 0, .mask = 0},
        .callback = nullptr,
        .monitor = true};
    put(sig, action);
    const KernelSigaction ours = host_action(action);
    const long ret = sys_sigaction(sig, &ours, nullptr);
    if (ret != 0)
        put(sig, before);
    return ret;
}

void set_monitor_signal(void (*arrived)(const siginfo_t& info)) noexcept {
    monitor_arrived = arrived;
}

void monitor_signal(const siginfo_t& info) noexcept {
    if (monitor_arrived != nullptr)
        monitor_arrived(info);
}

long signal_action(int sig, const KernelSigaction* act, KernelSigaction* old) noexcept {
    if (!valid(sig))
        return -EINVAL;
    const mm::SpinGuard guard(lock);
    const SignalAction before = signal_get(sig);
    KernelSigaction linux_before = {};
    KernelSigaction linux_now = {};
    if (act != nullptr) {
        // First, so that the handler finds it whenever the signal comes.
        const SignalAction action = {.wanted = *act, .callback = nullptr, .monitor = false};
        put(sig, action);
        linux_now = is_handler(*act) ? host_action(action) : *act;
    }
    const long ret = sys_sigaction(sig, act != nullptr ? &linux_now : nullptr, &linux_before);
    if (ret != 0) {
        if (act != nullptr)
            put(sig, before);
        return ret;
    }
    if (old != nullptr)
        *old = linux_before.handler == kOurs ? before.wanted : linux_before;
    return 0;
}

void signals_init() noexcept {
    for (int sig = 1; sig <= kSignals; ++sig) {
        KernelSigaction now = {};
        if (sig == SIGKILL || sig == SIGSTOP)  // nobody changes these
            continue;
        if (host_syscall(SYS_rt_sigaction, sig, 0, word(&now), sizeof(std::uint64_t), 0, 0) != 0 ||
            now.handler == kOurs)
            continue;
        const Entry& entry = table[sig];
        if (now.handler == entry.copy[entry.version & 1].wanted.handler && !is_handler(now))
            continue;
        const mm::SpinGuard guard(lock);
        SignalAction action = signal_get(sig);
        action.wanted = now;
        put(sig, action);
        if (is_handler(now)) {
            const KernelSigaction ours = host_action(action);
            sys_sigaction(sig, &ours, nullptr);
        }
    }
}

void signals_enter(Thread& thread) noexcept {
    // Handlers that host-mode code installed since, if any.
    signals_init();
    // The frames of Linux go to the trampoline's stack; the program's handlers to the program's.
    sys(SYS_sigaltstack, nullptr, &thread.altstack);
    thread.altstack.ss_flags &= ~SS_ONSTACK;
    if ((thread.altstack.ss_flags & SS_DISABLE) == 0)
        disable_altstack(thread);
}

void signals_leave(Thread& thread) noexcept {
    restore_altstack(thread);
    const int sig = thread.signal.number;
    if (sig == 0)
        return;
    // One that found interrupts masked until now: Linux is to bring it once more, to host mode.
    thread.signal.number = 0;
    signal_requeue(sig, thread.signal.info);
    sys_sigprocmask(SIG_SETMASK, &thread.signal.mask, nullptr);
}

void restore_altstack(const Thread& thread) noexcept {
    if ((thread.altstack.ss_flags & SS_DISABLE) == 0)
        sys(SYS_sigaltstack, &thread.altstack, nullptr);
}

void signal_requeue(int sig, const siginfo_t& info) noexcept {
    const SignalAction action = signal_get(sig);
    if ((action.wanted.flags & static_cast<std::uint32_t>(SA_RESETHAND)) != 0) {
        const KernelSigaction ours = host_action(action);  // Linux has reset it
        sys_sigaction(sig, &ours, nullptr);
    }
    sys(SYS_rt_tgsigqueueinfo, sys(SYS_getpid), sys(SYS_gettid), sig, &info);
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

sighandler_t dune_signal(int sig, sighandler_t cb) {
    const KernelSigaction act = {.handler = reinterpret_cast<std::uintptr_t>(cb),
                                 .flags = SA_RESTART | kSaRestorer,
                                 .restorer = reinterpret_cast<std::uintptr_t>(&dune_sigreturn),
                                 .mask = 0};
    KernelSigaction old = {};
    const long ret = signal_action(sig, &act, &old);
    if (ret != 0) {
        errno = static_cast<int>(-ret);
        return SIG_ERR;
    }
    return reinterpret_cast<sighandler_t>(old.handler);
}

int dune_register_signal_handler(int signum, dune_intr_cb cb) {
    if (!valid(signum) || signum == SIGKILL || signum == SIGSTOP)
        return -EINVAL;
    SignalAction action;
    {
        const dune::mm::SpinGuard guard(lock);
        action = signal_get(signum);
        action.callback = cb;
        put(signum, action);
    }
    const unsigned vector = signal_vector(signum);
    if (vector != 255)
        dune_register_intr_handler(static_cast<int>(vector), cb);
    const bool ours = cb != nullptr || is_handler(action.wanted);
    const KernelSigaction act = ours ? host_action(action) : action.wanted;
    return static_cast<int>(sys_sigaction(signum, &act, nullptr));
}

}  // extern "C"
