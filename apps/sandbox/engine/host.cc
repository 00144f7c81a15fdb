// SPDX-License-Identifier: MIT
//
// The engine of the tests: the monitor on an ordinary Linux, without VT-x. The program runs as the
// host runs any code; its system calls come to the monitor through Linux' syscall user dispatch,
// since all code of the runtime lies above kUserEnd. Nothing protects the runtime from the program
// here: this engine is for testing the monitor, and is not installed.

#include <errno.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>

#include <atomic>

#include "monitor/dispatch.h"
#include "monitor/engine.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

extern "C" {
// long host_window(number, args, head, tail): the call, unless *head != *tail right before it.
long host_window(long number, const uint64_t* args, const void* head, const void* tail);
extern char host_window_begin[], host_window_end[], host_window_abort[];
[[noreturn]] void host_enter(const dune::sandbox::Frame* frame, uint64_t fs_base, bool* in_monitor);
void host_restorer();
}

asm(R"(
    .text
    .globl host_window
host_window:
    push %rbx
    push %r12
    push %r13
    mov %rdi, %rax
    mov %rsi, %rbx
    mov %rdx, %r12
    mov %rcx, %r13
    mov (%rbx), %rdi
    mov 8(%rbx), %rsi
    mov 16(%rbx), %rdx
    mov 24(%rbx), %r10
    mov 32(%rbx), %r8
    mov 40(%rbx), %r9
    .globl host_window_begin
host_window_begin:
    mov (%r12), %ecx
    cmp (%r13), %ecx
    jne host_window_abort
    syscall
    .globl host_window_end
host_window_end:
    pop %r13
    pop %r12
    pop %rbx
    ret
    .globl host_window_abort
host_window_abort:
    mov $-513, %rax
    pop %r13
    pop %r12
    pop %rbx
    ret

    .globl host_enter
host_enter:
    wrfsbase %rsi
    movb $0, (%rdx)
    mov 152(%rdi), %rsp
    sub $128, %rsp
    push 128(%rdi)
    mov 8(%rdi), %rsi
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rcx
    mov 32(%rdi), %r8
    mov 40(%rdi), %r9
    mov 48(%rdi), %r10
    mov 56(%rdi), %r11
    mov 64(%rdi), %rbx
    mov 72(%rdi), %rbp
    mov 80(%rdi), %r12
    mov 88(%rdi), %r13
    mov 96(%rdi), %r14
    mov 104(%rdi), %r15
    mov 112(%rdi), %rax
    mov (%rdi), %rdi
    ret $128

    .globl host_restorer
host_restorer:
    mov $15, %eax
    syscall
)");

