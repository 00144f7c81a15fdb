// SPDX-License-Identifier: MIT
//
// Signals. Masks, pending signals and default actions are the kernel's; only handlers are not known
// to it: for a signal that the program handles the kernel calls the engine, which queues it for the
// thread that the kernel chose, and the monitor makes ring 3 enter the handler.

#include "monitor/signals.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "monitor/dispatch.h"
#include "monitor/others.h"
#include "monitor/rseq.h"
#include "monitor/sigframe.h"

namespace dune::sandbox {

namespace {

constexpr uint64_t kUnmaskable = signal_bit(SIGKILL) | signal_bit(SIGSTOP);
constexpr uint64_t kDefault = 0;
constexpr uint64_t kIgnore = 1;
constexpr size_t kMaskSize = sizeof(uint64_t);

bool is_handler(const SignalAction& action) {
    return action.handler != kDefault && action.handler != kIgnore;
}

// Tells the kernel what the program has set. Calls that a caught signal interrupts are not
// restarted by the kernel: the monitor decides that when the program's handler has been set up.
long install(int signal, const SignalAction& action) {
    if (is_handler(action)) {
        return engine::catch_signal(
            signal, action.flags & static_cast<uint64_t>(SA_NOCLDSTOP | SA_NOCLDWAIT));
    }
    return engine::leave_signal(signal, &action);
}

long do_sigaction(const uint64_t a[6]) {
    const int signal = static_cast<int>(a[0]);
    SignalAction action;
    if (a[3] != kMaskSize || signal < 1 || signal > kSignals ||
        (a[1] != 0 && (signal_bit(signal) & kUnmaskable) != 0)) {
        return -EINVAL;
    }
    if (a[1] != 0 && !engine::copy_in(&action, a[1], sizeof(action))) {
        return -EFAULT;
    }
    LockGuard guard(process.signal_lock);
    const SignalAction old = process.actions[signal];
    if (a[1] != 0) {
        action.mask &= ~kUnmaskable;
        if (const long error = install(signal, action)) {
            return error;
        }
        process.actions[signal] = action;
    }
    return a[2] == 0 || engine::copy_out(a[2], &old, sizeof(old)) ? 0 : -EFAULT;
}

long do_sigprocmask(Thread& thread, const uint64_t a[6]) {
    uint64_t set = 0;
    const uint64_t old = thread.mask;
    if (a[3] != kMaskSize) {
        return -EINVAL;
    }
    if (a[1] != 0) {
        if (!engine::copy_in(&set, a[1], sizeof(set))) {
            return -EFAULT;
        }
        switch (static_cast<int>(a[0])) {
            case SIG_BLOCK:
                thread.mask |= set & ~kUnmaskable;
                break;
            case SIG_UNBLOCK:
                thread.mask &= ~set;
                break;
            case SIG_SETMASK:
                thread.mask = set & ~kUnmaskable;
                break;
            default:
                return -EINVAL;
        }
        if (thread.mask != old) {
            engine::set_signal_mask(thread.mask);
        }
    }
    return a[2] == 0 || engine::copy_out(a[2], &old, sizeof(old)) ? 0 : -EFAULT;
}

// Calls that wait with another mask: `which` is the argument with its address, the next its size.
long with_mask(Call& call, unsigned which) {
    uint64_t mask;
    if (call.args[which] == 0) {
        return pass(call);
    }
    if (call.args[which + 1] != kMaskSize) {
        return -EINVAL;
    }
    if (!engine::copy_in(&mask, call.args[which], sizeof(mask))) {
        return -EFAULT;
    }
    call.args[which] = reinterpret_cast<uint64_t>(&mask);
    const long result = pass(call);
    if (result == -EINTR) {
        // The handler runs with this mask, too, and the old one is back after it.
        call.thread.temp_mask = mask & ~kUnmaskable;
        call.thread.has_temp_mask = true;
    }
    return result;
}

// A signal to the process that a descriptor stands for, which may have come from anywhere.
long send_by_descriptor(Call& call) {
    LockGuard guard(process.fd_lock);
    const long error = check_pidfd(static_cast<uint32_t>(call.args[0]));
    return error != 0 ? error
                      : host_call(SYS_pidfd_send_signal, call.args[0], call.args[1], call.args[2],
                                  call.args[3]);
}

long kill_group(const Call& call, int64_t group) {
    const uint64_t signal = call.args[1];
    if (is_our_group(group)) {
        return pass(call);
    }
    return signal > kSignals ? -EINVAL : signal_our_part(group, signal);
}

// A signal sent by number.
long do_send(Call& call) {
    const int64_t pid = static_cast<int>(call.args[0]);
    switch (call.number) {
        case SYS_tkill:
            return host_call(SYS_tgkill, process.pid, call.args[0], call.args[1]);
        case SYS_pidfd_send_signal:
            return send_by_descriptor(call);
        case SYS_pidfd_open:
            return whose_process(pid) != Whose::Foreign ? pass(call) : -EPERM;
        default:
            break;
    }
    if (pid == 0 || pid < -1) {
        return call.number == SYS_kill ? kill_group(call, -pid) : -EPERM;
    }
    switch (whose_process(pid)) {
        case Whose::Ours:
            return pass(call);
        case Whose::Ended:
            return host_call(SYS_kill, pid, 0);  // 0 until it has been waited for
        default:
            return -EPERM;
    }
}

long do_sigreturn(Call& call) {
    uint64_t mask;
    if (!pop_signal_frame(call.thread, call.frame, &mask)) {
        die_of(SIGSEGV);
    }
    mask &= ~kUnmaskable;
    if (mask != call.thread.mask) {
        call.thread.mask = mask;
        engine::set_signal_mask(mask);
    }
    return kFrameIsSet;
}

// Back to the kernel, where it stays pending as long as it is masked, or has its default action.
void send_again(const Thread& thread, const siginfo_t& info) {
    host_call(SYS_rt_tgsigqueueinfo, process.pid, thread.tid, info.si_signo, &info);
}

// A call that ended with EINTR is done again after a handler with SA_RESTART, or if there was
// nothing to handle after all.
void restart(Thread& thread, Frame& frame) {
    if (thread.interrupted >= 0 && frame.rax == static_cast<uint64_t>(-EINTR)) {
        frame.rax = static_cast<uint64_t>(thread.interrupted);
        frame.rip -= 2;
    }
    thread.interrupted = -1;
}

// Makes ring 3 enter the handler of a signal.
void deliver(Thread& thread, Frame& frame, const siginfo_t& info, uint64_t trap, uint64_t error,
             uint64_t address) {
    const int signal = info.si_signo;
    process.signal_lock.lock();
    const SignalAction action = process.actions[signal];
    if ((action.flags & static_cast<uint64_t>(SA_RESETHAND)) != 0 && is_handler(action)) {
        process.actions[signal].handler = kDefault;
        install(signal, process.actions[signal]);
    }
    process.signal_lock.unlock();

    leave_critical_section(thread, frame);
    const uint64_t current = thread.has_temp_mask ? thread.temp_mask : thread.mask;
    if (!push_signal_frame(thread, frame, {action, info, thread.mask, trap, error, address})) {
        die_of(SIGSEGV);
    }
    const bool nodefer = (action.flags & static_cast<uint64_t>(SA_NODEFER)) != 0;
    thread.mask = (current | action.mask | (nodefer ? 0 : signal_bit(signal))) & ~kUnmaskable;
    thread.has_temp_mask = false;
    process.stats->signals.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

void prepare_signals(Thread& thread) {
    for (int signal = 1; signal <= kSignals; signal++) {
        host_call(SYS_rt_sigaction, signal, 0, &process.actions[signal], kMaskSize);
    }
    host_call(SYS_rt_sigprocmask, SIG_BLOCK, 0, &thread.mask, kMaskSize);
}

void die_of(int signal) {
    const SignalAction fatal{};
    count_vm_exits();
    const uint64_t mask = ~signal_bit(signal);
    host_call(SYS_rt_sigaction, signal, &fatal, 0, kMaskSize);
    host_call(SYS_tgkill, process.pid, current().tid, signal);
    engine::set_signal_mask(mask);
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, kMaskSize);
    for (;;) {
        host_call(SYS_exit_group, 128 + signal);  // not reached: the signal comes first
    }
}

void queue_signal(Thread& thread, const siginfo_t& info) {
    const unsigned tail = thread.queue_tail.load(std::memory_order_relaxed);
    if (tail - thread.queue_head.load(std::memory_order_relaxed) < Thread::kQueue) {
        thread.queue[tail % Thread::kQueue] = info;
        thread.queue_tail.store(tail + 1, std::memory_order_release);
    }
}

void on_signals(Thread& thread, Frame& frame) {
    const uint64_t mask = thread.mask;
    bool handled = false;
    while (thread.has_signals()) {
        const unsigned head = thread.queue_head.load(std::memory_order_relaxed);
        const siginfo_t info = thread.queue[head % Thread::kQueue];
        thread.queue_head.store(head + 1, std::memory_order_release);
        const uint64_t current = thread.has_temp_mask ? thread.temp_mask : thread.mask;
        const SignalAction& action = process.actions[info.si_signo];
        if (!is_handler(action) || (current & signal_bit(info.si_signo)) != 0) {
            send_again(thread, info);
            continue;
        }
        if (!handled && (action.flags & SA_RESTART) != 0) {
            restart(thread, frame);
        }
        deliver(thread, frame, info, 0, 0, 0);
        handled = true;
    }
    if (!handled) {
        restart(thread, frame);
    }
    thread.has_temp_mask = false;
    if (thread.mask != mask) {
        engine::set_signal_mask(thread.mask);
    }
}

void on_fault(Thread& thread, Frame& frame, const siginfo_t& info, uint64_t trap, uint64_t error) {
    const int signal = info.si_signo;
    if (!is_handler(process.actions[signal]) || (thread.mask & signal_bit(signal)) != 0) {
        die_of(signal);
    }
    deliver(thread, frame, info, trap, error, reinterpret_cast<uint64_t>(info.si_addr));
    engine::set_signal_mask(thread.mask);
}

long do_signals(Call& call) {
    switch (call.number) {
        case SYS_rt_sigaction:
            return do_sigaction(call.args);
        case SYS_rt_sigprocmask:
            return do_sigprocmask(call.thread, call.args);
        case SYS_rt_sigreturn:
            return do_sigreturn(call);
        case SYS_sigaltstack:
            return do_sigaltstack(call.thread, call.frame, call.args[0], call.args[1]);
        case SYS_rt_sigsuspend:
            return with_mask(call, 0);
        case SYS_ppoll:
            return with_mask(call, 3);
        case SYS_epoll_pwait:
            return with_mask(call, 4);
        case SYS_epoll_pwait2:
            return with_mask(call, 4);
        case SYS_rt_sigtimedwait:
        case SYS_signalfd:
        case SYS_signalfd4:
            return pass(call);
        case SYS_kill:
        case SYS_tkill:
        case SYS_tgkill:
        case SYS_rt_sigqueueinfo:
        case SYS_rt_tgsigqueueinfo:
        case SYS_pidfd_send_signal:
        case SYS_pidfd_open:
            return do_send(call);
        default:
            return -ENOSYS;
    }
}

}  // namespace dune::sandbox
