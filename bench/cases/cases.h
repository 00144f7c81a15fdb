// SPDX-License-Identifier: MIT
/**
 * @file
 * All cases, a file a subject. Names are operation/system/variant; the same operation does the same
 * work on every system.
 */
#pragma once

#include <vector>

#include "../measure.h"

namespace bench {

using Cases = std::vector<Case>;

void add_module_cases(Cases& cases);   ///< the module alone: exits, entries
void add_call_cases(Cases& cases);     ///< system calls through libdune
void add_memory_cases(Cases& cases);   ///< first touch, page walks
void add_trap_cases(Cases& cases);     ///< faults, appel1 and appel2
void add_protect_cases(Cases& cases);  ///< what the years added for them
void add_ring3_cases(Cases& cases);    ///< interposition
void add_process_cases(Cases& cases);  ///< roots, processes, threads
void add_program_cases(Cases& cases);  ///< whole programs, in the sandbox

/** The option with which this program samples getpid() and prints the ticks: in the sandbox. */
inline constexpr const char* kSampleGetpid = "--sample-getpid";
void sample_getpid_to_stdout();

/** Enter Dune mode, counting exits; the page tables map what there will be. */
void enter_dune(Measure& measure);

/** SYSCALL, with nothing of the C library around it. */
[[gnu::always_inline]] inline long raw_syscall(long number, long a = 0, long b = 0,
                                               long c = 0) noexcept {
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory");
    return result;
}

}  // namespace bench
