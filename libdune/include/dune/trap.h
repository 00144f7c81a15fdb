// SPDX-License-Identifier: MIT
/**
 * @file
 * Trap handlers for C++: registered for a scope, for all threads of the process.
 *
 * Context of the constructors and destructors: host mode, ring 0. That of handlers: libdune/dune.h.
 */
#pragma once

#include <cstdint>

#include "libdune/dune.h"

namespace dune {

/** Exceptions (SDM vol. 3, "Protected-Mode Exceptions and Interrupts"). */
enum class Vector : std::uint8_t {
    DivideError = T_DIVIDE,
    Debug = T_DEBUG,
    Breakpoint = T_BRKPT,
    Overflow = T_OFLOW,
    Bound = T_BOUND,
    InvalidOpcode = T_ILLOP,
    DeviceNotAvailable = T_DEVICE,
    InvalidTss = T_TSS,
    SegmentNotPresent = T_SEGNP,
    StackFault = T_STACK,
    GeneralProtection = T_GPFLT,
    FloatingPoint = T_FPERR,
    AlignmentCheck = T_ALIGN,
    SimdFloatingPoint = T_SIMDERR,
};

/** What a trap interrupted. */
using Frame = dune_tf;

/** What the handler of a vector was before somebody else's; opaque. */
using SavedHandler = void (*)();

/** Take over a vector. @return what restore_handler() wants. For the guards' inline code. */
SavedHandler exchange_handler(unsigned vector, dune_intr_cb handler) noexcept;
/** Give a vector back. */
void restore_handler(unsigned vector, SavedHandler handler) noexcept;
/** Take over page faults. @return the handler before */
dune_pgflt_cb exchange_page_fault_handler(dune_pgflt_cb handler) noexcept;
/** Take over system calls of ring 3. @return the handler before */
dune_syscall_cb exchange_syscall_handler(dune_syscall_cb handler) noexcept;

/** Handles an exception or interrupt. */
class TrapGuard {
  public:
    /** Have handler called for an exception. */
    TrapGuard(Vector vector, dune_intr_cb handler) noexcept
        : TrapGuard(static_cast<unsigned>(vector), handler) {}
    /**
     * Have handler called for a vector.
     * @param vector  0..255, but not T_PGFLT, which has a guard of its own, and not T_DBLFLT
     * @param handler as of dune_register_intr_handler()
     */
    TrapGuard(unsigned vector, dune_intr_cb handler) noexcept
        : vector_(vector), before_(exchange_handler(vector, handler)) {}
    ~TrapGuard() { restore_handler(vector_, before_); }
    TrapGuard(const TrapGuard&) = delete;
    TrapGuard& operator=(const TrapGuard&) = delete;

  private:
    unsigned vector_;
    SavedHandler before_;
};

/** Handles page faults. */
class PageFaultGuard {
  public:
    /** Have handler called for page faults. */
    explicit PageFaultGuard(dune_pgflt_cb handler) noexcept
        : before_(exchange_page_fault_handler(handler)) {}
    ~PageFaultGuard() { exchange_page_fault_handler(before_); }
    PageFaultGuard(const PageFaultGuard&) = delete;
    PageFaultGuard& operator=(const PageFaultGuard&) = delete;

  private:
    dune_pgflt_cb before_;
};

/** Handles system calls of ring 3. */
class SyscallGuard {
  public:
    /** Have handler called for system calls of ring 3. */
    explicit SyscallGuard(dune_syscall_cb handler) noexcept
        : before_(exchange_syscall_handler(handler)) {}
    ~SyscallGuard() { exchange_syscall_handler(before_); }
    SyscallGuard(const SyscallGuard&) = delete;
    SyscallGuard& operator=(const SyscallGuard&) = delete;

  private:
    dune_syscall_cb before_;
};

/** Masks interrupts, and so signals, for a scope. Context: ring 0. */
class InterruptGuard {
  public:
    InterruptGuard() noexcept : on_((read_rflags() & FL_IF) != 0) { cli(); }
    ~InterruptGuard() {
        if (on_)
            sti();
    }
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;

  private:
    bool on_;
};

}  // namespace dune
