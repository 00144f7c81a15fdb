// SPDX-License-Identifier: MIT
//
// What the monitor needs from the machinery that runs ring 3. Two engines implement it:
// engine/dune.cc (libdune; the product), and engine/host.cc, with which tests run the whole monitor
// on a host without VT-x, where it protects nothing.

#ifndef DUNE_APPS_SANDBOX_MONITOR_ENGINE_H
#define DUNE_APPS_SANDBOX_MONITOR_ENGINE_H

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "monitor/frame.h"

namespace dune::sandbox {

struct Thread;

namespace engine {

// ---- called by the monitor ----

// Prepares the process; the calling thread goes on outside ring 3, on its own stack, and may use
// enter(). 0 or a negative errno; what is wrong has been said on stderr. Context: host mode.
int start();

// Runs ring 3 from thread.frame on, in the calling thread, until it ends. Context: host mode.
[[noreturn]] void enter(Thread& thread);

// Makes a new Linux thread of this process, which runs ring 3 from thread.frame on. Returns its
// thread id or a negative errno. Context: trap.
long spawn(Thread& thread);

// Ends the calling thread. Context: trap.
[[noreturn]] void exit_thread(int status);

// clone(2) with `flags` and an own address space. In the child, which is in the same trap
// afterwards, returns 0. Context: trap.
long fork(uint64_t flags);

// Copies between the monitor and the program's memory, without trusting the address: false if not
// all of it may be read or written by the program. Context: trap.
bool copy_in(void* to, uint64_t from, size_t length);
bool copy_out(uint64_t to, const void* from, size_t length);
// Sets *word to `to` if it was `from`, in the program's memory. False on a fault. `*seen` is what
// was there.
bool compare_exchange(uint64_t word, uint32_t from, uint32_t to, uint32_t* seen);

// Has on_resumed() called in this thread, or no longer. False if the engine cannot. Inherited by
// fork(). Context: trap.
bool watch_resumes(bool on);

// The CPU that this thread runs on. Context: on_resumed().
uint32_t cpu();

// The segment bases of ring 3 in this thread. Context: trap.
uint64_t fs_base();
void set_fs_base(uint64_t base);
uint64_t gs_base();
void set_gs_base(uint64_t base);

// The vector registers of ring 3 in this thread, in the standard form of XSAVE. `xstate` may be
// changed; nullptr until the program has any. Context: trap.
struct Xstate {
    uint8_t* area;
    size_t size;
    uint64_t features;  // the components that the kernel has enabled: XCR0
};
Xstate xstate();

// Does a system call that may block. If a signal for the program arrived before the kernel took
// the call, it is not done, and -ERESTARTNOINTR comes back. Context: trap.
long blocking_call(long number, const uint64_t args[6]);

// Has the kernel bring a signal that the program handles to queue_signal(), with interrupted calls
// not restarted. `flags`: SA_NOCLDSTOP, SA_NOCLDWAIT. 0 or a negative errno. Context: trap.
long catch_signal(int signal, uint64_t flags);

// Gives a signal its default action, or ignores it, as rt_sigaction(2). `action` is the kernel's
// structure. 0 or a negative errno. Context: trap.
long leave_signal(int signal, const void* action);

// Gives the calling thread the signal mask of ring 3. Context: trap.
void set_signal_mask(uint64_t mask);

// VM exits of this process up to now. Context: trap.
uint64_t vm_exits();

// Ring 3's address of the vDSO, or 0.
uint64_t vdso();

constexpr long kRestartNoIntr = -513;

}  // namespace engine

// ---- called by the engines; frame is ring 3's and may be changed ----

void on_syscall(Thread& thread, Frame& frame);
// An exception in ring 3 that Linux would turn into info.si_signo. trap and error are the vector
// and its error code.
void on_fault(Thread& thread, Frame& frame, const siginfo_t& info, uint64_t trap, uint64_t error);
// Signals are queued in the thread, which is about to go (back) to ring 3.
void on_signals(Thread& thread, Frame& frame);
// The thread is about to go (back) to ring 3, and may have been off its CPU since it was there
// last.
void on_resumed(Thread& thread, Frame& frame);
// Remembers a signal for on_signals(). Context: a host signal handler, or trap.
void queue_signal(Thread& thread, const siginfo_t& info);

// A thread made by engine::spawn() is about to enter ring 3. Context: trap.
void on_thread_start(Thread& thread);
// A thread has ended, and its engine no longer needs its state.
void release_thread(Thread& thread);

// The state of the calling thread. Context: trap.
Thread& current();

}  // namespace dune::sandbox

#endif
