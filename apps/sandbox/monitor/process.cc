// SPDX-License-Identifier: MIT
//
// Threads and processes: each thread of the program is one of Linux, each process one of Linux, and
// the monitor is in all of them.

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <new>

#include "monitor/dispatch.h"
#include "monitor/exec.h"
#include "monitor/others.h"
#include "monitor/rseq.h"
#include "monitor/signals.h"
#include "monitor/vfork.h"

namespace dune::sandbox {

namespace {

// clone(2) and clone3(2) in one form.
struct CloneRequest {
    uint64_t flags;  // without the exit signal
    uint64_t exit_signal;
    uint64_t stack;  // the child's stack pointer, 0: as the parent's
    uint64_t parent_tid, child_tid, tls, pidfd;
};

constexpr uint64_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
constexpr uint64_t kRefusedFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                   CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE |
                                   0x80 /* CLONE_NEWTIME */ | CLONE_INTO_CGROUP;

// Threads that ended, to be used again: a thread cannot free the memory that it runs on.
Thread* free_threads[4096];
unsigned free_count;

Thread* new_thread() {
    if (free_count > 0) {
        return new (free_threads[--free_count]) Thread();
    }
    const long at = host_call(SYS_mmap, 0, sizeof(Thread), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return is_error(at) ? nullptr : new (reinterpret_cast<void*>(at)) Thread();
}

void give_back(Thread* thread) {
    if (free_count < std::size(free_threads)) {
        free_threads[free_count++] = thread;
    }
}

// What a child starts with.
void set_child_frame(Frame& frame, const CloneRequest& request) {
    frame.rax = 0;
    if (request.stack != 0) {
        frame.rsp = request.stack;
    }
}

long make_thread(Call& call, const CloneRequest& request) {
    LockGuard guard(process.thread_lock);
    Thread* const child = new_thread();
    if (child == nullptr) {
        return -EAGAIN;
    }
    child->frame = call.frame;
    set_child_frame(child->frame, request);
    child->start_fs = (request.flags & CLONE_SETTLS) != 0 ? request.tls : engine::fs_base();
    child->mask = call.thread.mask;
    child->clear_tid = (request.flags & CLONE_CHILD_CLEARTID) != 0 ? request.child_tid : 0;
    child->set_tid[0] = (request.flags & CLONE_PARENT_SETTID) != 0 ? request.parent_tid : 0;
    child->set_tid[1] = (request.flags & CLONE_CHILD_SETTID) != 0 ? request.child_tid : 0;
    process.threads.fetch_add(1);
    const long tid = engine::spawn(*child);
    if (is_error(tid)) {
        process.threads.fetch_sub(1);
        give_back(child);
        return tid;
    }
    process.stats->threads.fetch_add(1, std::memory_order_relaxed);
    return tid;
}

// A new process has one thread, and none of the parent's locks is held in it by another.
void begin_process(Thread& thread) {
    process.pid = static_cast<int>(host_call(SYS_getpid));
    thread.tid = process.pid;
    process.threads.store(1);
    free_count = 0;
    new (&process.memory_lock) Lock();
    new (&process.fd_lock) Lock();
    new (&process.signal_lock) Lock();
    new (&process.exec_lock) Lock();
    new (&process.log_lock) Lock();
    thread.robust_list = 0;
    thread.queue_head.store(thread.queue_tail.load());  // pending signals are not inherited
    process.stats->processes.fetch_add(1, std::memory_order_relaxed);
    process.stats->add_process(process.pid);
}

void clear_handlers() {
    for (int signal = 1; signal <= kSignals; signal++) {
        if (process.actions[signal].handler > 1) {
            process.actions[signal] = {};
            host_call(SYS_rt_sigaction, signal, &process.actions[signal], 0, sizeof(uint64_t));
        }
    }
}

long make_process(Call& call, const CloneRequest& request) {
    Thread& thread = call.thread;
    LockGuard guard(process.thread_lock);
    // No address space is shared with another process. A vfork child gets a copy, and the parent
    // waits as ever until it executes a program or ends.
    const uint64_t host_flags =
        request.exit_signal | (request.flags & (CLONE_VFORK | CLONE_PARENT));
    const bool shares = (request.flags & CLONE_VM) != 0;
    if (shares) {
        before_vfork(call.frame.rsp);
    }
    // The monitor's tables must not change under the copy.
    process.memory_lock.lock();
    process.fd_lock.lock();
    process.signal_lock.lock();
    const long pid = engine::fork(host_flags);
    if (pid == 0) {
        begin_process(thread);
        begin_vfork_child(shares);
        if (shares) {
            drop_rseq(thread);
        }
        const uint32_t tid = static_cast<uint32_t>(thread.tid);
        if ((request.flags & CLONE_CHILD_SETTID) != 0) {
            engine::copy_out(request.child_tid, &tid, sizeof(tid));
        }
        if ((request.flags & CLONE_SETTLS) != 0) {
            engine::set_fs_base(request.tls);
        }
        if ((request.flags & CLONE_CLEAR_SIGHAND) != 0) {
            clear_handlers();
        }
        thread.clear_tid = (request.flags & CLONE_CHILD_CLEARTID) != 0 ? request.child_tid : 0;
        set_child_frame(call.frame, request);
        return 0;
    }
    process.signal_lock.unlock();
    process.fd_lock.unlock();
    process.memory_lock.unlock();
    if (shares) {
        after_vfork();
    }
    if (pid > 0) {
        process.stats->add_process(pid);  // it may have ended already, but is not yet waited for
    }
    if (pid > 0 && (request.flags & CLONE_PARENT_SETTID) != 0) {
        const uint32_t tid = static_cast<uint32_t>(pid);
        engine::copy_out(request.parent_tid, &tid, sizeof(tid));
    }
    if (pid > 0 && (request.flags & CLONE_PIDFD) != 0) {
        const int fd = static_cast<int>(host_call(SYS_pidfd_open, pid, 0));
        host_call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
        engine::copy_out(request.pidfd, &fd, sizeof(fd));
    }
    return pid;
}

long do_clone(Call& call, const CloneRequest& request) {
    if ((request.flags & kRefusedFlags) != 0) {
        return -EPERM;
    }
    if ((request.flags & CLONE_THREAD) != 0) {
        return (request.flags & kThreadFlags) == kThreadFlags ? make_thread(call, request)
                                                              : -EINVAL;
    }
    if ((request.flags & CLONE_PARENT) != 0 &&
        whose_process(host_call(SYS_getppid)) != Whose::Ours) {
        return -EPERM;  // somebody outside would get a child that it knows nothing of
    }
    const bool shares = (request.flags & (CLONE_VM | CLONE_SIGHAND)) != 0;
    if ((request.flags & (CLONE_FILES | CLONE_FS)) != 0 ||
        (shares && (request.flags & CLONE_VFORK) == 0)) {
        return -EINVAL;  // tables shared between processes would escape the monitor's locks
    }
    if (request.exit_signal > kSignals) {
        return -EINVAL;
    }
    return make_process(call, request);
}

long do_clone3(Call& call) {
    clone_args args{};
    const uint64_t size = call.args[1];
    if (size < CLONE_ARGS_SIZE_VER0) {
        return -EINVAL;
    }
    if (size > sizeof(args)) {
        return -E2BIG;
    }
    if (!engine::copy_in(&args, call.args[0], size)) {
        return -EFAULT;
    }
    if (args.set_tid_size != 0 || args.exit_signal > kSignals || (args.flags & 0xff) != 0 ||
        (args.stack == 0) != (args.stack_size == 0)) {
        return args.set_tid_size != 0 ? -EPERM : -EINVAL;
    }
    return do_clone(
        call, {args.flags, args.exit_signal, args.stack == 0 ? 0 : args.stack + args.stack_size,
               args.parent_tid, args.child_tid, args.tls, args.pidfd});
}

// ---- the end of a thread ----

// Marks a futex of a robust list whose owner ends (Documentation/locking/robust-futex-ABI.rst).
void abandon_futex(uint32_t tid, uint64_t word) {
    uint32_t value;
    if (!engine::copy_in(&value, word, sizeof(value))) {
        return;
    }
    while ((value & FUTEX_TID_MASK) == tid) {
        uint32_t seen;
        const uint32_t abandoned = (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        if (!engine::compare_exchange(word, value, abandoned, &seen)) {
            return;
        }
        if (seen == value) {
            if ((value & FUTEX_WAITERS) != 0) {
                host_call(SYS_futex, word, FUTEX_WAKE, 1);
            }
            return;
        }
        value = seen;
    }
}

// The kernel would follow the list's pointers wherever they lead; here they are checked.
void abandon_futexes(Thread& thread) {
    struct {
        uint64_t next;
        int64_t offset;
        uint64_t pending;
    } head;
    if (thread.robust_list == 0 || !engine::copy_in(&head, thread.robust_list, sizeof(head))) {
        return;
    }
    const uint32_t tid = static_cast<uint32_t>(thread.tid);
    const uint64_t offset = static_cast<uint64_t>(head.offset);
    uint64_t entry = head.next & ~1ull;
    for (int i = 0; i < ROBUST_LIST_LIMIT && entry != thread.robust_list && entry != 0; i++) {
        uint64_t next;
        if (!engine::copy_in(&next, entry, sizeof(next))) {
            break;
        }
        if (entry != (head.pending & ~1ull)) {
            abandon_futex(tid, entry + offset);
        }
        entry = next & ~1ull;
    }
    if (head.pending != 0) {
        abandon_futex(tid, (head.pending & ~1ull) + offset);
    }
}

[[noreturn]] void do_exit(Call& call) {
    Thread& thread = call.thread;
    if (process.threads.load() == 1) {
        end_vfork_child();
        count_vm_exits();
    } else {
        abandon_futexes(thread);
        host_call(SYS_set_robust_list, 0, sizeof(robust_list_head));
        if (thread.clear_tid != 0) {
            const uint32_t zero = 0;
            if (engine::copy_out(thread.clear_tid, &zero, sizeof(zero))) {
                host_call(SYS_futex, thread.clear_tid, FUTEX_WAKE, 1);
            }
        }
        process.thread_lock.lock();
        process.threads.fetch_sub(1);
        process.thread_lock.unlock();
    }
    engine::exit_thread(static_cast<int>(call.args[0]));
}

long do_robust_list(Call& call) {
    if (call.number == SYS_get_robust_list) {
        const int tid = static_cast<int>(call.args[0]);
        const uint64_t size = sizeof(robust_list_head);
        if (tid != 0 && tid != call.thread.tid) {
            return -EPERM;
        }
        return engine::copy_out(call.args[1], &call.thread.robust_list, sizeof(uint64_t)) &&
                       engine::copy_out(call.args[2], &size, sizeof(size))
                   ? 0
                   : -EFAULT;
    }
    if (call.args[1] != sizeof(robust_list_head)) {
        return -EINVAL;
    }
    if (!starts_in_user(call.args[0])) {
        return -EFAULT;
    }
    call.thread.robust_list = call.args[0];
    return pass(call);
}

}  // namespace

void on_thread_start(Thread& thread) {
    thread.tid = static_cast<int>(host_call(SYS_gettid));
    const uint32_t tid = static_cast<uint32_t>(thread.tid);
    for (const uint64_t address : thread.set_tid) {
        if (address != 0) {
            engine::copy_out(address, &tid, sizeof(tid));
        }
    }
    engine::set_signal_mask(thread.mask);
}

void count_vm_exits() {
    if (process.policy->stats) {
        process.stats->vm_exits.fetch_add(engine::vm_exits(), std::memory_order_relaxed);
    }
}

void release_thread(Thread& thread) {
    LockGuard guard(process.thread_lock);
    give_back(&thread);
}

long do_process(Call& call) {
    const uint64_t* a = call.args;
    switch (call.number) {
        case SYS_clone:
            return do_clone(call, {a[0] & ~0xffull, a[0] & 0xff, a[1], a[2], a[3], a[4], a[2]});
        case SYS_clone3:
            return do_clone3(call);
        case SYS_fork:
            return do_clone(call, {0, SIGCHLD, 0, 0, 0, 0, 0});
        case SYS_vfork:
            return do_clone(call, {CLONE_VFORK | CLONE_VM, SIGCHLD, 0, 0, 0, 0, 0});
        case SYS_execve:
            return do_exec(call, AT_FDCWD, a[0], a[1], a[2]);
        case SYS_execveat: {
            char first;
            if ((a[4] & AT_EMPTY_PATH) != 0 && engine::copy_in(&first, a[1], 1) && first == 0) {
                return do_exec_descriptor(call);
            }
            return (a[4] & ~static_cast<uint64_t>(AT_EMPTY_PATH)) != 0
                       ? -EINVAL
                       : do_exec(call, static_cast<int>(a[0]), a[1], a[2], a[3]);
        }
        case SYS_exit:
            do_exit(call);
        case SYS_exit_group:
            end_vfork_child();
            count_vm_exits();
            return pass(call);
        case SYS_set_tid_address:
            call.thread.clear_tid = a[0];
            return call.thread.tid;
        case SYS_rseq:
            return do_rseq(call);
        case SYS_membarrier:
            return do_membarrier(call);
        default:
            return do_robust_list(call);
    }
}

}  // namespace dune::sandbox
