// SPDX-License-Identifier: MIT
// Exceptions: handlers, nesting, the red zone, and what happens without a handler.
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "support.h"

namespace {

using namespace dune::test;

volatile int hits;
dune_tf seen;

class RuntimeTraps : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        hits = 0;
    }
    void TearDown() override {
        for (int vector = 0; vector < 32; ++vector)
            dune_register_intr_handler(vector, nullptr);
        dune_register_pgflt_handler(nullptr);
    }
};

[[gnu::noinline]] void divide_error() {
    asm volatile("xor %%edx, %%edx\n\tmov $1, %%eax\n\txor %%ecx, %%ecx\n\tdiv %%ecx" ::
                     : "eax", "ecx", "edx");
}

TEST_F(RuntimeTraps, HandlerSkipsTheInstruction) {
    ASSERT_EQ(dune_register_intr_handler(T_DIVIDE,
                                         [](dune_tf* tf) {
                                             hits = hits + 1;
                                             seen = *tf;
                                             tf->rip += 2;
                                         }),
              0);
    divide_error();
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(seen.cs & 3, 0U);
    EXPECT_EQ(seen.rax, 1U);
    EXPECT_EQ(seen.rcx, 0U);
    EXPECT_EQ(seen.err, 0U);
}

TEST_F(RuntimeTraps, HandlerChangesRegisters) {
    dune_register_intr_handler(T_ILLOP, [](dune_tf* tf) {
        tf->rip += 2;
        tf->rax = 0x1111111111111111;
        tf->r15 = 0x2222222222222222;
        tf->rflags |= FL_CF;
    });
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    bool carry = false;
    asm volatile("clc\n\tud2\n\tmov %%r15, %1" : "+a"(a), "=r"(b), "=@ccc"(carry)::"r15");
    EXPECT_EQ(a, 0x1111111111111111U);
    EXPECT_EQ(b, 0x2222222222222222U);
    EXPECT_TRUE(carry);
}

TEST_F(RuntimeTraps, AllRegistersSurvive) {
    dune_register_intr_handler(T_BRKPT, [](dune_tf*) { hits = hits + 1; });
    std::uint64_t sum = 0;
    asm volatile(
        "mov $1, %%rbx\n\tmov $2, %%rcx\n\tmov $3, %%rdx\n\tmov $4, %%rsi\n\tmov $5, %%rdi\n\t"
        "mov $6, %%r8\n\tmov $7, %%r9\n\tmov $8, %%r10\n\tmov $9, %%r11\n\tmov $10, %%r12\n\t"
        "mov $11, %%r13\n\tmov $12, %%r14\n\tmov $13, %%r15\n\tmov $14, %%rax\n\t"
        "int3\n\t"
        "add %%rbx, %%rax\n\tadd %%rcx, %%rax\n\tadd %%rdx, %%rax\n\tadd %%rsi, %%rax\n\t"
        "add %%rdi, %%rax\n\tadd %%r8, %%rax\n\tadd %%r9, %%rax\n\tadd %%r10, %%rax\n\t"
        "add %%r11, %%rax\n\tadd %%r12, %%rax\n\tadd %%r13, %%rax\n\tadd %%r14, %%rax\n\t"
        "add %%r15, %%rax"
        : "=a"(sum)::"rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
          "r14", "r15", "cc");
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(sum, 105U);
}

int depth;

TEST_F(RuntimeTraps, HandlersNest) {
    depth = 0;
    dune_register_intr_handler(T_ILLOP, [](dune_tf* tf) {
        if (++depth < 50)
            asm volatile("ud2");
        hits = hits + 1;
        tf->rip += 2;
    });
    asm volatile("ud2");
    EXPECT_EQ(hits, 50);
}

TEST_F(RuntimeTraps, SoftwareInterruptsOfEveryFreeVector) {
    for (int vector = 32; vector < 199; ++vector)
        ASSERT_EQ(dune_register_intr_handler(vector, [](dune_tf*) { hits = hits + 1; }), 0);
    asm volatile("int $32\n\tint $99\n\tint $128\n\tint $198");
    EXPECT_EQ(hits, 4);
    for (int vector = 32; vector < 199; ++vector)
        dune_register_intr_handler(vector, nullptr);
    EXPECT_EQ(dune_register_intr_handler(256, nullptr), -EINVAL);
    EXPECT_EQ(dune_register_intr_handler(-1, nullptr), -EINVAL);
    EXPECT_EQ(dune_register_intr_handler(T_PGFLT, nullptr), -EINVAL);
}

