// SPDX-License-Identifier: MIT
//
// The engine of the product: ring 3 by libdune.
//
// Ring 3 and the runtime share one page table. The runtime's part of it is the supervisor's. The
// program's part is mapped for ring 3 in pages of 1 GiB (or 2 MiB) when something in it is first
// touched, with all rights: what may really be done there the EPT says, which follows Linux' own
// page table. So no mmap, mprotect or munmap of the program changes a page table here.

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "dune/user.h"
#include "libdune/dune.h"
#include "monitor/dispatch.h"
#include "monitor/engine.h"
#include "monitor/fd_limit.h"
#include "runtime/process.h"
#include "runtime/thread.h"

namespace dune::sandbox {

static_assert(sizeof(Frame) == sizeof(dune_tf));
static_assert(offsetof(Frame, r10) == offsetof(dune_tf, r10));
static_assert(offsetof(Frame, rax) == offsetof(dune_tf, rax));
static_assert(offsetof(Frame, rsp) == offsetof(dune_tf, rsp));

namespace {

constexpr uint64_t kSlotSize = 1ull << DUNE_SLOT_SHIFT;
constexpr size_t kThreadStack = 128 << 10;
constexpr int kProgramEnded = 1;

thread_local Thread* this_thread;

// GiB of the program's part that are mapped for ring 3, and the lock for mapping more, which a fork
// takes so that no thread that the child does not have holds it there.
std::atomic<uint64_t> mapped[kUserEnd / kSlotSize / 64];
Lock map_lock;

Frame& frame_of(dune_tf& tf) {
    return reinterpret_cast<Frame&>(tf);
}

bool is_mapped(uint64_t slot) {
    return (mapped[slot / 64].load(std::memory_order_relaxed) >> slot % 64 & 1) != 0;
}

// Lets ring 3 use the GiB around an address of the program's part. False if memory ran out.
bool map_around(uint64_t address) {
    const uint64_t slot = address / kSlotSize;
    if (is_mapped(slot)) {
        return true;
    }
    const LockGuard guard(map_lock);
    void* const start = reinterpret_cast<void*>(slot * kSlotSize);
    const int size = rt::process.large_pages ? PERM_BIG_1GB : PERM_BIG;
    void* const pa = reinterpret_cast<void*>(dune_va_to_pa(start));
    if (!is_mapped(slot)) {
        if (dune_vm_map_phys(pgroot, start, kSlotSize, pa,
                             PERM_R | PERM_W | PERM_X | PERM_U | size) != 0) {
            return false;
        }
        mapped[slot / 64].fetch_or(1ull << slot % 64, std::memory_order_relaxed);
    }
    return true;
}

// The runtime may copy from and to [address, address + length).
bool map_range(uint64_t address, size_t length) {
    if (!in_user(address, length) || address + length > kMapEnd) {
        return false;
    }
    const uint64_t last = length == 0 ? address : address + length - 1;
    return map_around(address) && (address / kSlotSize == last / kSlotSize || map_around(last));
}

// ---- what libdune calls ----

void on_user_syscall(dune_tf& tf) {
    on_syscall(*this_thread, frame_of(tf));
}

void on_user_fault(dune_tf& tf, const siginfo_t& info, unsigned vector) {
    siginfo_t seen = info;
    const uint64_t address = reinterpret_cast<uint64_t>(info.si_addr);
    if (vector == T_PGFLT) {
        if (address < kMapEnd && !is_mapped(address / kSlotSize)) {
            if (map_around(address)) {
                return;
            }
            seen.si_signo = SIGBUS;
            seen.si_code = BUS_ADRERR;
        } else if (address >= kMapEnd) {
            seen.si_code = SEGV_MAPERR;  // nothing is there, as far as the program can know
        }
    }
    on_fault(*this_thread, frame_of(tf), seen, vector, tf.err);
}

void on_signal_arrived(const siginfo_t& info) {
    if (this_thread != nullptr) {
        queue_signal(*this_thread, info);
    }
}

void on_signals_pending(dune_tf& tf) {
    if (this_thread->has_signals()) {
        on_signals(*this_thread, frame_of(tf));
    }
}

void on_ring3_resumes(dune_tf& tf) {
    on_resumed(*this_thread, frame_of(tf));
}

// ---- starting ----

// Moves a descriptor of libdune's to a number of its own (see RuntimeNumbers).
bool hide_descriptor(int& fd) {
    if (is_reserved(static_cast<unsigned>(fd))) {
        return true;
    }
    const long moved = host_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, reserved_fd(kFirstFreeFd));
    if (is_error(moved)) {
        return false;
    }
    const int old = fd;
    fd = static_cast<int>(moved);  // first: the number of a closed one may be the program's at once
    host_call(SYS_close, old);
    return true;
}

// Puts the calling thread into ring 0. 0 or a negative errno.
int enter_ring0() {
    const LockGuard guard(process.fd_lock);
    const RuntimeNumbers numbers;
    if (const int error = dune_enter()) {
        return error;
    }
    return hide_descriptor(rt::self()->vcpu_fd) ? 0 : -EMFILE;
}

// What a thread goes through in ring 0.
void run_program(Thread& thread) {
    user::set_fs_base(thread.start_fs);
    user::set_gs_base(0);
    dune_tf tf;
    memcpy(&tf, &thread.frame, sizeof(tf));
    user::run(tf);
}

struct Start {
    Thread* thread;
    std::atomic<int> tid;  // 0: not yet; negative: an error
};

void answer(Start& start, int value) {
    start.tid.store(value);
    host_call(SYS_futex, &start.tid, FUTEX_WAKE_PRIVATE, 1);
}

void* thread_main(void* raw) {
    Start& start = *static_cast<Start*>(raw);
    Thread& thread = *start.thread;
    this_thread = &thread;
    if (const int error = enter_ring0()) {
        answer(start, error);
        return nullptr;
    }
    on_thread_start(thread);
    answer(start, thread.tid);
    run_program(thread);
    this_thread = nullptr;
    if (process.pid == thread.tid) {
        // The only thread of a process that it forked: its C library does not know that.
        host_call(SYS_exit, 0);
    }
    release_thread(thread);
    return nullptr;
}

struct Area {
    uint64_t begin, end;
} vdso_area;

bool runtime_below;  // something of the runtime lies in the program's part

void look_at(const dune_procmap_entry* entry) {
    runtime_below = runtime_below || entry->begin < kUserEnd;
    if (entry->type == PROCMAP_TYPE_VVAR || entry->type == PROCMAP_TYPE_VDSO) {
        vdso_area.begin = vdso_area.begin == 0 ? entry->begin : vdso_area.begin;
        vdso_area.end = entry->end;
    }
}

// Shows ring 3 the vDSO and its data in the gap, where no call can name them.
uint64_t map_vdso() {
    const uint64_t real = getauxval(AT_SYSINFO_EHDR);
    if (real < vdso_area.begin || real >= vdso_area.end) {
        return 0;
    }
    const uint64_t at = kMapEnd + kGap / 2;
    const int error = dune_vm_map_phys(
        pgroot, reinterpret_cast<void*>(at), vdso_area.end - vdso_area.begin,
        reinterpret_cast<void*>(dune_va_to_pa(reinterpret_cast<void*>(vdso_area.begin))),
        PERM_R | PERM_X | PERM_U);
    return error == 0 ? at + (real - vdso_area.begin) : 0;
}

uint64_t user_vdso;

}  // namespace

