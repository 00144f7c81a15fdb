// SPDX-License-Identifier: MIT
// Vector registers across traps, interrupts, system calls and context switches.
#include <sys/time.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <memory>

#include "libdune/fpu.h"
#include "support.h"

namespace {

using namespace dune::test;

volatile int hits;

class RuntimeFpu : public RuntimeTest {
  protected:
    void TearDown() override {
        dune_register_intr_handler(T_ILLOP, nullptr);
        dune_register_pgflt_handler(nullptr);
    }
};

/** Overwrites all vector registers and the x87 stack. */
void scribble() {
    asm volatile(
        "pcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm7\n\t"
        "movdqa %%xmm0, %%xmm15\n\tfldpi\n\tfstp %%st(0)" ::
            : "xmm0", "xmm1", "xmm7", "xmm15", "memory");
    if (__builtin_cpu_supports("avx"))
        asm volatile("vzeroall" ::: "memory");
    if (__builtin_cpu_supports("avx512f"))
        asm volatile(
            ".irp r, 0, 1, 7, 15, 16, 20, 31\n\tvpternlogd $0xff, %%zmm0, %%zmm0, %%zmm\\r\n\t"
            ".endr\n\tkxnorw %%k1, %%k1, %%k1\n\tkxnorw %%k7, %%k7, %%k7" ::
                : "memory");
}

template <class F>
[[gnu::noinline]] bool xmm_survives(F cause) {
    alignas(64) std::uint64_t in[4] = {1, 2, 3, 4};
    alignas(64) std::uint64_t out[4] = {};
    asm volatile("movdqa (%0), %%xmm1\n\tmovdqa 16(%0), %%xmm15" ::"r"(in) : "xmm1", "xmm15");
    cause();
    asm volatile("movdqa %%xmm1, (%0)\n\tmovdqa %%xmm15, 16(%0)" ::"r"(out) : "memory");
    return std::memcmp(in, out, sizeof(in)) == 0;
}

template <class F>
[[gnu::noinline]] bool zmm_survives(F cause) {
    alignas(64) std::uint64_t in[24];
    alignas(64) std::uint64_t out[24] = {};
    for (int i = 0; i < 24; ++i)
        in[i] = 0x1000 + static_cast<std::uint64_t>(i);
    std::uint64_t mask = 0x5a5a;
    std::uint64_t mask_out = 0;
    asm volatile(
        "vmovdqa64 (%0), %%zmm1\n\tvmovdqa64 64(%0), %%zmm15\n\tvmovdqa64 128(%0), %%zmm31\n\t"
        "kmovw %k1, %%k7" ::"r"(in),
        "r"(mask)
        : "xmm1", "xmm15", "memory");
    cause();
    asm volatile(
        "vmovdqa64 %%zmm1, (%1)\n\tvmovdqa64 %%zmm15, 64(%1)\n\tvmovdqa64 %%zmm31, 128(%1)\n\t"
        "kmovw %%k7, %k0"
        : "=r"(mask_out)
        : "r"(out)
        : "memory");
    return std::memcmp(in, out, sizeof(in)) == 0 && mask_out == mask;
}

void on_trap(dune_tf* tf) {
    scribble();
    tf->rip += 2;
}

[[gnu::always_inline]] inline void trap() {
    asm volatile("ud2");
}
[[gnu::always_inline]] inline void system_call() {
    long nr = 39;
    asm volatile("syscall" : "+a"(nr)::"rcx", "r11", "memory");
}
/** rt_sigaction: the library's own C++ runs in it. */
[[gnu::always_inline]] inline void library_call() {
    long nr = 13;
    std::uint64_t old[4];
    register long size asm("r10") = 8;
    asm volatile("syscall"
                 : "+a"(nr)
                 : "D"(10L), "S"(0L), "d"(old), "r"(size)
                 : "rcx", "r11", "memory");
}

TEST_F(RuntimeFpu, SurvivesTraps) {
    dune_register_intr_handler(T_ILLOP, on_trap);
    EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { trap(); }));
    if (__builtin_cpu_supports("avx512f")) {
        EXPECT_TRUE(zmm_survives([] [[gnu::always_inline]] { trap(); }));
    }
}

TEST_F(RuntimeFpu, SurvivesNestedTraps) {
    static int depth;
    depth = 0;
    dune_register_intr_handler(T_ILLOP, [](dune_tf* tf) {
        bool good = true;
        if (++depth < 8)
            good = xmm_survives([] [[gnu::always_inline]] { trap(); });
        scribble();
        hits = hits + (good ? 1 : 100);
        tf->rip += 2;
    });
    hits = 0;
    EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { trap(); }));
    EXPECT_EQ(hits, 8);
}

volatile char* page;

TEST_F(RuntimeFpu, SurvivesPageFaults) {
    Pages pages(1);
    page = pages.at();
    *page = 1;
    dune_register_pgflt_handler([](std::uintptr_t addr, std::uint64_t, dune_tf*) {
        scribble();
        dune_vm_mprotect(pgroot, reinterpret_cast<void*>(PGADDR(addr)), PGSIZE, PERM_R | PERM_W);
    });
    for (int i = 0; i < 3; ++i) {
        dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_R);
        EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { *page = 2; }));
        dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_NONE);
        EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { *page = 2; }));
    }
}

TEST_F(RuntimeFpu, SurvivesAGigabyteThatWasNotMapped) {
    Pages pages(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(0x567800000000));
    page = pages.at();
    EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { *page = 2; }));
}

