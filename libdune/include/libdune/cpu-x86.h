/* SPDX-License-Identifier: MIT */
/**
 * @file
 * x86-64 instructions, registers and numbers that programs in ring 0 use.
 *
 * Context: ring 0 (Dune mode) unless an entry says "any".
 */
#ifndef LIBDUNE_CPU_X86_H
#define LIBDUNE_CPU_X86_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Exceptions (SDM vol. 3, "Protected-Mode Exceptions and Interrupts"). */
#define T_DIVIDE 0   /* #DE divide error */
#define T_DEBUG 1    /* #DB debug */
#define T_NMI 2      /* non-maskable interrupt */
#define T_BRKPT 3    /* #BP breakpoint */
#define T_OFLOW 4    /* #OF overflow */
#define T_BOUND 5    /* #BR BOUND range exceeded */
#define T_ILLOP 6    /* #UD invalid opcode */
#define T_DEVICE 7   /* #NM device not available */
#define T_DBLFLT 8   /* #DF double fault */
#define T_TSS 10     /* #TS invalid TSS */
#define T_SEGNP 11   /* #NP segment not present */
#define T_STACK 12   /* #SS stack-segment fault */
#define T_GPFLT 13   /* #GP general protection */
#define T_PGFLT 14   /* #PF page fault */
#define T_FPERR 16   /* #MF x87 floating point */
#define T_ALIGN 17   /* #AC alignment check */
#define T_MCHK 18    /* #MC machine check */
#define T_SIMDERR 19 /* #XM SIMD floating point */

/* Bit of RFLAGS. */
#define FL_CF 0x00000001
#define FL_PF 0x00000004
#define FL_AF 0x00000010
#define FL_ZF 0x00000040
#define FL_SF 0x00000080
#define FL_TF 0x00000100
#define FL_IF 0x00000200
#define FL_DF 0x00000400
#define FL_OF 0x00000800
#define FL_IOPL_MASK 0x00003000
#define FL_NT 0x00004000
#define FL_RF 0x00010000
#define FL_AC 0x00040000
#define FL_ID 0x00200000

/* Bit of CR0 or CR4 (SDM vol. 3, "Control Registers"). */
#define CR0_PE (1UL << 0)
#define CR0_MP (1UL << 1)
#define CR0_EM (1UL << 2)
#define CR0_TS (1UL << 3)
#define CR0_NE (1UL << 5)
#define CR0_WP (1UL << 16)
#define CR0_AM (1UL << 18)
#define CR0_PG (1UL << 31)
#define CR4_TSD (1UL << 2)
#define CR4_DE (1UL << 3)
#define CR4_PAE (1UL << 5)
#define CR4_MCE (1UL << 6)
#define CR4_PGE (1UL << 7)
#define CR4_PCE (1UL << 8)
#define CR4_OSFXSR (1UL << 9)
#define CR4_OSXMMEXCPT (1UL << 10)
#define CR4_UMIP (1UL << 11)
#define CR4_FSGSBASE (1UL << 16)
#define CR4_PCIDE (1UL << 17)
#define CR4_OSXSAVE (1UL << 18)
#define CR4_SMEP (1UL << 20)
#define CR4_SMAP (1UL << 21)
#define CR4_PKE (1UL << 22)

/* Model-specific register that the guest has for itself. */
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SYSCALL_MASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX 0xc0000103

/** Any context: tell the CPU that this is a spin loop. */
#define cpu_relax() __asm__ __volatile__("pause" ::: "memory")

