// SPDX-License-Identifier: MIT
/**
 * @file
 * Linux signals for programs in Dune mode.
 *
 * Default actions stay the kernel's. Where the program has a handler, Linux is given one of ours
 * instead. If a signal finds its thread in Dune mode, ours makes an interrupt of it, by which
 * the program's runs in ring 0; if it finds it in host mode, ours calls the program's there.
 */
#pragma once

#include "../mm/spinlock.h"
#include "sys.h"
#include "thread.h"

namespace dune::rt {

/** Take over the handlers that are installed. dune_init(). */
void signals_init() noexcept;

/** The thread goes to Dune mode, or comes back to host mode. */
void signals_enter(Thread& thread) noexcept;
void signals_leave(Thread& thread) noexcept;
/** Linux' alternate stack becomes the program's again. Host mode, on another stack. */
void restore_altstack(const Thread& thread) noexcept;
/** Have Linux bring a signal to this thread once more, as soon as it is not blocked. Host mode. */
void signal_requeue(int sig, const siginfo_t& info) noexcept;

/** rt_sigaction, as the program sees it. @return 0 or a negative errno. Context: any */
long signal_action(int sig, const KernelSigaction* act, KernelSigaction* old) noexcept;

/** Bring a signal to the monitor of ring 3 (dune/user.h). */
long signal_to_monitor(int sig, std::uint64_t flags) noexcept;
void set_monitor_signal(void (*arrived)(const siginfo_t& info)) noexcept;

/** What the program asked for. */
KernelSigaction signal_wanted(int sig) noexcept;

/** Does the guest take interrupts once the system call that it makes is over? */
bool takes_interrupts(const dune_vcpu_page& page) noexcept;

/** For fork(): held by who changes what the program wants. */
mm::SpinLock& signals_lock() noexcept;

/** CR4 bits that dune_protect_supervisor() turned on. */
std::uint64_t protect_bits() noexcept;

}  // namespace dune::rt