TEST_F(RuntimeTraps, GeneralProtectionHasItsErrorCode) {
    dune_register_intr_handler(T_GPFLT, [](dune_tf* tf) {
        hits = hits + 1;
        seen = *tf;
        tf->rip += 2;
    });
    asm volatile("mov %0, %%ds" ::"r"(0x58) : "memory");  // a selector that has no descriptor
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(seen.err, 0x58U);
}

/** A leaf function's locals in the red zone, under faults and interrupts. */
[[gnu::noinline]] bool red_zone_survives(int vector_kind) {
    std::uint64_t bad = 0;
    asm volatile(
        "mov $16, %%ecx\n\t"
        "1: mov %%rcx, %%rax\n\timul $0x01010101, %%rax, %%rax\n\t"
        "neg %%rcx\n\tmov %%rax, (%%rsp, %%rcx, 8)\n\tneg %%rcx\n\tdec %%ecx\n\tjnz 1b\n\t"
        "test %[kind], %[kind]\n\tjz 2f\n\tud2\n\tjmp 3f\n\t2: int $0x40\n\t3:\n\t"
        "mov $16, %%ecx\n\t"
        "4: mov %%rcx, %%rax\n\timul $0x01010101, %%rax, %%rax\n\t"
        "neg %%rcx\n\tcmp %%rax, (%%rsp, %%rcx, 8)\n\tje 5f\n\tinc %[bad]\n\t5: neg %%rcx\n\t"
        "dec %%ecx\n\tjnz 4b"
        : [bad] "+r"(bad)
        : [kind] "r"(vector_kind)
        : "rax", "rcx", "memory", "cc");
    return bad == 0;
}

TEST_F(RuntimeTraps, RedZoneSurvives) {
    dune_register_intr_handler(T_ILLOP, [](dune_tf* tf) {
        char block[4096];
        std::memset(block, 0xff, sizeof(block));
        asm volatile("" ::"r"(block) : "memory");
        tf->rip += 2;
    });
    dune_register_intr_handler(0x40, [](dune_tf*) {});
    EXPECT_TRUE(red_zone_survives(1));
    EXPECT_TRUE(red_zone_survives(0));
    dune_register_intr_handler(0x40, nullptr);
}

std::uint64_t mix(const std::uint64_t* data, std::size_t n) {
    std::uint64_t local[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < 12; ++k)
            local[k] = (local[k] << 7 | local[k] >> 57) ^ (data[i] + k * local[(k + 5) % 12]);
    std::uint64_t sum = 0;
    for (const std::uint64_t value : local)
        sum += value;
    return sum;
}

TEST_F(RuntimeTraps, ComputationUnderAStormOfInterrupts) {
    std::uint64_t data[512];
    for (std::size_t i = 0; i < 512; ++i)
        data[i] = i * 0x9e3779b97f4a7c15ULL;
    const std::uint64_t expected = mix(data, 512);
    struct sigaction action = {};
    action.sa_handler = [](int) { hits = hits + 1; };
    sigaction(SIGALRM, &action, nullptr);
    const itimerval often = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &often, nullptr);
    int wrong = 0;
    for (int i = 0; hits < 200 && i < 200000; ++i)
        wrong += mix(data, 512) != expected;
    const itimerval off = {};
    setitimer(ITIMER_REAL, &off, nullptr);
    signal(SIGALRM, SIG_DFL);
    EXPECT_EQ(wrong, 0);
    EXPECT_GE(hits, 200);
}

volatile int* wild_pointer(std::uintptr_t address) {
    asm("" : "+r"(address));
    return reinterpret_cast<volatile int*>(address);
}

