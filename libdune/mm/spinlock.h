// SPDX-License-Identifier: MIT
/**
 * @file
 * The lock of everything that may be called in a trap handler.
 *
 * In ring 0 a signal arrives as an interrupt, between any two instructions while RFLAGS.IF
 * is set. A handler that needs a lock which the interrupted code holds would spin for
 * ever, so interrupts are masked while a lock is held. Faults cannot be masked: code under
 * a lock touches only memory that the page tables of every root map (the pool and
 * libdune's own data) and that no handler resolves.
 *
 * In host mode the same holds for a Linux signal handler that calls in here; the Backing's
 * host_irq_save may block signals. libdune itself leaves it empty: programs run handlers in
 * Dune mode.
 */
#pragma once

#include <cstdint>

namespace dune::mm {

/** Is this code in ring 0, that is: in Dune mode, outside the sandboxed ring 3? */
inline bool in_ring0() noexcept {
    std::uint16_t cs;
    asm volatile("movw %%cs, %0" : "=r"(cs));
    return (cs & 3) == 0;
}

/** Host-mode stand-ins for CLI and POPF (see Backing); null: nothing is done. */
extern std::uint64_t (*host_irq_save)() noexcept;
extern void (*host_irq_restore)(std::uint64_t) noexcept;

/** Masks interrupts for its lifetime. */
class IrqGuard {
  public:
    IrqGuard() noexcept : flags_(save()) {}
    ~IrqGuard() { restore(flags_); }
    IrqGuard(const IrqGuard&) = delete;
    IrqGuard& operator=(const IrqGuard&) = delete;

    static std::uint64_t save() noexcept {
        if (!in_ring0())
            return host_irq_save != nullptr ? host_irq_save() : 0;
        std::uint64_t flags;
        // Ring-0 code has a red zone like any other: step over it before the push.
        asm volatile(
            "leaq -128(%%rsp), %%rsp\n\t"
            "pushfq\n\t"
            "popq %0\n\t"
            "leaq 128(%%rsp), %%rsp\n\t"
            "cli"
            : "=r"(flags)::"memory");
        return flags;
    }
    static void restore(std::uint64_t flags) noexcept {
        if (!in_ring0()) {
            if (host_irq_restore != nullptr)
                host_irq_restore(flags);
            return;
        }
        if ((flags & kInterruptFlag) != 0)
            asm volatile("sti" ::: "memory");
    }

  private:
    static constexpr std::uint64_t kInterruptFlag = 1U << 9;
    std::uint64_t flags_;
};

/** A test-and-test-and-set lock. Hold it by a SpinGuard, or before fork() (see fork.h). */
class SpinLock {
  public:
    void lock() noexcept {
        while (__atomic_exchange_n(&held_, 1U, __ATOMIC_ACQUIRE) != 0)
            while (__atomic_load_n(&held_, __ATOMIC_RELAXED) != 0)
                __builtin_ia32_pause();
    }
    void unlock() noexcept { __atomic_store_n(&held_, 0U, __ATOMIC_RELEASE); }

  private:
    std::uint32_t held_ = 0;
};

/** Holds a SpinLock with interrupts masked. */
class SpinGuard {
  public:
    explicit SpinGuard(SpinLock& lock) noexcept : lock_(lock) { lock_.lock(); }
    ~SpinGuard() { lock_.unlock(); }
    SpinGuard(const SpinGuard&) = delete;
    SpinGuard& operator=(const SpinGuard&) = delete;

  private:
    IrqGuard irq_;  // first: masked before the lock is taken, until after it is given back
    SpinLock& lock_;
};

}  // namespace dune::mm
