// SPDX-License-Identifier: MIT
//
// Instructions that a ring-3 program must not get away with, and states of the processor that
// confuse entry code.

#include <setjmp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

sigjmp_buf back;
volatile int traps;

void on_fault(int) {
    siglongjmp(back, 1);
}

struct Instruction {
    const char* name;
    unsigned char bytes[10];
    unsigned size;
};

// Each must fault: #GP, #UD or #PF, that is SIGSEGV, SIGILL or SIGBUS.
constexpr Instruction kPrivileged[] = {
    {"vmcall", {0x0f, 0x01, 0xc1}, 3},
    {"vmmcall", {0x0f, 0x01, 0xd9}, 3},
    {"vmlaunch", {0x0f, 0x01, 0xc2}, 3},
    {"vmxoff", {0x0f, 0x01, 0xc4}, 3},
    {"vmfunc", {0x0f, 0x01, 0xd4}, 3},
    {"hlt", {0xf4}, 1},
    {"cli", {0xfa}, 1},
    {"sti", {0xfb}, 1},
    {"in", {0xec}, 1},
    {"out", {0xee}, 1},
    {"mov cr0, rax", {0x0f, 0x20, 0xc0}, 3},
    {"mov rax, cr3", {0x0f, 0x22, 0xd8}, 3},
    {"mov rax, cr4", {0x0f, 0x22, 0xe0}, 3},
    {"mov rax, cr8", {0x44, 0x0f, 0x22, 0xc0}, 4},
    {"mov rax, dr7", {0x0f, 0x23, 0xf8}, 3},
    {"wrmsr", {0x0f, 0x30}, 2},
    {"rdmsr", {0x0f, 0x32}, 2},
    {"swapgs", {0x0f, 0x01, 0xf8}, 3},
    {"sysret", {0x48, 0x0f, 0x07}, 3},
    {"sysexit", {0x48, 0x0f, 0x35}, 3},
    {"lgdt [rsp]", {0x0f, 0x01, 0x14, 0x24}, 4},
    {"lidt [rsp]", {0x0f, 0x01, 0x1c, 0x24}, 4},
    {"lldt ax", {0x0f, 0x00, 0xd0}, 3},
    {"ltr ax", {0x0f, 0x00, 0xd8}, 3},
    {"invlpg [rax]", {0x0f, 0x01, 0x38}, 3},
    {"invd", {0x0f, 0x08}, 2},
    {"wbinvd", {0x0f, 0x09}, 2},
    {"clts", {0x0f, 0x06}, 2},
    {"lmsw ax", {0x0f, 0x01, 0xf0}, 3},
    {"xsetbv", {0x0f, 0x01, 0xd1}, 3},
    {"stac", {0x0f, 0x01, 0xcb}, 3},
    {"monitor", {0x0f, 0x01, 0xc8}, 3},
    {"int 0x20", {0xcd, 0x20}, 2},
    {"int 0x80", {0xcd, 0x80}, 2},
    {"int 200", {0xcd, 0xc8}, 2},
    {"int 255", {0xcd, 0xff}, 2},
    {"int 14", {0xcd, 0x0e}, 2},
    {"int 2", {0xcd, 0x02}, 2},
    {"int 1", {0xcd, 0x01}, 2},
    {"mov ds, 0x10", {0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8}, 6},
    {"mov ss, 0x18", {0x66, 0xb8, 0x18, 0x00, 0x8e, 0xd0}, 6},
    {"mov fs, 0x40", {0x66, 0xb8, 0x40, 0x00, 0x8e, 0xe0}, 6},
    {"retf to ring 0", {0x6a, 0x10, 0x6a, 0x00, 0x48, 0xcb}, 6},
    {"iret to ring 0", {0x6a, 0x18, 0x54, 0x9c, 0x6a, 0x10, 0x6a, 0x00, 0x48, 0xcf}, 10},
};

void run(void* code) {
    if (sigsetjmp(back, 1) == 0) {
        reinterpret_cast<void (*)()>(code)();
    }
}

void count_traps() {
    const auto on_trap = [](int, siginfo_t*, void* raw) {
        traps = traps + 1;
        static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
    };
    struct sigaction action {};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, nullptr);
}

