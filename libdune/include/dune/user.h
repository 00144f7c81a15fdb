// SPDX-License-Identifier: MIT
/**
 * @file
 * Running ring 3 under a monitor in ring 0: what libdune/dune.h does not have.
 *
 * A monitor installs its callbacks once (set_monitor), then each thread calls dune_enter() and
 * run(). While ring 3 runs, the callbacks get its registers and may change them; when the
 * outermost returns, ring 3 goes on with what the frame says. finish() makes run() return.
 *
 * In callbacks interrupts are masked, the vector registers of ring 3 are saved (vector_state()), FS
 * is ring 0's, and the C library works. "Trap" below is such a callback.
 *
 * Threads of ring 3: make a Linux thread in any way, e.g. pthread_create() in a callback; the new
 * thread starts in host mode and calls dune_enter() and run(). Processes: fork().
 */
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "libdune/dune.h"

namespace dune::user {

struct Monitor {
    /** A system call of ring 3. The result goes into frame.rax. Required. */
    void (*syscall)(dune_tf& frame);

    /**
     * An exception in ring 3, page faults of both kinds included.
     * @param info   the signal that Linux would send: si_signo, si_code, si_addr
     * @param vector T_*; frame.err is the error code
     */
    void (*fault)(dune_tf& frame, const siginfo_t& info, unsigned vector);

    /**
     * A signal that was asked for by catch_signal() came to this thread. Context: a Linux signal
     * handler in host mode, all signals blocked, on a stack of its own: put it into a queue.
     * The host's thread-local storage works.
     */
    void (*signal_arrived)(const siginfo_t& info);

    /**
     * Signals arrived, and the thread is about to go on in ring 3. Also called once when run()
     * begins. Context: trap.
     */
    void (*signals_pending)(dune_tf& frame);

    /**
     * Ring 3 is about to go on, and since it last ran the thread may have been off its CPU. Only in
     * threads that asked for it by watch_resumes(); more often than needed. Context: trap.
     */
    void (*resumed)(dune_tf& frame) = nullptr;
};

/** Install callbacks: before dune_enter(), and for the whole process. Copies the structure. */
void set_monitor(const Monitor& monitor) noexcept;

/**
 * Run ring 3 until finish(). Context: ring 0.
 * @return what was given to finish(), or -EPERM in host mode
 */
int run(const dune_tf& frame) noexcept;

/** Make run() return. Context: trap. */
[[noreturn]] inline void finish(int result) noexcept {
    dune_ret_from_user(result);
}

/** -ERESTARTNOINTR of the kernel, which it never shows to programs itself. */
inline constexpr long kRestartNoIntr = -513;

/**
 * A system call of Linux'. If a signal for the monitor came before Linux took the call, or came so
 * that Linux wants to do it again, it is not done, and kRestartNoIntr comes back: have ring 3 do
 * its SYSCALL again, after signals_pending().
 * @return Linux' result: a negative errno on failure. Context: trap.
 */
long call(long number, const std::uint64_t args[6]) noexcept;

/**
 * fork(2), or clone(2) with an address space of the child's own: no CLONE_VM, CLONE_SETTLS.
 * @param flags of clone(2), with the signal at the child's end in the low byte
 * @return in the parent the child's pid or a negative errno; in the child, which is in Dune mode in
 *         the same trap, 0. If the child cannot enter Dune mode it ends with status 127.
 * Context: trap, ring 0.
 */
long fork(std::uint64_t flags = SIGCHLD) noexcept;

/**
 * Have a signal brought to Monitor::signal_arrived().
 * @param sig   its number
 * @param flags SA_RESTART, SA_NOCLDSTOP, SA_NOCLDWAIT as of sigaction(2), others are ignored
 * @return 0 or a negative errno. Context: any but ring 3.
 */
long catch_signal(int sig, std::uint64_t flags) noexcept;

/**
 * Have Monitor::resumed() called in this thread, or no longer: what other threads do while this one
 * is off its CPU, and on which CPU it goes on, is of interest to it. Inherited by fork().
 * Context: trap.
 */
void watch_resumes(bool on) noexcept;

/**
 * The CPU that this thread runs on. It may be another one by the time it is looked at; then
 * resumed() is called once more. Context: trap.
 */
unsigned cpu() noexcept;

/** The FS base of ring 3 in this thread. Context: ring 0, trap. */
std::uint64_t fs_base() noexcept;
/** Set it. @return false for a value that is not canonical. Context: ring 0, trap. */
bool set_fs_base(std::uint64_t base) noexcept;
/** The GS base of ring 3 in this thread. Context: ring 0, trap. */
std::uint64_t gs_base() noexcept;
/** Set it. @return false for a value that is not canonical. Context: ring 0, trap. */
bool set_gs_base(std::uint64_t base) noexcept;

/** The vector state of ring 3, in the standard form of XSAVE; may be changed. Context: trap. */
struct VectorState {
    std::uint8_t* area;      ///< 64-byte aligned
    std::size_t size;        ///< bytes
    std::uint64_t features;  ///< XCR0
};
/** That of this thread. Context: trap from ring 3. */
VectorState vector_state() noexcept;

/**
 * Compare and exchange in ring 3's memory.
 * @param word 4-byte aligned
 * @param from what has to be there
 * @param to   what is put there then
 * @param seen what was there
 * @return false if ring 3 may not write there. Context: trap.
 */
bool compare_exchange(std::uint32_t* word, std::uint32_t from, std::uint32_t to,
                      std::uint32_t* seen) noexcept;

}  // namespace dune::user