Thread& current() {
    return *this_thread;
}

namespace engine {

int start() {
    // libdune would like its pages, page tables among them, at an address in the program's part.
    void* const placeholder =
        mmap(reinterpret_cast<void*>(DUNE_PAGEBASE_DEFAULT), kPageSize, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (const int error = dune_init(true)) {
        return error;  // libdune has said why
    }
    munmap(placeholder, kPageSize);
    if (dune_procmap_iterate(look_at) != 0 || runtime_below) {
        dprintf(STDERR_FILENO, "dune-sandbox: the runtime was loaded below %#lx\n", kUserEnd);
        return -EFAULT;
    }
    user::set_monitor({.syscall = on_user_syscall,
                       .fault = on_user_fault,
                       .signal_arrived = on_signal_arrived,
                       .signals_pending = on_signals_pending,
                       .resumed = on_ring3_resumes});
    dune_protect_supervisor();
    if (!hide_descriptor(rt::process.device)) {
        return -EMFILE;
    }
    user_vdso = map_vdso();
    return 0;
}

void enter(Thread& thread) {
    this_thread = &thread;
    if (enter_ring0() == 0) {
        run_program(thread);
    }
    for (;;) {
        host_call(SYS_exit, thread.exit_status);
    }
}

long spawn(Thread& thread) {
    Start start{&thread, 0};
    const uint64_t all = ~0ull;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, kThreadStack);
    set_signal_mask(all);
    pthread_t id;
    const int error = pthread_create(&id, &attributes, thread_main, &start);
    while (error == 0 && start.tid.load() == 0) {
        host_call(SYS_futex, &start.tid, FUTEX_WAIT_PRIVATE, 0, 0);
    }
    set_signal_mask(this_thread->mask);
    const int result = error != 0 ? -EAGAIN : start.tid.load();
    return result == -EMFILE ? -EAGAIN : result;
}

void exit_thread(int status) {
    this_thread->exit_status = status;
    user::finish(kProgramEnded);
}

long fork(uint64_t flags) {
    map_lock.lock();
    const long pid = user::fork(flags);
    map_lock.unlock();
    if (pid == 0) {
        const RuntimeNumbers numbers;
        hide_descriptor(rt::process.device);
        hide_descriptor(rt::self()->vcpu_fd);
    }
    return pid;
}

bool copy_in(void* to, uint64_t from, size_t length) {
    return map_range(from, length) &&
           dune_copy_from_user(to, reinterpret_cast<const void*>(from), length) == 0;
}

bool copy_out(uint64_t to, const void* from, size_t length) {
    return map_range(to, length) &&
           dune_copy_to_user(reinterpret_cast<void*>(to), from, length) == 0;
}

bool compare_exchange(uint64_t word, uint32_t from, uint32_t to, uint32_t* seen) {
    return word % sizeof(uint32_t) == 0 && map_range(word, sizeof(uint32_t)) &&
           user::compare_exchange(reinterpret_cast<uint32_t*>(word), from, to, seen);
}

bool watch_resumes(bool on) {
    user::watch_resumes(on);
    return true;
}

uint32_t cpu() {
    return user::cpu();
}

uint64_t fs_base() {
    return user::fs_base();
}
void set_fs_base(uint64_t base) {
    user::set_fs_base(base);
}
uint64_t gs_base() {
    return user::gs_base();
}
void set_gs_base(uint64_t base) {
    user::set_gs_base(base);
}

Xstate xstate() {
    const user::VectorState state = user::vector_state();
    return {state.area, state.size, state.features};
}

long blocking_call(long number, const uint64_t args[6]) {
    return this_thread->has_signals() ? kRestartNoIntr : user::call(number, args);
}

long catch_signal(int signal, uint64_t flags) {
    return user::catch_signal(signal, flags);
}

long leave_signal(int signal, const void* action) {
    return host_call(SYS_rt_sigaction, signal, action, 0, sizeof(uint64_t));
}

void set_signal_mask(uint64_t mask) {
    host_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(mask));
}

uint64_t vm_exits() {
    dune_stats stats{};
    stats.size = sizeof(stats);
    if (host_call(SYS_ioctl, rt::process.device, DUNE_GET_STATS, &stats) != 0) {
        return 0;
    }
    uint64_t sum = 0;
    for (const uint64_t count : stats.exits) {
        sum += count;
    }
    return sum;
}

uint64_t vdso() {
    return user_vdso;
}

}  // namespace engine

}  // namespace dune::sandbox