namespace dune::sandbox {

namespace {

constexpr size_t kStackSize = 512 << 10;

// What the GS base points to while the engine is in use.
struct HostThread {
    uint64_t runtime_fs;
    Thread* thread;
    bool in_monitor;
    ucontext_t* context;  // of the system call or fault that the monitor is in for
    uint64_t user_fs, user_gs;
    std::atomic<int> tid;
};

HostThread* host() {
    HostThread* self;
    asm volatile("rdgsbase %0" : "=r"(self));
    return self;
}

constexpr int kGregs[] = {REG_RDI, REG_RSI, REG_RDX, REG_RCX, REG_R8,  REG_R9,  REG_R10, REG_R11,
                          REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX};

void load_frame(Frame& frame, const ucontext_t& context) {
    const greg_t* gregs = context.uc_mcontext.gregs;
    uint64_t* at = &frame.rdi;
    for (const int greg : kGregs) {
        *at++ = static_cast<uint64_t>(gregs[greg]);
    }
    frame.err = 0;
    frame.rip = static_cast<uint64_t>(gregs[REG_RIP]);
    frame.rflags = static_cast<uint64_t>(gregs[REG_EFL]);
    frame.rsp = static_cast<uint64_t>(gregs[REG_RSP]);
}

void store_frame(ucontext_t& context, const Frame& frame) {
    greg_t* gregs = context.uc_mcontext.gregs;
    const uint64_t* at = &frame.rdi;
    for (const int greg : kGregs) {
        gregs[greg] = static_cast<greg_t>(*at++);
    }
    gregs[REG_RIP] = static_cast<greg_t>(frame.rip);
    gregs[REG_EFL] = static_cast<greg_t>(frame.rflags);
    gregs[REG_RSP] = static_cast<greg_t>(frame.rsp);
}

void dispatch_on() {
    host_call(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, kUserEnd,
              (1ull << 47) - kUserEnd, 0);
}

bool is_fault(int signal, const siginfo_t& info) {
    return info.si_code > 0 && info.si_code != SI_KERNEL + 0
               ? signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
                     signal == SIGTRAP
               : info.si_code == SI_KERNEL && (signal == SIGSEGV || signal == SIGTRAP);
}

// From ring 3: a system call, a fault or a signal.
[[gnu::noinline]] void from_program(HostThread& self, int signal, const siginfo_t& info,
                                    ucontext_t& context) {
    Thread& thread = *self.thread;
    Frame frame;
    self.in_monitor = true;
    self.context = &context;
    load_frame(frame, context);
    if (signal == SIGSYS) {
        engine::set_signal_mask(thread.mask);
        on_syscall(thread, frame);
    } else if (is_fault(signal, info)) {
        on_fault(thread, frame, info, static_cast<uint64_t>(context.uc_mcontext.gregs[REG_TRAPNO]),
                 static_cast<uint64_t>(context.uc_mcontext.gregs[REG_ERR]));
    } else {
        queue_signal(thread, info);
    }
    const uint64_t all = ~0ull;
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof(all));
    if (thread.has_signals()) {
        on_signals(thread, frame);
        host_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof(all));
    }
    store_frame(context, frame);
    const uint64_t mask = thread.mask & ~signal_bit(SIGSYS);  // SIGSYS is the engine's
    memcpy(&context.uc_sigmask, &mask, sizeof(mask));
    self.in_monitor = false;
}

// The one handler of the host. The FS base may be the program's.
void on_host_signal(int signal, siginfo_t* info, void* raw) {
    HostThread& self = *host();
    const uint64_t fs = _readfsbase_u64();
    _writefsbase_u64(self.runtime_fs);
    auto& context = *static_cast<ucontext_t*>(raw);
    greg_t& rip = context.uc_mcontext.gregs[REG_RIP];
    if (self.in_monitor) {
        queue_signal(*self.thread, *info);
        const auto at = reinterpret_cast<const char*>(rip);
        if (at >= host_window_begin && at < host_window_end) {
            rip = reinterpret_cast<greg_t>(host_window_abort);
        }
        _writefsbase_u64(fs);
        return;
    }
    self.user_fs = fs;
    from_program(self, signal, *info, context);
    _writefsbase_u64(self.user_fs);
}

long install_handler(int signal, uint64_t flags, uint64_t mask) {
    constexpr uint64_t kRestorer = 0x04000000;  // SA_RESTORER
    const SignalAction action{reinterpret_cast<uint64_t>(&on_host_signal),
                              flags | SA_SIGINFO | SA_ONSTACK | kRestorer,
                              reinterpret_cast<uint64_t>(&host_restorer), mask};
    return host_call(SYS_rt_sigaction, signal, &action, 0, sizeof(mask));
}

HostThread* make_host_thread(Thread& thread) {
    void* const memory = mmap(nullptr, kStackSize + kPageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    auto* const self = static_cast<HostThread*>(memory);
    self->thread = &thread;
    self->in_monitor = true;
    thread.engine = self;
    return self;
}

void adopt(HostThread& self) {
    stack_t stack{};
    stack.ss_sp = reinterpret_cast<uint8_t*>(&self) + kPageSize;
    stack.ss_size = kStackSize;
    host_call(SYS_sigaltstack, &stack, 0);
    self.runtime_fs = _readfsbase_u64();
    _writegsbase_u64(reinterpret_cast<uint64_t>(&self));
    dispatch_on();
}

void* thread_main(void* raw) {
    auto& self = *static_cast<HostThread*>(raw);
    adopt(self);
    on_thread_start(*self.thread);
    self.tid.store(self.thread->tid);
    host_call(SYS_futex, &self.tid, FUTEX_WAKE_PRIVATE, 1);
    host_enter(&self.thread->frame, self.thread->start_fs, &self.in_monitor);
}

}  // namespace

