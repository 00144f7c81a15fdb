/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The published page-table functions.
 *
 * A root is the virtual address of a page that holds a PML4: `pgroot`, what
 * dune_vm_clone() returned, or a zeroed page of the program's own. All other
 * paging structures come from the page pool.
 *
 * Every function returns 0 or a negative errno and, where it fails, leaves the
 * tables as they were. -EINVAL: address or length not a multiple of the page size,
 * a length of 0, a range that overflows or touches non-canonical addresses, or
 * permissions that x86 cannot express (write or execute without read). -ENOMEM: the
 * page pool is exhausted.
 *
 * TLB: a function that takes rights away or changes a translation invalidates it on
 * the CPU it runs on, in ring 0, for the current PCID. Other threads that run on the
 * same tables, and other PCIDs, are the program's to flush, as on bare hardware.
 *
 * Context: host mode, ring 0 and trap handlers, any thread; functions on one root
 * are atomic to each other. They take a spin lock with interrupts masked, so that a
 * handler may call them even if it interrupted one of them.
 */
#ifndef LIBDUNE_VM_H
#define LIBDUNE_VM_H

#include <stddef.h>
#include <stdint.h>

#include "libdune/cpu-x86.h"
#include "libdune/mmu.h"
#include "libdune/page.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The page tables that dune_init() made for the process. */
extern ptent_t* pgroot;

/* Permissions. */
#define PERM_NONE 0x0000    /**< mapped, but every access faults */
#define PERM_R 0x0001       /**< read */
#define PERM_W 0x0002       /**< write; needs PERM_R */
#define PERM_X 0x0004       /**< execute; needs PERM_R */
#define PERM_U 0x0008       /**< ring 3 may do so, too */
#define PERM_UC 0x0010      /**< uncacheable */
#define PERM_COW 0x0020     /**< a write copies the page first; overrides PERM_W */
#define PERM_BIG 0x0100     /**< use 2 MiB pages */
#define PERM_BIG_1GB 0x0200 /**< use 1 GiB pages */
#define PERM_USR1 0x1000    /**< sets PTE_USR1 */
#define PERM_USR2 0x2000    /**< sets PTE_USR2 */
#define PERM_USR3 0x4000    /**< sets PTE_USR3 */

/* Usual set of permissions: for the supervisor (ring 0) or the user (ring 3). */
#define PERM_SCODE (PERM_R | PERM_X)
#define PERM_STEXT (PERM_R | PERM_W)
#define PERM_SSTACK PERM_STEXT
#define PERM_UCODE (PERM_R | PERM_U | PERM_X)
#define PERM_UTEXT (PERM_R | PERM_U | PERM_W)
#define PERM_USTACK PERM_UTEXT

/** What dune_vm_lookup() makes if nothing is there. */
enum {
    CREATE_NONE = 0,    /**< nothing */
    CREATE_NORMAL = 1,  /**< the tables down to a 4 KiB entry */
    CREATE_BIG = 2,     /**< the tables down to a 2 MiB entry */
    CREATE_BIG_1GB = 3, /**< the tables down to a 1 GiB entry */
};

/**
 * Of functions that traps call: the address is found when the program starts. No trap ends up in
 * the dynamic linker, and dune_register_pgflt_handler() sees where a handler's call ends.
 */
#ifdef __GNUC__
#define DUNE_NO_LAZY_BINDING __attribute__((noplt))
#else
#define DUNE_NO_LAZY_BINDING
#endif

/* Bound for dune_vm_page_walk() over everything. */
#define VA_START ((void*)0)
#define VA_END ((void*)-1)

/**
 * Map [va, va + len) to [pa, pa + len), in place of what was mapped there.
 *
 * va, pa and len are multiples of the page size that perm chooses. The memory stays
 * its owner's: no reference is taken. A larger page of which the range covers a part
 * is split.
 */
int dune_vm_map_phys(ptent_t* root, void* va, size_t len, void* pa, int perm);

/** Map [va, va + len) to fresh, zeroed pages of the pool (4 KiB, or 2 MiB with PERM_BIG). */
int dune_vm_map_pages(ptent_t* root, void* va, size_t len, int perm);

