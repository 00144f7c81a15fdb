// SPDX-License-Identifier: MIT
// dune_init(), dune_enter(), dune_leave().
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cerrno>

#include "fork.h"
#include "fpu_area.h"
#include "gates.h"
#include "process.h"
#include "signals.h"
#include "sys.h"
#include "trap.h"

extern "C" {
int dune_enter_guest(dune::rt::Thread* thread, std::uint64_t trampoline_stack,
                     std::uint64_t rflags);
long dune_hypercall_leave();
extern const char dune_gate_start[], dune_gate_end[];
}

namespace dune::rt {

constinit Process process = {.device = -1,
                             .pid = 0,
                             .map_full = false,
                             .fast_entry = false,
                             .large_pages = false,
                             .info = {}};

namespace {

std::uint64_t fs_base() noexcept {
    std::uint64_t base = 0;
    constexpr int kArchGetFs = 0x1003;
    sys(SYS_arch_prctl, kArchGetFs, &base);
    return base;
}

/** Everything that ring 0 of this thread starts with, but where. */
void fill_page(Thread& thread) noexcept {
    dune_vcpu_page& page = *thread.page;
    page.cr3 = pgroot_cr3();
    page.fs_base = fs_base();
    page.gs_base = reinterpret_cast<std::uint64_t>(&thread);
    page.cr0 = process.info.cr0_initial;
    page.cr4 = process.info.cr4_initial | (protect_bits() & process.info.cr4_guest_bits);
    page.lstar = lstar();
    page.gate_start = reinterpret_cast<std::uint64_t>(dune_gate_start);
    page.gate_end = reinterpret_cast<std::uint64_t>(dune_gate_end);
    page.pending_any = 0;
    for (auto& word : page.pending)
        word = 0;
    page.flags = DUNE_RUN_FAST;
    page.set = DUNE_SET_ALL;
    thread.kernel_fs = page.fs_base;
}

/** The calling thread's area, fit for a vCPU of its own. */
Thread* prepare_thread() noexcept {
    Thread* thread = current();
    const int tid = static_cast<int>(sys(SYS_gettid));
    if (thread != nullptr && thread->tid != tid) {
        // A forked child: the area is a copy of the parent's, whose file is not ours to use.
        thread_forget_vcpu(*thread);
    }
    if (thread == nullptr)
        thread = thread_create();
    if (thread == nullptr)
        return nullptr;
    thread->tid = tid;
    thread->pid = process.pid;
    thread_reset(*thread);
    return thread;
}

/** Ring 0 must be able to use these without a fault: they are what faults are handled with. */
int map_thread(const Thread& thread) noexcept {
    const auto map = [](std::uintptr_t va) {
        return ring0_map_slot(pgroot, static_cast<std::uint32_t>(va >> DUNE_SLOT_SHIFT));
    };
    const auto first = reinterpret_cast<std::uintptr_t>(thread.map);
    int ret = map(first);
    if (ret == 0)
        ret = map(first + thread.map_size - 1);
    if (ret == 0)
        ret = map(reinterpret_cast<std::uintptr_t>(thread.page));
    if (ret == 0)  // and its stack, though that can be found missing later
        ret = map(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
    return ret;
}

}  // namespace

int enter(std::uint64_t rflags) noexcept {
    if (dune_in_guest())
        return 0;
    if (process.device < 0)
        return -EPERM;
    if (sys(SYS_getpid) != process.pid) {
        threads_forget();
        if (const int ret = device_reopen(); ret != 0)
            return ret;
    }
    Thread* const thread = prepare_thread();
    if (thread == nullptr)
        return -ENOMEM;
    if (current() == nullptr)
        thread_watch_end(*thread);
    set_current(thread);
    int ret = thread->vcpu_fd >= 0 ? 0 : vcpu_open(*thread);
    if (ret == 0)
        ret = map_thread(*thread);
    if (ret != 0)
        return ret;
    fill_page(*thread);
    signals_enter(*thread);
    threads_add(*thread);
    thread->active = true;
    return dune_enter_guest(thread, thread->trampoline_stack, rflags);
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

int dune_init(bool map_full) {
    if (process.device >= 0)
        return 0;
    int ret = device_open();
    if (ret != 0)
        return ret;
    process.map_full = map_full;
    fpu_detect();
    process.fast_entry = fast_entry_possible();
    ret = ring0_map_init();
    if (ret != 0) {
        sys(SYS_close, process.device);
        process.device = -1;
        return ret;
    }
    traps_init(process.fast_entry);
    signals_init();
    fork_init();
    threads_init();
    return 0;
}

int dune_enter(void) {
    return enter(RFLAGS_RING0 | RFLAGS_IF);
}

int dune_leave(void) {
    if (!dune_in_guest())
        return -EPERM;
    return static_cast<int>(dune_hypercall_leave());
}

}  // extern "C"