// Single step over SYSCALL: one trap, in ring 3.
void step_over_syscall() {
    long result = SYS_getpid;
    asm volatile(
        "sub $128, %%rsp\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tsyscall\n\tnop\n\t"
        "add $128, %%rsp"
        : "+a"(result)::"rcx", "r11", "memory", "cc");
    if (result != getpid()) {
        escaped("SYSCALL with TF", static_cast<unsigned long>(result));
    }
    if (traps == 0) {
        fprintf(stderr, "no trap after SYSCALL with TF\n");
    }
}

// A system call must not return to what is no address, nor with what flags are not ring 3's.
void hostile_syscalls() {
    long result;
    // Direction flag, alignment check, nested task, I/O privilege.
    unsigned long flags;
    result = SYS_getpid;
    asm volatile(
        "sub $128, %%rsp\n\tpushfq\n\torl $0x44400, (%%rsp)\n\tpopfq\n\tsyscall\n\tpushfq\n\tpop "
        "%1\n\t"
        "cld\n\tpushfq\n\tandl $~0x44000, (%%rsp)\n\tpopfq\n\tadd $128, %%rsp"
        : "+a"(result), "=r"(flags)::"rcx", "r11", "memory", "cc");
    if ((flags & 0x3000) != 0 || result != getpid()) {
        escaped("flags after SYSCALL", flags);
    }
    // All registers hostile; the number too.
    for (const unsigned long value :
         {~0ul, 0x8000000000000000ul, 0x7ffffffffffful, 0x800000000000ul}) {
        result = static_cast<long>(value);
        asm volatile("mov %1, %%r10\n\tmov %1, %%r8\n\tmov %1, %%r9\n\tsyscall"
                     : "+a"(result)
                     : "D"(value), "S"(value), "d"(value)
                     : "rcx", "r11", "r8", "r9", "r10", "memory");
        if (result != -38 && result != -14) {  // Linux looks at the lower half: 0 is read(2)
            escaped("a call without a number", static_cast<unsigned long>(result));
        }
    }
    // The stack pointer may be anything at SYSCALL.
    for (const unsigned long value : {0ul, 0x7fffdeadb000ul, 0x8000000000000000ul, ~0ul}) {
        result = SYS_getpid;
        asm volatile("mov %%rsp, %%rbx\n\tmov %1, %%rsp\n\tsyscall\n\tmov %%rbx, %%rsp"
                     : "+a"(result)
                     : "r"(value)
                     : "rbx", "rcx", "r11", "memory");
        if (result != getpid()) {
            escaped("SYSCALL with a wild stack", value);
        }
    }
}

}  // namespace

void attack_single_step(const char*) {
    count_traps();
    step_over_syscall();
}

void attack_instructions(const char* only) {
    static char stack[64 << 10];
    const stack_t alternate = {stack, 0, sizeof(stack)};
    struct sigaction action {};
    sigaltstack(&alternate, nullptr);
    action.sa_handler = on_fault;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    for (const int signal : {SIGSEGV, SIGILL, SIGBUS, SIGFPE}) {
        sigaction(signal, &action, nullptr);
    }
    auto* const code = static_cast<unsigned char*>(mmap(
        nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (const Instruction& instruction : kPrivileged) {
        if (*only != 0 && strcmp(only, instruction.name) != 0) {
            continue;
        }
        memcpy(code, instruction.bytes, instruction.size);
        // Had it worked: exit_group(99).
        const unsigned char after[] = {0xbf, 99, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05};
        memcpy(code + instruction.size, after, sizeof(after));
        fprintf(stderr, "%s\n", instruction.name);
        run(code);
    }
    count_traps();
    hostile_syscalls();
    // CPUID is no secret, but must come back.
    unsigned a = 1;
    unsigned b;
    unsigned c = 0;
    unsigned d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if ((c & 1u << 5) != 0) {
        escaped("CPUID shows VMX", c);
    }
    // Debug traps held back by MOV SS (CVE-2018-8897), on INT3 and SYSCALL.
    traps = 0;
    unsigned short ss;
    asm volatile("mov %%ss, %0" : "=r"(ss));
    asm volatile("mov %0, %%ss\n\tint3" ::"r"(ss) : "memory");
    long result = SYS_getpid;
    asm volatile("mov %1, %%ss\n\tsyscall" : "+a"(result) : "r"(ss) : "rcx", "r11", "memory");
    if (traps != 1 || result != getpid()) {
        escaped("MOV SS and INT3", static_cast<unsigned long>(traps));
    }
}

}  // namespace dune::sandbox_test