Thread& current() {
    return *host()->thread;
}

namespace engine {

int start() {
    install_handler(SIGSYS, SA_NODEFER, 0);
    return 0;
}

void enter(Thread& thread) {
    HostThread* const self = make_host_thread(thread);
    if (self == nullptr) {
        host_call(SYS_exit_group, 125);
    }
    adopt(*self);
    host_enter(&thread.frame, thread.start_fs, &self->in_monitor);
}

long spawn(Thread& thread) {
    HostThread* const self = make_host_thread(thread);
    if (self == nullptr) {
        return -EAGAIN;
    }
    const uint64_t all = ~0ull;
    uint64_t mask;
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof(all));
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_t id;
    const int error = pthread_create(&id, &attributes, thread_main, self);
    while (error == 0 && self->tid.load() == 0) {
        host_call(SYS_futex, &self->tid, FUTEX_WAIT_PRIVATE, 0, 0);
    }
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(all));
    return error != 0 ? -EAGAIN : self->tid.load();
}

void exit_thread(int status) {
    for (;;) {
        host_call(SYS_exit, status);
    }
}

long fork(uint64_t flags) {
    const long pid = host_call(SYS_clone, flags, 0, 0, 0, 0);
    if (pid == 0) {
        dispatch_on();
    }
    return pid;
}

bool copy_in(void* to, uint64_t from, size_t length) {
    const iovec local{to, length};
    const iovec remote{reinterpret_cast<void*>(from), length};
    return in_user(from, length) &&
           (length == 0 || host_call(SYS_process_vm_readv, process.pid, &local, 1, &remote, 1, 0) ==
                               static_cast<long>(length));
}

bool copy_out(uint64_t to, const void* from, size_t length) {
    const iovec local{const_cast<void*>(from), length};
    const iovec remote{reinterpret_cast<void*>(to), length};
    return in_user(to, length) &&
           (length == 0 || host_call(SYS_process_vm_writev, process.pid, &local, 1, &remote, 1,
                                     0) == static_cast<long>(length));
}

// Linux does not tell when it resumes a thread, so there is no rseq here.
bool watch_resumes(bool) {
    return false;
}

uint32_t cpu() {
    return 0;
}

bool compare_exchange(uint64_t word, uint32_t from, uint32_t to, uint32_t* seen) {
    uint32_t probe;
    if (!copy_in(&probe, word, sizeof(probe)) || word % sizeof(probe) != 0) {
        return false;
    }
    *seen = from;
    reinterpret_cast<std::atomic<uint32_t>*>(word)->compare_exchange_strong(*seen, to);
    return true;
}

uint64_t fs_base() {
    return host()->user_fs;
}
void set_fs_base(uint64_t base) {
    host()->user_fs = base;
}
uint64_t gs_base() {
    return host()->user_gs;
}
void set_gs_base(uint64_t base) {
    host()->user_gs = base;
}

Xstate xstate() {
    auto* const area = reinterpret_cast<uint8_t*>(host()->context->uc_mcontext.fpregs);
    uint32_t magic;
    memcpy(&magic, area + 464, sizeof(magic));
    if (magic != 0x46505853) {
        return {area, 512, 3};
    }
    uint64_t features;
    uint32_t size;
    memcpy(&features, area + 472, sizeof(features));
    memcpy(&size, area + 480, sizeof(size));
    return {area, size, features};
}

long blocking_call(long number, const uint64_t args[6]) {
    Thread& thread = *host()->thread;
    return host_window(number, args, &thread.queue_head, &thread.queue_tail);
}

long catch_signal(int signal, uint64_t flags) {
    return install_handler(signal, flags, ~0ull);
}

long leave_signal(int signal, const void* action) {
    // SIGSYS is how system calls come here.
    return signal == SIGSYS ? 0 : host_call(SYS_rt_sigaction, signal, action, 0, sizeof(uint64_t));
}

void set_signal_mask(uint64_t mask) {
    mask &= ~signal_bit(SIGSYS);
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(mask));
}

uint64_t vm_exits() {
    return 0;
}

uint64_t vdso() {
    return getauxval(AT_SYSINFO_EHDR);
}

}  // namespace engine

}  // namespace dune::sandbox
