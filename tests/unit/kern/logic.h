// SPDX-License-Identifier: MIT
//
// The module's page-table and slot logic (kern/vmx/ept.c, process.c, mirror.c) as a library of user
// space: one process at a time with one vCPU, over a page table that the test makes.

#ifndef DUNE_TESTS_UNIT_KERN_LOGIC_H
#define DUNE_TESTS_UNIT_KERN_LOGIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LOGIC_READ = 1,
    LOGIC_WRITE = 2,
    LOGIC_EXEC = 4,
    LOGIC_MEMTYPE_WB = 6 << 3,  // SDM table 12-10, where an EPT entry has it
};

// What an address leads to in the EPT tables, as the CPU would walk them (SDM 29.3.2).
struct logic_found {
    bool present;
    int level;        // of the leaf: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB
    uint64_t pa;      // of the address itself
    unsigned access;  // LOGIC_* and the memory type
    bool accessed;
    bool ignore_pat;
    bool malformed;  // a reserved bit, or an address that is not aligned
};

// Whether the host's page table has five levels (LA57), from the next process on.
void logic_host_five_levels(bool on);
// A process with nothing in it. Largest level of a leaf, accessed bits, width of its addresses.
void logic_start(int max_level, bool accessed_bits, unsigned gpa_bits);
// As on a CPU with ITLB_MULTIHIT, until the end.
void logic_small_code(void);
// Frees it; how many pages are allocated then, which should be none.
size_t logic_end(void);

bool logic_map(uint64_t gpa, uint64_t pa, int level, unsigned access);
// Whether CPUs would have to flush.
bool logic_zap(uint64_t start, uint64_t end);
// The same, and tables that are empty now are freed.
bool logic_unmap(uint64_t start, uint64_t end);
bool logic_young(uint64_t start, uint64_t end, bool clear, bool* flush);
struct logic_found logic_walk(uint64_t gpa);
uint64_t logic_tables(void);            // that the process counts
uint64_t logic_reachable_tables(void);  // that are reached from the root
uint64_t logic_flush_gen(void);
size_t logic_kicks(void);  // how often other CPUs were called
size_t logic_locks(void);  // how often a lock was taken
// Called once, while they are.
void logic_on_kick(void (*function)(void));

int logic_set_slots(uint32_t first, uint32_t count, const uint32_t* va_slots);
uint32_t logic_slot(uint32_t slot);
// Which slot shows a virtual one; 0 if none does.
uint32_t logic_shown_in(uint32_t va_slot);

// The host's page table: an entry of the CPU's format at a level, or 0 to take it out.
void logic_host_set(uint64_t va, int level, uint64_t entry);
// Virtual memory areas: one, and what an access to it may do (LOGIC_*).
void logic_host_vma(uint64_t start, uint64_t end, unsigned access);
// Called when the module has Linux map an address, which is allowed; may change the page table.
void logic_host_on_fault(void (*function)(uint64_t va, bool write));

bool logic_try(uint64_t gpa, unsigned access);
int logic_fault(uint64_t gpa, unsigned access);
uint32_t logic_fault_signal(void);
int32_t logic_fault_code(void);
void logic_invalidate_start(uint64_t start, uint64_t end);
void logic_unmap_start(uint64_t start, uint64_t end);  // the same, for munmap()
void logic_invalidate_end(uint64_t start, uint64_t end);
bool logic_test_young(uint64_t va);
bool logic_clear_flush_young(uint64_t start, uint64_t end);
bool logic_clear_young(uint64_t start, uint64_t end);

#ifdef __cplusplus
}
#endif

#endif
