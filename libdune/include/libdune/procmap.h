/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The process' own memory map, from /proc/self/maps (see proc(5)).
 *
 * Context: host mode, ring 0, trap handlers. Nothing is allocated; about 13 KiB of stack are
 * used. A change of the map while it is read may be seen or not, but whatever stays mapped is
 * seen.
 */
#ifndef LIBDUNE_PROCMAP_H
#define LIBDUNE_PROCMAP_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What an area is, by the name that Linux gives it. */
enum {
    PROCMAP_TYPE_UNKNOWN = 0x00,   /**< a name in brackets that is none of these */
    PROCMAP_TYPE_FILE = 0x01,      /**< a mapped file; path names it */
    PROCMAP_TYPE_ANONYMOUS = 0x02, /**< no name, or one given by prctl(PR_SET_VMA) */
    PROCMAP_TYPE_HEAP = 0x03,      /**< [heap]: what brk() moves */
    PROCMAP_TYPE_STACK = 0x04,     /**< [stack]: the main thread's */
    PROCMAP_TYPE_VSYSCALL = 0x05,  /**< [vsyscall]: in the kernel's half */
    PROCMAP_TYPE_VDSO = 0x06,      /**< [vdso] */
    PROCMAP_TYPE_VVAR = 0x07,      /**< [vvar] and [vvar_vclock] */
};

/** One area. */
struct dune_procmap_entry {
    unsigned long begin;  /**< first address */
    unsigned long end;    /**< first address after it */
    unsigned long offset; /**< of begin in the file, in bytes */
    bool r;               /**< readable */
    bool w;               /**< writable */
    bool x;               /**< executable */
    bool p;               /**< private: writes are not seen by others */
    char* path;           /**< as Linux prints it, "" without one; valid during the callback */
    int type;             /**< PROCMAP_TYPE_* */
};

/** Called with an area. */
typedef void (*dune_procmap_cb)(const struct dune_procmap_entry* entry);

/**
 * Call cb for every area, in ascending order.
 * @return 0; the error of opening or reading the file; -EINVAL if it is not of the known format
 */
int dune_procmap_iterate(dune_procmap_cb cb);

/** Print the map to standard output. */
void dune_procmap_dump(void);

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_PROCMAP_H */
