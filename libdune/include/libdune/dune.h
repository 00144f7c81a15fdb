/* SPDX-License-Identifier: MIT */
/**
 * @file
 * libdune: a Linux process in ring 0, still a Linux process.
 *
 * dune_init_and_enter() puts the calling thread into Dune mode: VMX non-root, ring 0, in
 * its own address space. The C library goes on working; privileged instructions, the
 * functions of this header and of libdune/vm.h work as well.
 *
 * Three contexts are named below. *Host mode*: the thread as Linux made it. *Ring 0*: after
 * dune_enter(). *Trap*: ring 0, in a handler that an exception, an interrupt or a system call
 * of ring 3 called. Functions return 0 or a negative errno if they do not say otherwise.
 */
#ifndef LIBDUNE_DUNE_H
#define LIBDUNE_DUNE_H

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "libdune/cpu-x86.h"
#include "libdune/elf.h"
#include "libdune/mmu.h"
#include "libdune/page.h"
#include "libdune/procmap.h"
#include "libdune/vm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Start ------------------------------------------------------------------------------- */

/**
 * Prepare the process: open /dev/dune, make the page tables (`pgroot`).
 *
 * Says on stderr what to do if it fails.
 * @param map_full true: every address that the process maps now or later is usable in ring 0.
 *                 false: what is mapped now is; of what is mapped later, what lies in a GiB of
 *                 its own is a page fault (a handler may map it) until dune_mmap() or
 *                 dune_vm_map_phys() maps it.
 * @return -ENOENT (no device: module not loaded), -EACCES, -ENODEV (no VT-x), -EPROTO (module and
 *         library do not fit), -ENOMEM; 0 as well if it was done before.
 * Context: host mode.
 */
int dune_init(bool map_full);

/**
 * Put the calling thread into Dune mode. Each new thread and forked child, which start in
 * host mode, calls it again.
 * @return -EPERM before dune_init(), -ENOMEM, or an error of the device; 0 in Dune mode already.
 * Context: host mode.
 */
int dune_enter(void);

/** Both. */
static inline int dune_init_and_enter(void) {
    int ret = dune_init(true);

    return ret ? ret : dune_enter();
}

/**
 * Put the calling thread back into host mode, where it goes on after this call.
 * dune_enter() brings it to Dune mode again.
 * @return -EPERM in host mode.
 * Context: ring 0, not in a trap.
 */
int dune_leave(void);

/** Is the calling code in ring 0? @return true in Dune mode, false in host mode and ring 3. */
static inline bool dune_in_guest(void) {
    return (read_cs() & 3) == 0;
}

/* ---- Small services ----------------------------------------------------------------------- */

/**
 * printf to stdout without the C library's locks and buffers.
 *
 * At most 1,023 bytes a call. Context: any, traps too.
 * @return bytes written or a negative errno.
 */
