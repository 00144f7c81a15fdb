// SPDX-License-Identifier: MIT
/** @file What a vector does, also before anybody registers a handler. */
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "handler_scan.h"
#include "kern/dune.h"
#include "libdune/dune.h"

namespace dune::rt {

/** What handlers of vectors are really called with: also the vector and the saved vector state. */
using TrapHandler = void (*)(dune_tf* tf, std::uint64_t vector, void* fpu);

/** What Linux would make of an exception. */
struct FaultSignal {
    int sig;
    int code;
    bool at_instruction;  ///< si_addr is the instruction's address
};
FaultSignal signal_of_exception(unsigned vector) noexcept;
/** Is it Linux that refuses, not the page tables? The entry leaves the mark in the frame alone. */
bool is_from_host(const dune_tf& tf) noexcept;
/** Of a page fault of this thread, right after it: it may be one of Linux'. */
FaultSignal signal_of_page_fault(std::uintptr_t addr, std::uint64_t fec,
                                 const dune_tf& tf) noexcept;

/** The interrupt that tells a monitor of ring 3 (dune/user.h) of signals. */
constexpr unsigned kMonitorVector = 199;
/** The one that tells it that ring 3 is about to go on after a disturbance. */
constexpr unsigned kResumeVector = 198;

void set_trap_handler(unsigned vector, TrapHandler handler) noexcept;

bool tables_explain(std::uintptr_t addr, std::uint64_t fec) noexcept;

/** Copy-on-write of the tables; else the signal that Linux would send. */
void default_page_fault(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) noexcept;

/** Compare and exchange in ring 3's memory: false if it may not write there. */
bool user_compare_exchange(std::uint32_t* word, std::uint32_t from, std::uint32_t to,
                           std::uint32_t* seen) noexcept;

/** Default handlers, and the interrupt table. fast: with the fast form of the entry code. */
void traps_init(bool fast) noexcept;

/** Register a page-fault handler, for which is saved what it needs. For all threads. */
void set_page_fault_handler(dune_pgflt_cb cb, HandlerNeeds needs) noexcept;
/** The page-fault handler that the program has registered, or null. */
dune_pgflt_cb page_fault_handler() noexcept;

/** What Linux would say of a fault. */
siginfo_t describe_fault(int sig, int code, std::uintptr_t addr) noexcept;

/**
 * Do what Linux would do about a fault in the guest: call the program's handler of the signal, in
 * Dune mode, or report it and die of it.
 * @param fpu the interrupted vector state
 */
void fault_to_signal(dune_tf* tf, void* fpu, int sig, int code, std::uintptr_t addr,
                     int vector) noexcept;

/** Is there a handler of the signal that runs on a stack of its own? */
bool fault_on_alternate_stack(const dune_tf* tf, int sig) noexcept;

/** The interrupt that a signal comes by. */
constexpr unsigned signal_vector(int sig) noexcept {
    return sig < 255 - DUNE_SIGNAL_INTR_BASE ? static_cast<unsigned>(DUNE_SIGNAL_INTR_BASE + sig)
                                             : 255;
}

/** What vectors of signals do by default: run the handler that the program gave to Linux. */
void signal_interrupt(dune_tf* tf, std::uint64_t vector, void* fpu) noexcept;

/** Say what happened, where, and die of a signal. */
[[noreturn]] void report_fault(const dune_tf* tf, int vector, int sig, std::uintptr_t addr,
                               const char* what) noexcept;
/** The same for a guest that cannot go on. Host mode. */
[[noreturn]] void report_death(const dune_vcpu_page* page) noexcept;

}  // namespace dune::rt

extern "C" {
/** Copy what may not be there. @return how many bytes were not copied. Context: ring 0 (user.S) */
std::size_t dune_copy_user(void* to, const void* from, std::size_t len);
}
