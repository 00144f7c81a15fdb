// SPDX-License-Identifier: MIT
/**
 * @file
 * The area that each thread in Dune mode has: descriptor tables, stacks, its vCPU.
 *
 * In ring 0 the GS base points to it, always. In host mode, and in handlers of Linux signals,
 * current() finds it through the C library's thread-local storage.
 */
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "../mm/spinlock.h"
#include "kern/dune.h"
#include "layout.h"
#include "libdune/dune.h"
#include "tables.h"

namespace dune::rt {

/** A Linux signal on its way to a handler in Dune mode. */
struct PendingSignal {
    int number;  ///< 0: none
    siginfo_t info;
    std::uint64_t mask;  ///< the thread's signal mask before the signal
    bool restart;        ///< of any signal: an interrupted system call is to be restarted
};

/** Where code goes on in host mode; laid out like the start of struct dune_vcpu_page. */
struct HostContext {
    dune_regs regs;
    std::uint64_t rip, rflags;
};

constexpr std::size_t kTrampolineStackSize = 128 << 10;
constexpr std::size_t kGdtEntries = 16;

struct Thread {
    // What assembly uses; see layout.h.
    Thread* self;
    std::uint64_t kernel_rsp;  ///< where entries from ring 3 start
    std::uint64_t scratch;
    std::uint64_t kernel_fs;  ///< ring 0's FS base while ring 3 runs
    std::uint64_t user_fs;    ///< ring 3's FS base while ring 0 runs
    std::uint8_t* trap_fpu;   ///< where traps of ring 0 save vector registers, if it is free
    std::uint8_t* user_fpu;   ///< where entries from ring 3 save them
    std::uint64_t fix_stack;  ///< top of a stack for mapping what is absent
    std::uint64_t jump_rsp;   ///< frame of the innermost dune_jump_to_user()
    dune_vcpu_page* page;
    int vcpu_fd;
    std::uint8_t pad0[2];
    TablePointer gdt_ptr;
    std::uint8_t pad1[6];
    TablePointer idt_ptr;
    TaskState tss;
    std::uint8_t* fix_fpu;     ///< vector registers, while a fault is dealt with on fix_stack
    std::uint64_t slot_epoch;  ///< dune_slot_epoch at this thread's last look
    std::uint64_t bad_stack;   ///< top of a stack for faults that cannot use the interrupted one
    std::uint8_t* bad_fpu;     ///< vector registers of what they interrupted
    std::uint32_t cpu_node;    ///< CPU and node at the last entry: TSC_AUX
    bool watches_resumes;      ///< Monitor::resumed() is wanted (dune/user.h)
    bool in_callback;          ///< a callback of the monitor runs
    bool disturbed;            ///< Monitor::resumed() has to run before ring 3 does

    std::uint64_t gdt[kGdtEntries];

    // Host mode's.
    int tid;
    int pid;
    bool active;  ///< the trampoline runs: the thread is in Dune mode as its user sees it
    volatile std::uint16_t* door;
    void* door_map;
    std::uint64_t trampoline_stack;  ///< top
    HostContext child;               ///< what a call makes a thread or process from
    stack_t altstack;                ///< the program's alternate signal stack
    PendingSignal signal;
    std::uint64_t high_signals;  ///< those with a callback that share interrupt 255, pending
    std::uint32_t apic_id;
    std::uint32_t cpu;       ///< where it was last seen
    Thread* next;            ///< in the list of all
    Thread* next_free;       ///< in the list of areas that wait for a new thread
    std::uint32_t occupied;  ///< 1: in that list, but its last thread still runs on its stack
    void* map;               ///< everything above is in this mapping
    std::size_t map_size;
};

/** The area of the calling thread in host mode; null if it never entered. */
Thread* current() noexcept;
void set_current(Thread* thread) noexcept;

/** The same in ring 0, from GS. */
inline Thread* self() noexcept {
    Thread* thread;
    asm volatile("mov %%gs:%c1, %0" : "=r"(thread) : "i"(TH_SELF));
    return thread;
}

/** Bytes that are mapped of a vCPU file at offset 0. */
constexpr std::size_t kVcpuMapSize = 4096;

/** Make the area of the calling thread: null if memory ran out. Host mode. */
Thread* thread_create() noexcept;
/**
 * Make an area fit for a new vCPU. In a forked child, or after dune_leave(), what the program has
 * on its stacks stays.
 */
void thread_reset(Thread& thread) noexcept;
/** Unmap what belongs to the vCPU; the area itself stays. Host mode. */
void thread_drop_vcpu(Thread& thread) noexcept;
/** The thread is on another CPU than at its last entry: the guest's tables say so. Host mode. */
void thread_moved(Thread& thread, std::uint32_t cpu_node) noexcept;
/** In a forked child: the vCPU is the parent's thread's. Host mode. */
void thread_forget_vcpu(Thread& thread) noexcept;
/**
 * The thread ends, its vCPU is dropped: keep the area for another one. Host mode.
 * @param occupied its stack is in use until `occupied` is set to 0
 * @return false if enough are kept: unmap it
 */
bool thread_keep(Thread& thread, bool occupied) noexcept;
/** For fork(): held by who looks for such an area. */
mm::SpinLock& thread_areas_lock() noexcept;
/** Have areas of threads that end in host mode given back. dune_init(). */
void threads_init() noexcept;
/** The same for this thread; before it has one. */
void thread_watch_end(Thread& thread) noexcept;

}  // namespace dune::rt
