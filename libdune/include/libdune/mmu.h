/* SPDX-License-Identifier: MIT */
/**
 * @file
 * x86-64 paging as the hardware defines it (Intel SDM vol. 3, "4-Level Paging"),
 * under the names the published libdune interface uses.
 *
 * Levels are numbered from the leaf: 0 is the page table (4 KiB entries), 1 the
 * page directory (2 MiB), 2 the page-directory-pointer table (1 GiB), 3 the PML4.
 */
#ifndef LIBDUNE_MMU_H
#define LIBDUNE_MMU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A paging-structure entry of any level. */
typedef uint64_t ptent_t;
/** A guest-physical address: what a page-table entry and CR3 hold. */
typedef uint64_t physaddr_t;

/* Page sizes. */
#define PGSHIFT 12
#define PGSIZE (1 << PGSHIFT)
#define PGMASK (PGSIZE - 1)
#define BIG_PGSHIFT 21
#define BIG_PGSIZE (1 << BIG_PGSHIFT)
#define BIG_PGMASK (BIG_PGSIZE - 1)
#define BIG_1GB_PGSHIFT 30
#define BIG_1GB_PGSIZE (1UL << BIG_1GB_PGSHIFT)
#define BIG_1GB_PGMASK (BIG_1GB_PGSIZE - 1)

/* Page number, first address and offset within the page of an address. */
#define PPN(la) (((uintptr_t)(la)) >> PGSHIFT)
#define PGADDR(la) (((uintptr_t)(la)) & ~((uintptr_t)PGMASK))
#define PGOFF(la) (((uintptr_t)(la)) & (uintptr_t)PGMASK)
#define BIG_PPN(la) (((uintptr_t)(la)) >> BIG_PGSHIFT)
#define BIG_PGADDR(la) (((uintptr_t)(la)) & ~((uintptr_t)BIG_PGMASK))
#define BIG_PGOFF(la) (((uintptr_t)(la)) & (uintptr_t)BIG_PGMASK)
#define BIG_1GB_PGADDR(la) (((uintptr_t)(la)) & ~((uintptr_t)BIG_1GB_PGMASK))
#define BIG_1GB_PGOFF(la) (((uintptr_t)(la)) & (uintptr_t)BIG_1GB_PGMASK)

/* Paging structures: entries in one, and the part of an address that level n translates. */
#define NPTBITS 9
#define NPTLVLS 3 /* the highest level: PML4 */
#define NPTENTRIES (1 << NPTBITS)
#define PDXMASK (NPTENTRIES - 1)
#define PDSHIFT(n) (PGSHIFT + NPTBITS * (n))
#define PDX(n, la) ((((uintptr_t)(la)) >> PDSHIFT(n)) & (uintptr_t)PDXMASK)
#define PDADDR(n, i) (((uintptr_t)(i)) << PDSHIFT(n))

/* Bits of an entry that the hardware defines. */
#define PTE_P 0x001UL      /**< present */
#define PTE_W 0x002UL      /**< writable */
#define PTE_U 0x004UL      /**< usable from ring 3 */
#define PTE_PWT 0x008UL    /**< write-through: bit 0 of the PAT index */
#define PTE_PCD 0x010UL    /**< cache disable: bit 1 of the PAT index */
#define PTE_A 0x020UL      /**< accessed, set by the CPU */
#define PTE_D 0x040UL      /**< dirty, set by the CPU; leaves only */
#define PTE_PS 0x080UL     /**< level 1 and 2: this entry maps a large page */
#define PTE_PAT 0x080UL    /**< level 0: bit 2 of the PAT index */
#define PTE_G 0x100UL      /**< global: survives a change of CR3 when CR4.PGE is set */
#define PTE_AVAIL 0xe00UL  /**< left to software by the hardware */
#define PTE_NX (1UL << 63) /**< no instruction fetch */

/* Bits that the hardware ignores and libdune gives a meaning. */
#define PTE_USR1 (1UL << 9)  /**< the program's */
#define PTE_USR2 (1UL << 10) /**< the program's */
#define PTE_USR3 (1UL << 11) /**< the program's */
#define PTE_POOL (1UL << 52) /**< the entry holds a reference to its page of the page pool */
#define PTE_EXCL (1UL << 53) /**< not shared with a clone: rights may be changed without a look */
#define PTE_COW (1UL << 58)  /**< copy on write: a write is to be allowed after a copy */

/* The address and the rest of an entry. */
#define PTE_ADDR_MASK 0x000ffffffffff000UL
#define PTE_ADDR(e) (((physaddr_t)(e)) & PTE_ADDR_MASK)
#define PTE_FLAGS(e) (((ptent_t)(e)) & ~PTE_ADDR_MASK)

/* Page-fault error code (SDM vol. 3, "Page-Fault Exceptions"). */
#define FEC_P 0x01UL   /**< the page was present: a protection violation */
#define FEC_W 0x02UL   /**< a write */
#define FEC_U 0x04UL   /**< from ring 3 */
#define FEC_RSV 0x08UL /**< a reserved bit was set in an entry */
#define FEC_I 0x10UL   /**< an instruction fetch */
#define FEC_PK 0x20UL  /**< a protection-key violation */
#define FEC_PR FEC_P   /**< the same by its older name */
#define FEC_WR FEC_W   /**< the same by its older name */

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_MMU_H */
