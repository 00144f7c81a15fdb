// SPDX-License-Identifier: MIT
// dune/user.h: monitors of ring 3.
#include <sched.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "../mm/backing.h"
#include "../mm/fault.h"
#include "dune/user.h"
#include "fpu_area.h"
#include "process.h"
#include "signal_table.h"
#include "trap.h"

extern "C" long dune_interruptible_call(long nr, const std::uint64_t* args) noexcept;

namespace dune::user {
namespace {

Monitor monitor;

/**
 * While a callback runs, the trampoline but notes that the thread was disturbed: an interrupt that
 * waits would make calls end early. It becomes one as soon as nobody looks at the note any more.
 */
class Callback {
  public:
    explicit Callback(dune_tf& frame) noexcept : frame_(frame), thread_(*rt::self()) { set(true); }
    ~Callback() {
        for (;;) {
            if (thread_.disturbed) [[unlikely]] {
                thread_.disturbed = false;
                barrier();
                monitor.resumed(frame_);
                continue;
            }
            set(false);
            if (!thread_.disturbed)
                return;
            set(true);
        }
    }
    Callback(const Callback&) = delete;
    Callback& operator=(const Callback&) = delete;

  private:
    /** The trampoline is the same thread. */
    static void barrier() noexcept { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
    void set(bool in_callback) noexcept {
        barrier();
        thread_.in_callback = in_callback;
        barrier();
    }
    dune_tf& frame_;
    rt::Thread& thread_;
};

void on_syscall(dune_tf* tf) {
    const Callback callback(*tf);
    monitor.syscall(*tf);
}

void on_exception(dune_tf* tf, std::uint64_t vector, void* fpu) noexcept {
    const auto n = static_cast<unsigned>(vector);
    const rt::FaultSignal what = rt::signal_of_exception(n);
    if ((tf->cs & 3) == 0) {  // the monitor's own
        rt::fault_to_signal(tf, fpu, what.sig, what.code, tf->rip, static_cast<int>(n));
        return;
    }
    const Callback callback(*tf);
    monitor.fault(*tf, rt::describe_fault(what.sig, what.code, what.at_instruction ? tf->rip : 0),
                  n);
}

/** By page tables, or by Linux. */
void on_page_fault(std::uintptr_t address, std::uint64_t fec, dune_tf* tf) {
    const rt::FaultSignal what = rt::signal_of_page_fault(address, fec, *tf);
    if ((tf->cs & 3) == 0) {
        rt::default_page_fault(address, fec, tf);
        return;
    }
    if (!rt::is_from_host(*tf) && rt::tables_explain(address, fec) &&
        mm::resolve_fault(mm::backing().current_root(), address, fec) == 0)
        return;
    tf->err = fec;
    const Callback callback(*tf);
    monitor.fault(*tf, rt::describe_fault(what.sig, what.code, address), T_PGFLT);
}

void on_signals(dune_tf* tf, std::uint64_t, void*) noexcept {
    // Callbacks run with interrupts masked: in ring 0 this is code before run(), which looks
    // itself.
    if ((tf->cs & 3) != 0) {
        const Callback callback(*tf);
        monitor.signals_pending(*tf);
    }
}

void on_resume(dune_tf* tf, std::uint64_t, void*) noexcept {
    if ((tf->cs & 3) != 0)
        const Callback callback(*tf);
}

}  // namespace

void set_monitor(const Monitor& wanted) noexcept {
    monitor = wanted;
    dune_register_syscall_handler(on_syscall);
    if (monitor.fault != nullptr) {
        for (unsigned vector = 0; vector < 32; ++vector)
            if (vector != T_PGFLT && vector != T_DBLFLT)
                rt::set_trap_handler(vector, on_exception);
        rt::set_page_fault_handler(on_page_fault, rt::HandlerNeeds::Vectors);
    }
    if (monitor.signals_pending != nullptr)
        rt::set_trap_handler(rt::kMonitorVector, on_signals);
    if (monitor.resumed != nullptr)
        rt::set_trap_handler(rt::kResumeVector, on_resume);
    rt::set_monitor_signal(monitor.signal_arrived);
}

int run(const dune_tf& frame) noexcept {
    if (!dune_in_guest())
        return -EPERM;
    dune_tf copy = frame;
    cli();
    // From here on a signal is an interrupt of ring 3.
    {
        const Callback callback(copy);
        if (monitor.signals_pending != nullptr)
            monitor.signals_pending(copy);
    }
    const int result = dune_jump_to_user(&copy);
    sti();
    return result;
}

long call(long number, const std::uint64_t args[6]) noexcept {
    return dune_interruptible_call(number, args);
}

long fork(std::uint64_t flags) noexcept {
    if ((flags & (CLONE_VM | CLONE_SETTLS)) != 0)
        return -EINVAL;
    const long pid = rt::sys(SYS_clone, flags, 0);
    if (pid == 0 && !dune_in_guest() && rt::enter(RFLAGS_RING0) != 0)
        rt::sys(SYS_exit_group, 127);
    return pid;
}

long catch_signal(int sig, std::uint64_t flags) noexcept {
    return rt::signal_to_monitor(sig, flags);
}

void watch_resumes(bool on) noexcept {
    rt::self()->watches_resumes = on && monitor.resumed != nullptr;
    rt::self()->disturbed = rt::self()->watches_resumes;
}

unsigned cpu() noexcept {
    return *const_cast<const volatile std::uint32_t*>(&rt::self()->cpu_node) & 0xfff;
}

std::uint64_t fs_base() noexcept {
    return rt::self()->user_fs;
}

bool set_fs_base(std::uint64_t base) noexcept {
    if (base >> 47 != 0)
        return false;
    rt::self()->user_fs = base;
    return true;
}

std::uint64_t gs_base() noexcept {
    return rdmsr(MSR_KERNEL_GS_BASE);
}

bool set_gs_base(std::uint64_t base) noexcept {
    if (base >> 47 != 0)
        return false;
    wrmsrl(MSR_KERNEL_GS_BASE, base);
    return true;
}

VectorState vector_state() noexcept {
    std::uint64_t features = 3;
    if (rt::have_xsave()) {
        std::uint32_t low = 0;
        std::uint32_t high = 0;
        asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        features = low | std::uint64_t{high} << 32;
    }
    return {.area = rt::self()->user_fpu, .size = rt::fpu_area_size(), .features = features};
}

bool compare_exchange(std::uint32_t* word, std::uint32_t from, std::uint32_t to,
                      std::uint32_t* seen) noexcept {
    return rt::user_compare_exchange(word, from, to, seen);
}

}  // namespace dune::user
