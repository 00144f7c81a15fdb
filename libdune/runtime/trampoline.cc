// SPDX-License-Identifier: MIT
/*
 * The host-mode side of a thread in Dune mode: the loop of host.S enters the guest, and does
 * ordinary system calls for it; here is what else happens. It runs on a stack of its own, so that
 * frames of Linux signals never come onto the program's. Compiled without vector registers: they
 * are the guest's.
 */
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>

#include "fork.h"
#include "process.h"
#include "signals.h"
#include "sys.h"
#include "trap.h"

extern "C" {
[[noreturn]] void dune_resume_host(const void* context);
long dune_host_fork(const dune::rt::HostContext* context, long nr, void (*child)() noexcept);
long dune_host_clone_thread(const dune_regs* regs, long nr);
long dune_host_clone_process(const dune_regs* regs, long nr);
[[noreturn]] void dune_host_exit_thread(void* stack, std::size_t len, int status);
[[noreturn]] void dune_host_exit_kept(std::uint32_t* occupied, int status);
extern const char dune_lstar_done[], dune_lstar_restart[];
extern const char dune_passthrough_done[], dune_passthrough_restart[];
extern const char dune_interruptible_done[], dune_interruptible_restart[];
}

namespace dune::rt {
namespace {

// Results that the kernel keeps to itself (include/linux/errno.h).
constexpr int kRestartSys = 512;
constexpr int kRestartNoIntr = 513;

std::uint64_t address(const char* label) noexcept {
    return reinterpret_cast<std::uint64_t>(label);
}

/** What the loop does next. */
enum Next : int {
    kRun = 0,     ///< run the guest
    kLook = 1,    ///< look at the exit: it ran
    kDoCall = 2,  ///< do the system call, though a signal waits
};

/** The thread was off its CPU, or may have been: the monitor of ring 3 may want to know. */
void disturbed(Thread& thread) noexcept {
    if (!thread.watches_resumes)
        return;
    thread.disturbed = true;
    // What makes calls looks at it before it returns to ring 3; else ring 3 itself was interrupted.
    if (thread.in_callback)
        return;
    __atomic_fetch_or(&thread.page->pending[kResumeVector / 64], 1ULL << (kResumeVector % 64),
                      __ATOMIC_RELEASE);
    __atomic_store_n(&thread.page->pending_any, 1, __ATOMIC_RELEASE);
}

/** In host mode, the CPU and its node: as the vDSO finds it out. */
std::uint32_t cpu_node() noexcept {
    std::uint32_t limit = 0;
    asm volatile("lsl %1, %0" : "+r"(limit) : "r"(SEL_CPU_NODE) : "cc");
    return limit;
}

/** Is a signal among the interrupts that wait? */
bool signal_waits(const dune_vcpu_page& page) noexcept {
    std::uint64_t any = 0;
    for (unsigned i = 0; i < 4; ++i)
        any |= page.pending[i] &
               ~(i == kResumeVector / 64 ? std::uint64_t{1} << (kResumeVector % 64) : 0);
    return any != 0;
}

/** Run by a way in that neither a tracer nor a filter of system calls sees. */
Next run_by_door(Thread& thread) noexcept {
    dune_vcpu_page& page = *thread.page;
    if (const std::uint32_t now = cpu_node(); now != thread.cpu_node)
        thread_moved(thread, now);
    if (page.pending_any == 0)
        page.flags |= DUNE_RUN_FAST;
    page.exit = 0;
    asm volatile("mov (%%rax), %%al" ::"a"(thread.door_map) : "memory");
    if (page.exit != 0)
        return kLook;
    const long ret =
        host_syscall(SYS_lseek, thread.vcpu_fd, static_cast<long>(DUNE_RUN), SEEK_DATA, 0, 0, 0);
    if (page.exit == 0) {
        complain("the kernel module refuses to run this thread (error %ld)", -ret);
        sys(SYS_exit_group, 1);
    }
    return kLook;
}

/** Where the guest goes on, as the program sees it: not within the library's SYSCALL entry. */
HostContext program_context(const dune_vcpu_page& page) noexcept {
    HostContext context = {.regs = page.regs, .rip = page.rip, .rflags = page.rflags};
    if (page.rip == address(dune_lstar_done)) {
        context.rip = page.regs.rcx;
        context.rflags = page.regs.r11;
    }
    return context;
}

void go_to(dune_vcpu_page& page, std::uint64_t rip) noexcept {
    page.rip = rip;
    page.set |= DUNE_SET_RIP;
}

/** Have the guest make the call again: a signal's handler comes first. */
void repeat_call(dune_vcpu_page& page) noexcept {
    constexpr std::uint64_t kVmcallLength = 3;
    if (page.rip == address(dune_lstar_done))
        go_to(page, address(dune_lstar_restart));
    else if (page.rip == address(dune_passthrough_done))
        go_to(page, address(dune_passthrough_restart));
    else if (page.rip == address(dune_interruptible_done))
        go_to(page, address(dune_interruptible_restart));
    else
        go_to(page, page.rip - kVmcallLength);
}

/** An ordinary call while a signal waits. */
Next do_syscall(Thread& thread) noexcept {
    dune_vcpu_page& page = *thread.page;
    if (page.pending_any == 0)
        return kLook;
    if (!takes_interrupts(page))
        return kDoCall;
    // Was it tried in the module? Then this is the signal that ended it.
    const bool interrupted = signal_waits(page) && page.restart != 0 &&
                             page.restart != kRestartNoIntr &&
                             !(page.restart == kRestartSys && thread.signal.restart);
    if (interrupted)
        page.regs.rax = static_cast<std::uint64_t>(-EINTR);
    else
        repeat_call(page);
    return kRun;
}

/** Linux' struct clone_args, as far as it is looked at. */
struct CloneArgs {
    std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

/** What a call that makes a thread or a process says about the child's memory. */
struct Birth {
    std::uint64_t flags;
    std::uint64_t stack;  // the child's stack pointer, 0: the parent's
};

Birth birth_of(const dune_regs& regs) noexcept {
    switch (regs.rax) {
        case SYS_clone:
            return {regs.rdi, regs.rsi};
        case SYS_clone3: {
            CloneArgs args = {};
            struct {
                void* base;
                std::size_t len;
            } local = {&args, sizeof(args)},
              remote = {reinterpret_cast<void*>(regs.rdi), sizeof(args)};
            const long pid = sys(SYS_getpid);
            const long got = sys(SYS_process_vm_readv, pid, &local, 1, &remote, 1);
            if (got < 0 && got != -EFAULT)  // forbidden by a filter: read it as it is
                args = *reinterpret_cast<const CloneArgs*>(regs.rdi);
            return {args.flags, args.stack == 0 ? 0 : args.stack + args.stack_size};
        }
        case SYS_vfork:
            return {CLONE_VM | CLONE_VFORK, 0};
        default:
            return {0, 0};
    }
}

/** Host mode's FS base becomes the guest's for a while, if they differ: children inherit it. */
class ChildFsBase {
  public:
    explicit ChildFsBase(const Thread& thread, std::uint64_t flags) noexcept {
        sys(SYS_arch_prctl, kGetFs, &before_);
        differ_ = (flags & CLONE_SETTLS) == 0 && guest_fs(thread) != before_;
        if (differ_)
            sys(SYS_arch_prctl, kSetFs, guest_fs(thread));
    }
    ~ChildFsBase() {
        if (differ_)
            sys(SYS_arch_prctl, kSetFs, before_);
    }
    ChildFsBase(const ChildFsBase&) = delete;
    ChildFsBase& operator=(const ChildFsBase&) = delete;