/** Any context: time-stamp counter. */
static inline unsigned long rdtscll(void) {
    unsigned int lo, hi;

    __asm__ __volatile__("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return lo | (unsigned long)hi << 32;
}

/** Any context: time-stamp counter once all earlier instructions are done; IA32_TSC_AUX in *aux. */
static inline unsigned long rdtscp_aux(unsigned int* aux) {
    unsigned int lo, hi, id;

    __asm__ __volatile__("rdtscp" : "=a"(lo), "=d"(hi), "=c"(id)::"memory");
    if (aux)
        *aux = id;
    return lo | (unsigned long)hi << 32;
}

/** The same without IA32_TSC_AUX. */
static inline unsigned long rdtscllp(void) {
    unsigned int aux;
    return rdtscp_aux(&aux);
}

/** Any context: CPUID of a leaf and subleaf. NULL: not wanted. */
static inline void cpuid_count(uint32_t leaf, uint32_t subleaf, uint32_t* eax, uint32_t* ebx,
                               uint32_t* ecx, uint32_t* edx) {
    uint32_t a, b, c, d;

    __asm__ __volatile__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
    if (eax)
        *eax = a;
    if (ebx)
        *ebx = b;
    if (ecx)
        *ecx = c;
    if (edx)
        *edx = d;
}

/** Any context: the same of subleaf 0. */
static inline void cpuid(uint32_t leaf, uint32_t* eax, uint32_t* ebx, uint32_t* ecx,
                         uint32_t* edx) {
    cpuid_count(leaf, 0, eax, ebx, ecx, edx);
}

/** Read an MSR. One that the guest has not is a #GP. */
static inline uint64_t rdmsr(uint32_t msr) {
    uint32_t lo, hi;

    __asm__ __volatile__("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}

/** Write an MSR. One that the guest has not, or a value that it refuses, is a #GP. */
static inline void wrmsrl(uint32_t msr, uint64_t val) {
    __asm__ __volatile__("wrmsr"
                         :
                         : "c"(msr), "a"((uint32_t)val), "d"((uint32_t)(val >> 32))
                         : "memory");
}

/** Read an MSR into val. */
#define rdmsrl(msr, val) ((val) = rdmsr(msr))

/** Read CR0. */
static inline unsigned long read_cr0(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%cr0, %0" : "=r"(val));
    return val;
}

/** Write CR0. Bits that are not the guest's keep their value or are a #GP. */
static inline void write_cr0(unsigned long val) {
    __asm__ __volatile__("movq %0, %%cr0" : : "r"(val) : "memory");
}

/** Address of the last page fault. */
static inline unsigned long read_cr2(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%cr2, %0" : "=r"(val));
    return val;
}

/** Read CR3: the guest-physical address of the PML4, and a PCID. */
static inline unsigned long read_cr3(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%cr3, %0" : "=r"(val));
    return val;
}

/** Write CR3; see load_cr3(). */
static inline void write_cr3(unsigned long val) {
    __asm__ __volatile__("movq %0, %%cr3" : : "r"(val) : "memory");
}

/** Read CR4. */
static inline unsigned long read_cr4(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%cr4, %0" : "=r"(val));
    return val;
}

/** Write CR4. Bits that are not the guest's keep their value or are a #GP. */
static inline void write_cr4(unsigned long val) {
    __asm__ __volatile__("movq %0, %%cr4" : : "r"(val) : "memory");
}

/** Any context: the stack pointer, about here. */
static inline unsigned long rd_rsp(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%rsp, %0" : "=r"(val));
    return val;
}

/** Any context: the frame pointer register. */
static inline unsigned long rd_rbp(void) {
    unsigned long val;

    __asm__ __volatile__("movq %%rbp, %0" : "=r"(val));
    return val;
}

/** Any context: RFLAGS. The red zone is stepped over. */
static inline unsigned long read_rflags(void) {
    unsigned long val;

    __asm__ __volatile__(
        "leaq -128(%%rsp), %%rsp\n\t"
        "pushfq\n\t"
        "popq %0\n\t"
        "leaq 128(%%rsp), %%rsp"
        : "=r"(val)
        :
        : "memory");
    return val;
}

/** Any context: the code segment; its low two bits are the privilege level. */
static inline uint16_t read_cs(void) {
    uint16_t val;

    __asm__ __volatile__("movw %%cs, %0" : "=r"(val));
    return val;
}

/* Interrupts (signals, in Dune) on and off. */
/** Let interrupts come, after the next instruction. */
static inline void sti(void) {
    __asm__ __volatile__("sti" ::: "memory");
}

/** Mask interrupts. */
static inline void cli(void) {
    __asm__ __volatile__("cli" ::: "memory");
}

/** Drop the translation of the page at addr for the current PCID, and global ones. */
static inline void invlpg(const void* addr) {
    __asm__ __volatile__("invlpg (%0)" : : "r"(addr) : "memory");
}

/* What INVPCID drops (SDM vol. 2). */
#define INVPCID_ADDRESS 0    /* one address of one PCID, not global */
#define INVPCID_SINGLE 1     /* one PCID, not global */
#define INVPCID_ALL_GLOBAL 2 /* everything */
#define INVPCID_ALL 3        /* everything but global entries */

/** Drop translations: INVPCID_* says which. #UD where the CPU lacks it. */
static inline void invpcid(unsigned long type, unsigned long pcid, const void* addr) {
    struct {
        uint64_t pcid;
        const void* addr;
    } descriptor = {pcid, addr};

    __asm__ __volatile__("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
}

#ifdef __cplusplus
}
#endif

#endif /* LIBDUNE_CPU_X86_H */
