// SPDX-License-Identifier: MIT
/**
 * @file
 * What the threads of the process share: the device, the page tables of ring 0, the list of
 * threads.
 */
#pragma once

#include <cstdint>

#include "kern/dune.h"
#include "thread.h"

namespace dune::rt {

struct Process {
    int device;  ///< -1 before dune_init()
    int pid;     ///< of the process that opened it
    bool map_full;
    bool fast_entry;   ///< the form of the entry code
    bool large_pages;  ///< the CPU maps 1 GiB by one entry
    dune_info info;
};

/** Read-mostly; changed by dune_init() and, in a forked child, by dune_enter(). */
extern Process process;

/** Threads in Dune mode, under a lock that is held with interrupts masked. */
void threads_add(Thread& thread) noexcept;
void threads_remove(Thread& thread) noexcept;
/** In a forked child: none of them is there any more. */
void threads_forget() noexcept;
/** Call f on each until it answers true. f may not call these functions. */
bool threads_find(bool (*f)(Thread&, void*) noexcept, void* context) noexcept;

/** Open the device and read what it can do: 0 or a negative errno, with a line on stderr. */
int device_open() noexcept;
/** In a forked child: a device of its own, with the same slots. */
int device_reopen() noexcept;
/** dune_enter(), with these flags in ring 0. */
int enter(std::uint64_t rflags) noexcept;

/** Make a thread's vCPU and map its pages. */
int vcpu_open(Thread& thread) noexcept;

/** Make pgroot, with all that the process maps now. */
int ring0_map_init() noexcept;
/** Map a GiB (address >> 30) for ring 0 in a root. @return 0 or a negative errno */
int ring0_map_slot(ptent_t* root, std::uint32_t slot) noexcept;
/** Map a range in pgroot; a reservation, with map_full, as it is used. @return 0 or a negative
 * errno */
int ring0_map_range(std::uintptr_t va, std::size_t len) noexcept;
/** CR3 for pgroot. */
std::uint64_t pgroot_cr3() noexcept;

/** Print one line to stderr, with "dune: " before it. Context: any. */
void complain(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));

}  // namespace dune::rt