TEST_F(RuntimeFpu, SurvivesSystemCalls) {
    EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { system_call(); }));
    EXPECT_TRUE(xmm_survives([] [[gnu::always_inline]] { library_call(); }));
    if (__builtin_cpu_supports("avx512f")) {
        EXPECT_TRUE(zmm_survives([] [[gnu::always_inline]] { system_call(); }));
        EXPECT_TRUE(zmm_survives([] [[gnu::always_inline]] { library_call(); }));
    }
}

TEST_F(RuntimeFpu, SurvivesSignalsAndContextSwitches) {
    struct sigaction action = {};
    action.sa_handler = [](int) {
        scribble();
        hits = hits + 1;
    };
    sigaction(SIGALRM, &action, nullptr);
    hits = 0;
    const itimerval often = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &often, nullptr);
    const auto spin = [] [[gnu::always_inline]] {
        for (int i = 0; i < 20000; ++i)
            asm volatile("" ::: "memory");
    };
    bool good = true;
    for (int i = 0; hits < 60 && i < 100000; ++i) {
        good = good && xmm_survives(spin);
        if (__builtin_cpu_supports("avx512f"))
            good = good && zmm_survives(spin);
    }
    const itimerval off = {};
    setitimer(ITIMER_REAL, &off, nullptr);
    signal(SIGALRM, SIG_DFL);
    EXPECT_TRUE(good);
    EXPECT_GE(hits, 60);
}

template <class F>
bool survives(F cause) {
    return xmm_survives(cause) && (!__builtin_cpu_supports("avx512f") || zmm_survives(cause));
}

/** Where the entry code saves vector registers, as its third argument of a handler tells. */
const char* saved_at;
sigjmp_buf back;

using AnyHandler = void (*)(dune_tf* tf, std::uint64_t vector, const char* fpu);

void handle_divide(AnyHandler handler) {
    dune_register_intr_handler(
        T_DIVIDE, reinterpret_cast<dune_intr_cb>(reinterpret_cast<void (*)()>(handler)));
}

[[gnu::noinline]] void divide() {
    asm volatile("xor %%edx, %%edx\n\tmov $1, %%eax\n\txor %%ecx, %%ecx\n\tdiv %%ecx" ::
                     : "eax", "ecx", "edx", "cc");
}

void skip_divide(dune_tf* tf, std::uint64_t, const char* fpu) {
    saved_at = fpu;
    tf->rip += 2;
}

void jump_out(dune_tf*, std::uint64_t, const char* fpu) {
    saved_at = fpu;
    scribble();
    siglongjmp(back, 1);
}

/** Where the state goes of a trap whose handler is left by siglongjmp(). */
[[gnu::noinline]] const char* leave_handler() {
    handle_divide(jump_out);
    if (sigsetjmp(back, 0) == 0)
        divide();
    asm volatile("sti");
    return saved_at;
}

TEST_F(RuntimeFpu, HandlerLeftByLongjmpDoesNotKeepTheArea) {
    handle_divide(skip_divide);
    divide();
    const char* const area = saved_at;
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(leave_handler(), area);
    handle_divide(skip_divide);
    EXPECT_TRUE(survives([] { divide(); }));
    EXPECT_EQ(saved_at, area);
    dune_register_intr_handler(T_DIVIDE, nullptr);
}

TEST_F(RuntimeFpu, NestedTrapDoesNotTakeTheArea) {
    handle_divide([](dune_tf* tf, std::uint64_t, const char* fpu) {
        static int depth = 0;
        const char* const mine = fpu;
        scribble();
        const bool innermost = ++depth == 4;
        if (!innermost)
            divide();
        EXPECT_TRUE(innermost || saved_at != mine);
        --depth;
        saved_at = mine;
        tf->rip += 2;
    });
    EXPECT_TRUE(survives([] { divide(); }));
    dune_register_intr_handler(T_DIVIDE, nullptr);
}

TEST_F(RuntimeFpu, PopTrapFrameBringsThemBack) {
    handle_divide([](dune_tf* tf, std::uint64_t, const char* fpu) {
        saved_at = fpu;
        scribble();
        tf->rip += 2;
        dune_pop_trap_frame(tf);
    });
    EXPECT_TRUE(survives([] { divide(); }));
    const char* const first = saved_at;
    EXPECT_TRUE(survives([] { divide(); }));
    EXPECT_EQ(saved_at, first);
    dune_register_intr_handler(T_DIVIDE, nullptr);
}

TEST_F(RuntimeFpu, SaveAndLoad) {
    const auto first = std::make_unique<dune_fpu>();
    const auto fresh = std::make_unique<dune_fpu>();
    EXPECT_GE(dune_fpu_size(), sizeof(fxsave));
    EXPECT_LE(dune_fpu_size(), sizeof(dune_fpu));
    dune_fpu_init(first.get());
    dune_fpu_init(fresh.get());
    std::uint64_t in = 0x1122334455667788;
    std::uint64_t out = 1;
    asm volatile("movq %0, %%xmm3" ::"r"(in) : "xmm3");
    dune_fpu_save(first.get());
    dune_fpu_load(fresh.get());
    asm volatile("movq %%xmm3, %0" : "=r"(out));
    EXPECT_EQ(out, 0U);
    std::uint32_t mxcsr = 0;
    asm volatile("stmxcsr %0" : "=m"(mxcsr));
    EXPECT_EQ(mxcsr & 0xffc0, 0x1f80U);
    dune_fpu_load(first.get());
    asm volatile("movq %%xmm3, %0" : "=r"(out));
    EXPECT_EQ(out, in);
    EXPECT_EQ(first->legacy.xmm[3].low, in);
}

}  // namespace