  private:
    static constexpr int kGetFs = 0x1003, kSetFs = 0x1002;
    static std::uint64_t guest_fs(const Thread& thread) noexcept { return thread.kernel_fs; }
    std::uint64_t before_ = 0;
    bool differ_ = false;
};

void do_clone(Thread& thread) noexcept {
    dune_vcpu_page& page = *thread.page;
    if (page.pending_any != 0 && takes_interrupts(page)) {
        repeat_call(page);
        return;
    }
    const auto nr = static_cast<long>(page.regs.rax);
    const Birth birth = birth_of(page.regs);
    if ((birth.flags & CLONE_VM) != 0 && (birth.flags & CLONE_VFORK) == 0 && birth.stack == 0) {
        page.regs.rax = static_cast<std::uint64_t>(-EINVAL);  // two threads on one stack
        return;
    }
    // The page is not the child's to read.
    thread.child = program_context(page);
    const ChildFsBase fs(thread, birth.flags);
    const bool own_memory = (birth.flags & CLONE_VM) == 0;
    const ForkGuard guard(own_memory);
    long ret = 0;
    if (birth.stack != 0) {
        reinterpret_cast<std::uint64_t*>(birth.stack)[-1] = thread.child.rip;
        ret =
            (own_memory ? dune_host_clone_process : dune_host_clone_thread)(&thread.child.regs, nr);
    } else {
        thread.child.regs.rax = 0;
        ret = dune_host_fork(&thread.child, nr, own_memory ? dune_fork_child : nullptr);
    }
    page.regs.rax = static_cast<std::uint64_t>(ret);
}

[[noreturn]] void exit_thread(Thread& thread, int status) noexcept {
    const std::uint64_t all = ~std::uint64_t{0};
    sys_sigprocmask(SIG_BLOCK, &all, nullptr);
    threads_remove(thread);
    thread_drop_vcpu(thread);
    set_current(nullptr);
    if (thread_keep(thread, true))
        dune_host_exit_kept(&thread.occupied, status);
    dune_host_exit_thread(thread.map, thread.map_size, status);
}

Next handle_syscall(Thread& thread) noexcept {
    disturbed(thread);
    dune_regs& regs = thread.page->regs;
    switch (regs.rax) {
        case SYS_fork:
        case SYS_vfork:
        case SYS_clone:
        case SYS_clone3:
            do_clone(thread);
            return kRun;
        case SYS_exit:
            exit_thread(thread, static_cast<int>(regs.rdi));
        case SYS_rt_sigreturn:
            // There is no frame of Linux' to return from: handlers return to the library.
            regs.rax = static_cast<std::uint64_t>(-ENOSYS);
            return kRun;
        default:
            return do_syscall(thread);
    }
}

/** To host mode, unless the handler of a signal comes first. */
Next leave(Thread& thread) noexcept {
    dune_vcpu_page& page = *thread.page;
    if (page.pending_any != 0 && takes_interrupts(page)) {
        repeat_call(page);
        return kRun;
    }
    threads_remove(thread);
    __atomic_store_n(&thread.active, false, __ATOMIC_SEQ_CST);
    signals_leave(thread);
    dune_resume_host(&page);
}

}  // namespace

bool takes_interrupts(const dune_vcpu_page& page) noexcept {
    if (page.rip == address(dune_interruptible_done))
        return true;
    if (page.rip == address(dune_lstar_done))
        return (page.regs.r11 & RFLAGS_IF) != 0;
    if (page.rip == address(dune_passthrough_done))  // rbx is the frame: gate.S
        return (reinterpret_cast<const dune_tf*>(page.regs.rbx)->rflags & RFLAGS_IF) != 0;
    return (page.rflags & RFLAGS_IF) != 0;
}

}  // namespace dune::rt

extern "C" {

/** The guest ran, or tried to, and no ordinary system call is the outcome. */
__attribute__((visibility("hidden"))) int dune_trampoline_other(dune::rt::Thread* thread) {
    using namespace dune::rt;
    switch (thread->page->exit) {
        case DUNE_EXIT_SYSCALL:
            return handle_syscall(*thread);
        case DUNE_EXIT_LEAVE:
            return leave(*thread);
        case DUNE_EXIT_DEATH:
            report_death(thread->page);
        case DUNE_EXIT_BOUNCE:
            disturbed(*thread);
            // What made it bounce without a step may do so for ever on a way in that sleeps.
            return thread->page->progress == 0 ? run_by_door(*thread) : kRun;
        default:  // LSEEK did nothing
            return run_by_door(*thread);
    }
}

/** Linux did a call, and may have had the thread wait. */
__attribute__((visibility("hidden"))) void dune_trampoline_disturbed(dune::rt::Thread* thread) {
    dune::rt::disturbed(*thread);
}

/** The thread is on another CPU than when the guest was entered last. */
__attribute__((visibility("hidden"))) void dune_trampoline_moved(dune::rt::Thread* thread,
                                                                 std::uint32_t cpu_node) {
    dune::rt::thread_moved(*thread, cpu_node);
    dune::rt::disturbed(*thread);
}

/** A signal came before the call was made, or made Linux restart it. */
__attribute__((visibility("hidden"))) void dune_trampoline_repeat(dune::rt::Thread* thread) {
    dune::rt::repeat_call(*thread->page);
}

}  // extern "C"
