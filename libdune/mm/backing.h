// SPDX-License-Identifier: MIT
/**
 * @file
 * What memory management needs from the rest of the runtime, and from Linux.
 *
 * system_backing() is what programs run on: mmap, the slot map, INVLPG. A unit test puts
 * in a fake that counts, refuses and moves addresses about.
 */
#pragma once

#include <cstddef>
#include <cstdint>

#include "dune/result.h"
#include "libdune/mmu.h"

namespace dune::mm {

/** All pointers are set unless they say otherwise. Called in host mode, ring 0 and traps. */
struct Backing {
    /**
     * Reserve address space that costs no memory.
     * @param hint  where it should be, or null for anywhere
     * @param align a power of two, in bytes
     * @return the address, or null. A taken hint is no error: any address will do.
     */
    void* (*reserve)(void* hint, std::size_t len, std::size_t align) noexcept;
    void (*unreserve)(void* va, std::size_t len) noexcept;

    /** Put zeroed memory into a part of a reserved range: 0 or -ENOMEM. */
    int (*commit)(void* va, std::size_t len) noexcept;
    /** The same for a range of which little is ever touched: only that is to cost memory. */
    int (*commit_sparse)(void* va, std::size_t len) noexcept;
    /** Give that memory back to Linux; the range stays reserved. */
    void (*decommit)(void* va, std::size_t len) noexcept;

    /** Choose guest-physical addresses, contiguous, for a reserved range that is slot aligned. */
    Result<physaddr_t> (*bind)(void* va, std::size_t len) noexcept;

    /** Guest-physical address of any user address. */
    Result<physaddr_t> (*va_to_pa)(std::uintptr_t va) noexcept;
    /** User address of a guest-physical one, of any memory. */
    Result<std::uintptr_t> (*pa_to_va)(physaddr_t pa) noexcept;

    /** The PML4 in CR3. */
    ptent_t* (*current_root)() noexcept;

    /**
     * Host mode only, may be null: told what would be INVLPG and a flush of all in ring 0.
     * In ring 0 the instructions are used directly.
     */
    void (*host_flush_one)(std::uintptr_t va) noexcept;
    void (*host_flush_all)() noexcept;

    /** Host mode only, may be null: mask and unmask what could interrupt this thread. */
    std::uint64_t (*host_irq_save)() noexcept;
    void (*host_irq_restore)(std::uint64_t flags) noexcept;

    /** Print one line and end the process. Does not return. */
    void (*fatal)(const char* message, std::uint64_t value) noexcept;
};

/**
 * The Backing of real programs. Of its members only `current_root` (it reads CR3 in ring 0 and
 * gives `pgroot` in host mode) and `fatal` (write to stderr, abort) may want a better one of
 * the runtime; bind, va_to_pa and pa_to_va use mm::slots(), which the runtime must init() first.
 */
const Backing& system_backing() noexcept;

/** The one in use; system_backing() unless set_backing() was called. */
const Backing& backing() noexcept;

/** Before anything else in mm/ is used, and while no pages are in use. Copies it. */
void set_backing(const Backing& backing) noexcept;

[[noreturn]] inline void fatal(const char* message, std::uint64_t value) noexcept {
    backing().fatal(message, value);
    __builtin_trap();
}

}  // namespace dune::mm
