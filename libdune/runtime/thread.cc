// SPDX-License-Identifier: MIT
#include "thread.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fpu_area.h"
#include "gates.h"
#include "sys.h"

namespace dune::rt {
namespace {

// Initial-exec: read in Linux signal handlers, where a lazily allocated variable would be malloc.
__thread Thread* current_thread __attribute__((tls_model("initial-exec")));

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBlock = 64 << 10;

/*
 * The area's mapping, from a multiple of 64 KiB on (so that IST 1 ends at one plus 256):
 *
 *     0        a page that is not accessible
 *     4 KiB    stack for ring 3's entries while no dune_jump_to_user() runs
 *     60 KiB   lower half of the IST 1 stack, for frames that come while one is there
 *     64 KiB   upper half of the IST 1 stack
 *     68 KiB   struct Thread
 *     76 KiB   stack of #DF
 *     84 KiB   stack on which what is absent is mapped
 *     100 KiB  stack of the faults that cannot use the interrupted one: a signal's handler may come
 *              from there, and meet what is absent
 *     124 KiB  where IST 1 would be if a third frame came
 *     128 KiB  areas for the vector state, then 128 KiB of stack for host mode
 */
constexpr std::size_t kKernelStackTop = 60 << 10;
constexpr std::size_t kThreadOffset = 68 << 10;
constexpr std::size_t kDoubleFaultTop = 84 << 10;
constexpr std::size_t kFixStackTop = 100 << 10;
constexpr std::size_t kBadStackTop = 124 << 10;
constexpr std::size_t kFpuOffset = 128 << 10;
constexpr std::size_t kFpuAreas = 4;
static_assert(kThreadOffset + sizeof(Thread) <= (76 << 10));
static_assert(IST_TOP + kThreadOffset == kBlock + 0x100);

std::size_t fpu_slot() noexcept {
    return fpu_area_size() + 64;
}

std::size_t trampoline_offset() noexcept {
    const std::size_t fpu_end = kFpuOffset + kFpuAreas * fpu_slot() + kPage;
    return (fpu_end + kPage - 1) & ~(kPage - 1);
}

std::uint8_t* fpu_area(std::uint8_t* base, std::size_t index) noexcept {
    return base + kFpuOffset + 64 + index * fpu_slot();
}

constexpr std::uint64_t kCode64 = 0x00af9b000000ffff;  // present, accessed, long mode
constexpr std::uint64_t kCode32 = 0x00cf9b000000ffff;
constexpr std::uint64_t kData = 0x00cf93000000ffff;
constexpr std::uint64_t kReadable32 = 0x0040910000000000;  // present, accessed, limit 0
constexpr std::uint64_t kDpl3 = std::uint64_t{3} << 45;
constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

void set_tables(Thread& thread) noexcept {
    auto& gdt = thread.gdt;
    std::memset(gdt, 0, sizeof(gdt));
    gdt[SEL_KERNEL_CS / 8] = kCode64;
    gdt[SEL_KERNEL_DS / 8] = kData;
    gdt[SEL_USER32_CS / 8] = kCode32 | kDpl3;
    gdt[SEL_USER_DS / 8] = kData | kDpl3;
    gdt[SEL_USER_CS / 8] = kCode64 | kDpl3;
    const auto tss = reinterpret_cast<std::uint64_t>(&thread.tss);
    // SDM vol. 3, figure 8-4: a 64-bit TSS that is available.
    gdt[SEL_TSS / 8] = (sizeof(TaskState) - 1) | (tss & 0xffffff) << 16 |
                       std::uint64_t{0x89} << 40 | (tss >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = tss >> 32;
    thread.cpu_node = kNowhere;
    thread.gdt_ptr = {.limit = sizeof(gdt) - 1, .base = reinterpret_cast<std::uint64_t>(gdt)};
    thread.idt_ptr = idt_pointer();

    const auto base = reinterpret_cast<std::uint64_t>(&thread) - kThreadOffset;
    std::memset(&thread.tss, 0, sizeof(thread.tss));
    thread.tss.ist[0] = base + kThreadOffset + IST_TOP;
    thread.tss.ist[kIstDoubleFault - 1] = base + kDoubleFaultTop;
    thread.tss.io_map = sizeof(TaskState);
}

/*
 * Areas of threads that ended: making one costs six system calls and as many page faults, most of
 * what a thread that enters takes. A few are enough for threads that come and go.
 */
constexpr unsigned kMostKept = 16;
constinit mm::SpinLock areas_lock;
Thread* areas;
unsigned areas_kept;

pthread_key_t end_key;
bool have_end_key;

/** One whose last thread is off its stack, as new; null if there is none. */
Thread* take_kept() noexcept {
    const mm::SpinGuard guard(areas_lock);
    for (Thread** link = &areas; *link != nullptr; link = &(*link)->next_free) {
        Thread* const thread = *link;
        if (__atomic_load_n(&thread->occupied, __ATOMIC_ACQUIRE) != 0)
            continue;
        *link = thread->next_free;
        --areas_kept;
        void* const map = thread->map;
        const std::size_t size = thread->map_size;
        const std::uint64_t stack = thread->trampoline_stack;
        std::memset(thread, 0, sizeof(*thread));
        thread->map = map;
        thread->map_size = size;
        thread->trampoline_stack = stack;
        thread->vcpu_fd = -1;
        thread->altstack.ss_flags = SS_DISABLE;
        return thread;
    }
    return nullptr;
}

/** A thread that was in Dune mode ends. In ring 0 the trampoline sees it, a little later. */
void thread_ends(void* area) noexcept {
    if ((read_cs() & 3) == 0)
        return;
    auto* const thread = static_cast<Thread*>(area);
    if (thread->tid == sys(SYS_gettid))
        thread_drop_vcpu(*thread);
    else
        thread_forget_vcpu(*thread);
    current_thread = nullptr;
    if (!thread_keep(*thread, false))
        munmap(thread->map, thread->map_size);
}

}  // namespace

Thread* current() noexcept {
    return current_thread;
}

void set_current(Thread* thread) noexcept {
    current_thread = thread;
}

bool thread_keep(Thread& thread, bool occupied) noexcept {
    const mm::SpinGuard guard(areas_lock);
    if (areas_kept == kMostKept)
        return false;
    ++areas_kept;
    __atomic_store_n(&thread.occupied, occupied ? 1U : 0U, __ATOMIC_RELEASE);
    thread.next_free = areas;
    areas = &thread;
    return true;
}

mm::SpinLock& thread_areas_lock() noexcept {
    return areas_lock;
}

void threads_init() noexcept {
    static bool done = false;
    if (!done)
        done = have_end_key = pthread_key_create(&end_key, thread_ends) == 0;
}

void thread_watch_end(Thread& thread) noexcept {
    if (have_end_key)
        pthread_setspecific(end_key, &thread);
}

Thread* thread_create() noexcept {
    if (Thread* const thread = take_kept(); thread != nullptr)
        return thread;
    const std::size_t size = trampoline_offset() + kTrampolineStackSize;
    void* const map = mmap(nullptr, size + kBlock, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(map);
    auto* const base = reinterpret_cast<std::uint8_t*>((start + kBlock - 1) & ~(kBlock - 1));
    mprotect(base, kPage, PROT_NONE);
    mprotect(base + trampoline_offset() - kPage, kPage, PROT_NONE);

    auto* const thread = reinterpret_cast<Thread*>(base + kThreadOffset);
    thread->map = map;
    thread->map_size = size + kBlock;
    thread->vcpu_fd = -1;
    thread->trampoline_stack =
        reinterpret_cast<std::uintptr_t>(base + trampoline_offset() + kTrampolineStackSize);
    thread->altstack.ss_flags = SS_DISABLE;
    return thread;
}

void thread_reset(Thread& thread) noexcept {
    thread.signal.number = 0;
    thread.high_signals = 0;
    thread.disturbed = thread.watches_resumes;
    set_tables(thread);
    if (thread.self != nullptr)
        return;  // it may be in a trap, or in dune_jump_to_user(): the stacks are in use
    auto* const base = reinterpret_cast<std::uint8_t*>(&thread) - kThreadOffset;
    thread.self = &thread;
    thread.kernel_rsp = reinterpret_cast<std::uintptr_t>(base + kKernelStackTop - 8);
    thread.trap_fpu = fpu_area(base, 0);
    thread.user_fpu = fpu_area(base, 1);
    thread.fix_fpu = fpu_area(base, 2);
    thread.bad_fpu = fpu_area(base, 3);
    for (std::size_t i = 0; i < kFpuAreas; ++i)
        fpu_area_clear(fpu_area(base, i));
    thread.fix_stack = reinterpret_cast<std::uintptr_t>(base + kFixStackTop - 8);
    thread.bad_stack = reinterpret_cast<std::uintptr_t>(base + kBadStackTop - 8);
    thread.jump_rsp = 0;
}

namespace {

/** Unless it was closed before, and the number is another file's. */
void close_vcpu(Thread& thread) noexcept {
    const int fd = thread.vcpu_fd;
    // Without a vector to read, a vCPU's file, and no other, says EFAULT, or EPERM in a child.
    const long ret = fd < 0 ? -EBADF : sys(SYS_ioctl, fd, DUNE_INTERRUPT, nullptr);
    if (ret == -EFAULT || ret == -EPERM)
        sys(SYS_close, fd);
    thread.vcpu_fd = -1;
}

}  // namespace

void thread_moved(Thread& thread, std::uint32_t cpu_node) noexcept {
    thread.cpu_node = cpu_node;
    thread.gdt[SEL_CPU_NODE / 8] =
        kReadable32 | kDpl3 | (cpu_node & 0xffff) | std::uint64_t{cpu_node >> 16 & 0xf} << 48;
}

void thread_drop_vcpu(Thread& thread) noexcept {
    if (thread.page != nullptr)
        sys(SYS_munmap, thread.page, kVcpuMapSize);
    if (thread.door_map != nullptr)
        sys(SYS_munmap, thread.door_map, kPage);
    close_vcpu(thread);
    thread.page = nullptr;
    thread.door_map = nullptr;
}

void thread_forget_vcpu(Thread& thread) noexcept {
    // Its pages are not mapped here; other things may be by now.
    thread.page = nullptr;
    thread.door_map = nullptr;
    close_vcpu(thread);
}

}  // namespace dune::rt
