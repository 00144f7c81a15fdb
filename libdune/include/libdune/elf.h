/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Reading and loading ELF files (64-bit, little endian, x86-64), the published functions.
 *
 * A file is checked when it is opened: headers that lie outside of it, overflow, are of the
 * wrong size or contradict each other are refused with -ENOEXEC, so that the callbacks see
 * only what can be used. Segments are checked further by the C++ layer in dune/elf.h.
 *
 * Context: host mode and ring 0, not trap handlers (memory is allocated).
 */
#ifndef LIBDUNE_ELF_H
#define LIBDUNE_ELF_H

#include <elf.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dune_elf {
    int fd;             /**< the file, or -1 if it is only in memory */
    unsigned char* mem; /**< the file's contents, read only */
    int len;            /**< bytes */
    Elf64_Ehdr hdr;     /**< a copy of the ELF header */
    Elf64_Phdr* phdr;   /**< hdr.e_phnum program headers */
    Elf64_Shdr* shdr;   /**< hdr.e_shnum section headers, or NULL */
    char* shdrstr;      /**< names of the sections, or NULL */
    void* priv;         /**< the program's: the callbacks find it here */
};

/** A result other than 0 ends the iteration. */
typedef int (*dune_elf_phcb)(struct dune_elf* elf, Elf64_Phdr* phdr);
/** The same with the name and the number of the section. */
typedef int (*dune_elf_shcb)(struct dune_elf* elf, const char* sname, int snum, Elf64_Shdr* shdr);

/**
 * Open and check a file.
 * @return 0; the error of open(2), fstat(2) or mmap(2); -ENOEXEC if it is no ELF file or a
 *         damaged one; -EFBIG above 2 GiB. On an error nothing is left to close.
 */
int dune_elf_open(struct dune_elf* elf, const char* path);

/** The same for a file in memory, which must stay until dune_elf_close(). */
int dune_elf_open_mem(struct dune_elf* elf, void* mem, int len);

/** Release what opening took. @return 0, or -EINVAL if elf is not open */
int dune_elf_close(struct dune_elf* elf);

/** Print the headers to standard output. @return 0 or -EINVAL */
int dune_elf_dump(struct dune_elf* elf);

/** Call cb for each section. @return what cb ended with, or 0 */
int dune_elf_iter_sh(struct dune_elf* elf, dune_elf_shcb cb);

/** Call cb for each program header. @return what cb ended with, or 0 */
int dune_elf_iter_ph(struct dune_elf* elf, dune_elf_phcb cb);

/**
 * Map one PT_LOAD segment into memory, at its address plus off, with its permissions.
 *
 * The pages are mapped in the process (as MAP_FIXED does: what was there is replaced), the
 * part beyond the file is zero.
 * @param elf  an open file
 * @param phdr one of its program headers
 * @param off  bias in bytes, a multiple of the page size
 * @return 0; -EINVAL if phdr is no segment that can be loaded there; the error of mmap(2)
 */
int dune_elf_load_ph(struct dune_elf* elf, Elf64_Phdr* phdr, off_t off);

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_ELF_H */