int dune_printf(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
/** The same with the arguments of a va_list. */
int dune_vprintf(const char* fmt, va_list args) __attribute__((format(printf, 1, 0)));

/** End the process at once, with exit status 1. Context: any. */
void dune_die(void) __attribute__((noreturn));

/**
 * mmap(2) that also maps the range in the page tables.
 * @return the address or MAP_FAILED. Context: host mode, ring 0.
 */
void* dune_mmap(void* addr, size_t length, int prot, int flags, int fd, off_t offset);

/** A handler of signal(2). */
typedef void (*sighandler_t)(int);

/**
 * signal(2), with its BSD meaning; the handler runs in Dune mode.
 * @return the handler before, or SIG_ERR.
 */
sighandler_t dune_signal(int sig, sighandler_t cb);

/** The FS base that ring 3 had or will have. Context: ring 0, trap. */
unsigned long dune_get_user_fs(void);
/** Give ring 3 an FS base. Context: ring 0, trap. */
void dune_set_user_fs(unsigned long fs_base);

/** The time-stamp counter. */
static inline unsigned long dune_get_ticks(void) {
    return rdtscll();
}

/** In a value for CR3, with CR4.PCIDE set: keep what the TLB has of that PCID. */
#define CR3_NOFLUSH (1UL << 63)

/** Load CR3: the guest-physical address of a PML4, a PCID, CR3_NOFLUSH. Context: ring 0. */
static inline void load_cr3(unsigned long cr3) {
    write_cr3(cr3);
}

/** Forget all translations of the current PCID but global ones. Context: ring 0. */
static inline void dune_flush_tlb(void) {
    load_cr3(read_cr3() & ~CR3_NOFLUSH);
}

/** Forget the translation of one page. Context: ring 0. */
static inline void dune_flush_tlb_one(unsigned long addr) {
    invlpg((const void*)addr);
}

/* ---- Traps -------------------------------------------------------------------------------- */

/**
 * What a trap interrupted. A handler may change it; it is what execution goes on with.
 */
struct dune_tf {
    /* A general register. */
    uint64_t rdi;
    uint64_t rsi;
    uint64_t rdx;
    uint64_t rcx;
    uint64_t r8;
    uint64_t r9;
    uint64_t r10;
    uint64_t r11;
    uint64_t rbx;
    uint64_t rbp;
    uint64_t r12;
    uint64_t r13;
    uint64_t r14;
    uint64_t r15;
    uint64_t rax;

    uint64_t err; /**< error code; 0 where the exception has none, and for interrupts */
    /* What the CPU goes on with. */
    uint64_t rip;
    uint64_t cs;
    uint64_t rflags;
    uint64_t rsp;
    uint64_t ss;
};

/* Argument of a system call, as a system-call handler sees it. */
#define ARG0(tf) ((tf)->rdi)
#define ARG1(tf) ((tf)->rsi)
#define ARG2(tf) ((tf)->rdx)
#define ARG3(tf) ((tf)->r10)
#define ARG4(tf) ((tf)->r8)
#define ARG5(tf) ((tf)->r9)

/** Signal n is interrupt DUNE_SIGNAL_INTR_BASE + n; those above 54 are all interrupt 255. */
#define DUNE_SIGNAL_INTR_BASE 200

/** Handler of an exception, interrupt or signal. */
typedef void (*dune_intr_cb)(struct dune_tf* tf);
/** Handler of page faults: address, FEC_*, frame. */
typedef void (*dune_pgflt_cb)(uintptr_t addr, uint64_t fec, struct dune_tf* tf);
/** Handler of system calls of ring 3. */
typedef void (*dune_syscall_cb)(struct dune_tf* tf);

/**
 * Call cb for a vector, with interrupts masked, on the interrupted stack (below its red zone)
 * or, from ring 3, on the stack of dune_jump_to_user(). Vector registers are preserved. It may
 * leave by siglongjmp(), after sti().
 * @param vec 0..255
 * @param cb  NULL: back to the default, which for an exception is the signal that Linux would send.
 * @return -EINVAL for a vector outside 0..255 or T_PGFLT (dune_register_pgflt_handler() has it).
 * Context: host mode, ring 0, trap. For all threads.
 */
int dune_register_intr_handler(int vec, dune_intr_cb cb);

/**
 * Call cb for a signal, as interrupt DUNE_SIGNAL_INTR_BASE + signum: with interrupts masked,
 * on the thread that Linux chose for the signal. Interrupted system calls are restarted. A thread
 * in host mode has no frame to show, and ignores the signal.
 * @return -EINVAL for a signal that cannot have a handler.
 * Context: host mode, ring 0.
 */
int dune_register_signal_handler(int signum, dune_intr_cb cb);

/**
 * Call cb for page faults: of the page tables, and of Linux (where a segmentation fault would
 * be sent).
 * It may use vector registers and read and change the frame. Its code is looked at here: vector
 * registers are not saved for one that names none, nor in what it calls, and only those registers
 * that a function may change for one that looks at no frame and needs no others. Calls of
 * dune_vm_mprotect() are fine for that; by pointers, of system calls and of what is bound lazily
 * are not, so that all is saved. Who changes the handler's code afterwards registers it again.
 * @param cb gets the address, the error code (FEC_*) and the frame. NULL: the default.
 * Context: host mode, ring 0, trap. For all threads.
 */
void dune_register_pgflt_handler(dune_pgflt_cb cb);

/**
 * The same for a handler that promises not to touch vector registers (compiled with
 * -mgeneral-regs-only and calling nothing that is not), whatever its code looks like.
 */
void dune_register_pgflt_handler_general_regs(dune_pgflt_cb cb);

/** Call cb for system calls of ring 3. It puts the result into tf->rax. */
void dune_register_syscall_handler(dune_syscall_cb cb);

/**
 * Let Linux do the system call in the frame, and put the result into tf->rax.
 *
 * If a signal for the program came first, the frame is set back to the SYSCALL instruction
 * instead, so that ring 3 does the call again after the signal's handler.
 * A forked child returns from it in host mode: see dune_in_guest().
 * Context: trap (system-call handler), ring 0.
 */
void dune_passthrough_syscall(struct dune_tf* tf);

/** Go on with what the frame says, in ring 0 or ring 3. Context: ring 0, trap. */
void dune_pop_trap_frame(struct dune_tf* tf) __attribute__((noreturn));

/**
 * Run ring 3 from the frame on (its cs, ss and privileged flags are set here), until a handler
 * calls dune_ret_from_user().
 * @return what was given to dune_ret_from_user(); -EPERM in host mode.
 * Context: ring 0. May be nested in a handler.
 */
int dune_jump_to_user(struct dune_tf* tf);

/** Make the innermost dune_jump_to_user() of this thread return ret. Context: trap from ring 3. */
void dune_ret_from_user(int ret) __attribute__((noreturn));

/** Print the frame to stderr. Context: any. */
void dune_dump_trap_frame(struct dune_tf* tf);

/**
 * Turn on SMEP and SMAP where the CPU has them: ring 0 can neither execute nor touch what
 * ring 3 may use. Off by default, since programs of the published interface share pages
 * with their ring 3. From then on use dune_copy_from_user() and dune_copy_to_user().
 * @return the CR4 bits that are on. For threads that enter later, and in ring 0 for this one.
 */
uint64_t dune_protect_supervisor(void);

/**
 * Copy from or to memory that ring 3 may use, without trusting the address.
 * @return 0, or -EFAULT if ring 3 may not do what was asked; parts may have been copied.
 * Context: ring 0, trap.
 */
int dune_copy_from_user(void* to, const void* user, size_t len);
/** The other way. */
int dune_copy_to_user(void* user, const void* from, size_t len);

/* ---- Interrupts between threads -------------------------------------------------------------
 * Each thread in Dune mode has an identity like a local APIC's; an interrupt sent to it comes
 * through the interrupt table, when its RFLAGS.IF allows, whatever it is doing.
 */

/** Identity of the calling thread. Context: ring 0, trap. */
uint32_t dune_apic_id(void);
/**
 * Identity of the thread in Dune mode that ran last on a CPU.
 * @param cpu   Linux' number of it
 * @param error may be NULL; set if there is none
 */
uint32_t dune_apic_id_for_cpu(uint32_t cpu, bool* error);
/** Send vector 32..255 to a thread. Context: host mode, ring 0, trap. */
void dune_apic_send_ipi(uint8_t vector, uint32_t apic_id);
/** End of interrupt: nothing is left to do here, kept for programs that call it. */
void dune_apic_eoi(void);

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_DUNE_H */