/**
 * Change the permissions of what is mapped in [va, va + len); holes are skipped.
 *
 * A page that is shared with a clone stays copy-on-write when PERM_W is asked for.
 * @return also -EINVAL if nothing at all is mapped in the range.
 * Context: host mode, ring 0, trap. Vector registers are preserved.
 */
int dune_vm_mprotect(ptent_t* root, void* va, size_t len, int perm) DUNE_NO_LAZY_BINDING;

/**
 * Unmap [va, va + len), dropping the references to pages of the pool.
 *
 * Emptied tables stay until dune_vm_free() or dune_vm_prune(): other threads' paging-structure
 * caches may still hold them.
 * @return also -EINVAL if nothing at all is mapped in the range.
 */
int dune_vm_unmap(ptent_t* root, void* va, size_t len);

/**
 * Find the entry that maps va.
 *
 * If a large page maps va, its entry is given whatever create says. The program may
 * change the entry; it must then flush the TLB itself.
 * @param root    the tables
 * @param va      any address in the page
 * @param create  CREATE_*: with CREATE_NONE an empty entry is -ENOENT, otherwise missing
 *                tables are made and the entry may be 0.
 * @param pte_out where to put the address of the entry
 * @return -ENOENT, or -EEXIST if tables of smaller pages stand where a large entry is
 *         to be made.
 */
int dune_vm_lookup(ptent_t* root, void* va, int create, ptent_t** pte_out);

/** Map a page of the pool at va, taking a reference of the mapping's own. */
int dune_vm_insert_page(ptent_t* root, void* va, struct page* pg, int perm);

/** The page of the pool that is mapped at va, or NULL. No reference is taken. */
struct page* dune_vm_lookup_page(ptent_t* root, void* va);

/**
 * A copy of the tables in which pages of the pool are shared, copy-on-write on both
 * sides; dune_vm_default_pgflt_handler() makes the copies.
 *
 * Memory mapped by dune_vm_map_phys() is Linux' and is shared as it is.
 * @return the new root, or NULL if memory ran out.
 */
ptent_t* dune_vm_clone(ptent_t* root);

/** Free the tables and drop the references to pages of the pool. No CPU may use the root. */
void dune_vm_free(ptent_t* root);

/**
 * Resolve a page fault: copy a copy-on-write page.
 *
 * For page-fault handlers, on the tables in CR3. A fault that is no write to a
 * copy-on-write page ends the process with a message.
 * @param addr faulting address (CR2)
 * @param fec  error code, FEC_*
 */
void dune_vm_default_pgflt_handler(uintptr_t addr, uint64_t fec);

/** Called for an entry and the first address it maps; a result other than 0 ends the walk. */
typedef int (*page_walk_cb)(const void* arg, ptent_t* ptep, void* va);

/**
 * Call cb for every entry, of any page size, that maps something in [start_va, end_va].
 *
 * Entries with PERM_NONE are mapped, but not present. The callback may change the
 * entry; it runs without the lock, and must not unmap tables that are being walked.
 * @param root     the tables
 * @param start_va the first address
 * @param end_va   the last address, inclusive
 * @param cb       what to call
 * @param arg      its first argument
 * @return what the last callback returned
 */
int dune_vm_page_walk(ptent_t* root, void* start_va, void* end_va, page_walk_cb cb,
                      const void* arg);

/** As page_walk_cb, and told how many bytes the entry maps. */
typedef int (*dune_leaf_walk_cb)(void* arg, ptent_t* ptep, void* va, size_t size);

/** dune_vm_page_walk() for callbacks that want to know the size of pages. */
int dune_vm_leaf_walk(ptent_t* root, void* start_va, void* end_va, dune_leaf_walk_cb cb, void* arg);

/**
 * Free tables that map nothing any more.
 *
 * They are what dune_vm_unmap() leaves behind. Nobody may be using the tables: neither a CPU, but
 * for the caller's, nor somebody who holds an address from dune_vm_lookup().
 */
int dune_vm_prune(ptent_t* root);

/**
 * Guest-physical address of an address of the process.
 *
 * One lookup; a 1 GiB slot of guest-physical space is taken on the first use of a slot
 * of virtual space. @return 0 if va is no user address or guest-physical space is
 * exhausted; 0 is no valid guest-physical address.
 */
