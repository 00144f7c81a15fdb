/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The vector and floating-point state, whole: x87, SSE, AVX, AVX-512, AMX, as far as the CPU
 * and Linux have them.
 *
 * Trap handlers need none of this: libdune preserves the state around them. It is for programs
 * that switch between threads of their own.
 *
 * Context: any.
 */
#ifndef LIBDUNE_FPU_H
#define LIBDUNE_FPU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The area of FXSAVE, and the first 512 bytes of XSAVE's (SDM vol. 1, table 10-2). */
struct fxsave {
    /* As the manual names it, or reserved. */
    uint16_t fcw;
    uint16_t fsw;
    uint8_t ftw;
    uint8_t reserved0;
    uint16_t fop;
    uint64_t fpuip;
    uint64_t fpudp;
    uint32_t mxcsr;
    uint32_t mxcsrmask;
    struct {
        uint8_t bytes[10];
        uint8_t reserved[6];
    } st[8]; /**< x87 or MMX registers */
    struct {
        uint64_t low, high;
    } xmm[16];             /**< SSE registers */
    uint8_t reserved1[48]; /**< reserved */
    uint8_t software[48];  /**< left to software */
};

/** Room for all that today's CPUs have, AMX tiles included; dune_fpu_size() tells what is used. */
#define DUNE_FPU_MAX 12288

struct dune_fpu {
    struct fxsave legacy;
    uint8_t extended[DUNE_FPU_MAX - sizeof(struct fxsave)];
} __attribute__((aligned(64)));

/** The published name. */
typedef struct dune_fpu* dune_fpu_t;

/** Bytes at the start of struct dune_fpu that are used on this machine. */
size_t dune_fpu_size(void);

/** Put the state of a new thread into fp. */
void dune_fpu_init(struct dune_fpu* fp);
/** Save the CPU's state. fp was given to dune_fpu_init() once. */
void dune_fpu_save(struct dune_fpu* fp);
/** Load the CPU's state. */
void dune_fpu_load(const struct dune_fpu* fp);

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_FPU_H */