TEST_F(RuntimeTraps, WithoutHandlerItDiesLikeOnLinux) {
    const struct {
        int sig;
        int (*body)();
        const char* text;
    } kCases[] = {
        {SIGFPE,
         [] {
             divide_error();
             return 0;
         },
         "divide error"},
        {SIGILL,
         [] {
             asm volatile("ud2");
             return 0;
         },
         "invalid opcode"},
        {SIGTRAP,
         [] {
             asm volatile("int3");
             return 0;
         },
         "breakpoint"},
        {SIGSEGV,
         [] {
             *wild_pointer(16) = 1;
             return 0;
         },
         "0x10"},
        {SIGSEGV,
         [] {
             auto* const nothing =
                 reinterpret_cast<int (*)()>(const_cast<int*>(wild_pointer(0x40)));
             return nothing() + 1;
         },
         "cannot execute at address 0x40"},
        {SIGSEGV,
         [] {
             // What the tables are in: the fault is in a function that has their lock.
             dune_vm_unmap(pgroot, dune_pagebase_va, MAX_PAGES * PGSIZE);
             return dune_vm_unmap(pgroot, reinterpret_cast<void*>(0x600000000000), PGSIZE);
         },
         "page fault"},
        {SIGSEGV,
         [] {
             *wild_pointer(0x8000000000000000) = 1;
             return 0;
         },
         "general protection"},
    };
    for (const auto& test : kCases) {
        const Outcome outcome = in_child(test.body);
        EXPECT_TRUE(outcome.killed(test.sig)) << outcome.status << outcome.stderr_;
        EXPECT_NE(outcome.stderr_.find(test.text), std::string::npos) << outcome.stderr_;
        EXPECT_NE(outcome.stderr_.find("called from"), std::string::npos) << outcome.stderr_;
        EXPECT_EQ(outcome.stderr_.find("while a fault"), std::string::npos) << outcome.stderr_;
    }
}

[[gnu::noinline]] int overflow(int n) {
    volatile char frame[4096];
    frame[0] = static_cast<char>(n);
    return n < 0 ? 0 : overflow(n + 1) + frame[0];  // until there is no stack left
}

TEST_F(RuntimeTraps, StackOverflowIsSaid) {
    const Outcome outcome = in_child([] { return overflow(0); });
    EXPECT_TRUE(outcome.killed(SIGSEGV)) << outcome.status;
    EXPECT_NE(outcome.stderr_.find("stack overflow"), std::string::npos) << outcome.stderr_;
}

TEST_F(RuntimeTraps, StackOverflowHandlerOnItsOwnStack) {
    const Outcome outcome = in_child([] {
        static char stack[65536];
        const stack_t alternate = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
        if (sigaltstack(&alternate, nullptr) != 0)
            return 1;
        struct sigaction action = {};
        action.sa_flags = SA_ONSTACK | SA_SIGINFO;
        action.sa_sigaction = [](int sig, siginfo_t* info, void*) {
            char here;
            const bool on_it = &here >= stack && &here < stack + sizeof(stack);
            _exit(sig == SIGSEGV && on_it && info->si_addr != nullptr ? 42 : 43);
        };
        sigaction(SIGSEGV, &action, nullptr);
        return overflow(0);
    });
    EXPECT_TRUE(outcome.exited(42)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeTraps, UnusableStackPointerIsSaid) {
    for (const std::uint64_t sp : {std::uint64_t{0x100}, std::uint64_t{0x8000000000000000}}) {
        const Outcome outcome = in_child([sp] {
            asm volatile("mov %0, %%rsp\n\tud2" ::"r"(sp) : "memory");
            return 0;
        });
        EXPECT_TRUE(outcome.killed(SIGSEGV)) << outcome.status;
        EXPECT_NE(outcome.stderr_.find("stack"), std::string::npos) << outcome.stderr_;
    }
}

TEST_F(RuntimeTraps, PopTrapFrame) {
    dune_register_intr_handler(T_BRKPT, [](dune_tf* tf) {
        hits = hits + 1;
        if (hits == 1) {
            dune_tf copy = *tf;
            copy.rflags = FL_IF;
            copy.rax = 99;
            dune_pop_trap_frame(&copy);
        }
    });
    std::uint64_t value = 1;
    asm volatile("int3" : "+a"(value)::"memory", "cc");
    EXPECT_EQ(value, 99U);
    EXPECT_GT(getpid(), 0);  // system calls still know that this is ring 0
}

TEST_F(RuntimeTraps, DumpTrapFrame) {
    const Outcome outcome = in_child([] {
        dune_tf tf = {};
        tf.rip = 0x123456789abc;
        dune_dump_trap_frame(&tf);
        return 0;
    });
    EXPECT_NE(outcome.stderr_.find("123456789abc"), std::string::npos);
}

}  // namespace