physaddr_t dune_va_to_pa(void* va);
/** The same: of a mapping. */
physaddr_t dune_mmap_addr_to_pa(void* ptr);
/** The same: of the stack. */
physaddr_t dune_stack_addr_to_pa(void* ptr);

/* ---- Inline ---------------------------------------------------------------------------------
 * What programs that trap on protected pages do most often: change the rights of one page that the
 * tables of the process map by a 4 KiB entry. All else is the function's.
 */

/**
 * Internal. The map of leaf tables of one root: for every 2 MiB of the lower half of the address
 * space how far its table is from the empty one, DUNE_LEAF_MAP_EMPTY before this; the root is one
 * word before this.
 */
extern uint64_t* dune_leaf_map;
#define DUNE_LEAF_MAP_EMPTY 8192 /**< bytes */

/* Internal: a function that is a constant, where the language has such. */
#ifdef __cplusplus
#define DUNE_CONSTANT static constexpr
#else
#define DUNE_CONSTANT static inline
#endif

/** Bits of a leaf that permissions decide. */
#define PTE_PERM_BITS \
    (PTE_P | PTE_W | PTE_U | PTE_PWT | PTE_PCD | PTE_NX | PTE_COW | PTE_USR1 | PTE_USR2 | PTE_USR3)

/** PERM_* as those bits. Without PERM_R it is not present; PTE_NX keeps it from being 0. */
DUNE_CONSTANT ptent_t dune_perm_bits(int perm) {
    return (perm & PERM_R ? PTE_P : 0) | (perm & PERM_COW ? PTE_COW : (perm & PERM_W ? PTE_W : 0)) |
           (perm & PERM_X ? 0 : PTE_NX) | (perm & PERM_U ? PTE_U : 0) |
           (perm & PERM_UC ? PTE_PCD | PTE_PWT : 0) | (perm & PERM_USR1 ? PTE_USR1 : 0) |
           (perm & PERM_USR2 ? PTE_USR2 : 0) | (perm & PERM_USR3 ? PTE_USR3 : 0);
}

/** Rights of one page, given as a constant, that x86 can express and the inline part sets. */
#define DUNE_PERM_IS_SIMPLE(perm) ((perm) == PERM_NONE || ((perm) & ~(PERM_W | PERM_X)) == PERM_R)

#if defined(__OPTIMIZE__) && defined(__GNUC__)
/** Internal: what the macro dune_vm_mprotect() stands for. */
static inline int dune_vm_mprotect_inline(ptent_t* root, void* va, size_t len, int perm) {
    const uintptr_t address = (uintptr_t)va;

    if (__builtin_constant_p(len == PGSIZE) && len == PGSIZE &&
        __builtin_constant_p(DUNE_PERM_IS_SIMPLE(perm)) && DUNE_PERM_IS_SIMPLE(perm) &&
        PGOFF(address) == 0 && address >> 47 == 0 && dune_leaf_map[-1] == (uintptr_t)root) {
        char* table = (char*)dune_leaf_map;
        /* table += dune_leaf_map[…], which compilers do in two instructions more. */
        __asm__("addq %1, %0" : "+r"(table) : "m"(dune_leaf_map[address >> BIG_PGSHIFT]) : "cc");
        ptent_t* const slot = (ptent_t*)(table - DUNE_LEAF_MAP_EMPTY) + PDX(0, address);
        /* One that lacks it, or that another thread changes meanwhile, is not this: no exchange. */
        ptent_t old = __atomic_load_n(slot, __ATOMIC_RELAXED) | PTE_EXCL;
        __asm__("" : "+r"(old)); /* else the compiler keeps what it was before, too */
        const ptent_t to = (old & ~PTE_PERM_BITS) | dune_perm_bits(perm);

        if ((read_cs() & 3) == 0 &&
            __atomic_compare_exchange_n(slot, &old, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
            invlpg(va);
            return 0;
        }
    }
    return dune_vm_mprotect(root, va, len, perm);
}
/** The function of that name, the usual case inline. */
#define dune_vm_mprotect(...) dune_vm_mprotect_inline(__VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_VM_H */
