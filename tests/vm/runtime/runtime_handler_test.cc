// SPDX-License-Identifier: MIT
// Page-fault handlers, for each of which is saved what its code needs: see runtime/handler_scan.h.
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "support.h"

namespace {

using namespace dune::test;

volatile int hits;
volatile std::uint64_t handler_rsp;
volatile std::uint64_t last_address, last_code;

class RuntimeHandler : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        hits = 0;
        std::memset(pages.at(), 1, pages.size());
    }
    void TearDown() override { dune_register_pgflt_handler(nullptr); }

    static constexpr std::size_t kPages = 4;
    Pages pages{kPages};
};

// ---- handlers -----------------------------------------------------------------------------------

inline void allow(std::uintptr_t address) {
    dune_vm_mprotect(pgroot, reinterpret_cast<void*>(PGADDR(address)), PGSIZE, PERM_R | PERM_W);
}

[[gnu::always_inline]] inline void note(std::uintptr_t address, std::uint64_t code) {
    std::uint64_t rsp;
    asm volatile("mov %%rsp, %0" : "=r"(rsp));
    handler_rsp = rsp;
    last_address = address;
    last_code = code;
    hits = hits + 1;
}

/** Changes all registers that a function may change. */
void needs_scratch(std::uintptr_t address, std::uint64_t code, dune_tf*) {
    note(address, code);
    asm volatile(".irp r, rax, rcx, rdx, rsi, r8, r9, r10, r11\n\tmov $-1, %%\\r\n\t.endr" ::
                     : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11");
    allow(address);
}

/** Reads the frame, and keeps off vector registers. */
void needs_frame(std::uintptr_t address, std::uint64_t code, dune_tf* tf) {
    note(address, code);
    if (tf->rsp > handler_rsp)
        allow(address);
}

/** Overwrites vector registers. */
void needs_vectors(std::uintptr_t address, std::uint64_t code, dune_tf*) {
    note(address, code);
    asm volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm15, %%xmm15" ::: "xmm0", "xmm15");
    allow(address);
}

/** Calls the function itself. */
void needs_scratch_and_calls(std::uintptr_t address, std::uint64_t code, dune_tf*) {
    note(address, code);
    (dune_vm_mprotect)(pgroot, reinterpret_cast<void*>(PGADDR(address)), PGSIZE, PERM_R | PERM_W);
}

// ---- what is interrupted ------------------------------------------------------------------------

struct Registers {
    std::uint64_t value[15];  // rax, rcx, rdx, rbx, rbp, rsi, rdi, r8 to r15
    std::uint64_t red_zone[16];
    std::uint64_t flags;
    std::uint64_t rsp;
};

extern "C" void handler_test_store(volatile char* where, Registers* before, Registers* after);

// Loads all registers and the red zone, writes where it is told (by RAX), and says what they are
// then.
asm(R"(
	.text
	.type	handler_test_store, @function
handler_test_store:
	.irp	r, rbx, rbp, r12, r13, r14, r15
	push	%\r
	.endr
	push	%rdx
	mov	%rdi, (%rsi)
	i = 0
	.rept	16
	mov	120 + 8 * i(%rsi), %rax
	mov	%rax, -128 + 8 * i(%rsp)
	i = i + 1
	.endr
	mov	%rsp, 256(%rsi)
	mov	(%rsi), %rax
	mov	8(%rsi), %rcx
	mov	16(%rsi), %rdx
	mov	24(%rsi), %rbx
	mov	32(%rsi), %rbp
	mov	48(%rsi), %rdi
	mov	56(%rsi), %r8
	mov	64(%rsi), %r9
	mov	72(%rsi), %r10
	mov	80(%rsi), %r11
	mov	88(%rsi), %r12
	mov	96(%rsi), %r13
	mov	104(%rsi), %r14
	mov	112(%rsi), %r15
	mov	40(%rsi), %rsi
	stc
	std
	movb	$7, (%rax)
	push	%rax		# the first two words of the red zone go
	pushfq
	cld
	mov	16(%rsp), %rax
	pop	248(%rax)
	mov	%rcx, 8(%rax)
	mov	%rdx, 16(%rax)
	mov	%rbx, 24(%rax)
	mov	%rbp, 32(%rax)
	mov	%rsi, 40(%rax)
	mov	%rdi, 48(%rax)
	mov	%r8, 56(%rax)
	mov	%r9, 64(%rax)
	mov	%r10, 72(%rax)
	mov	%r11, 80(%rax)
	mov	%r12, 88(%rax)
	mov	%r13, 96(%rax)
	mov	%r14, 104(%rax)
	mov	%r15, 112(%rax)
	pop	(%rax)
	i = 0
	.rept	14
	mov	-128 + 8 * i(%rsp), %rcx
	mov	%rcx, 120 + 8 * i(%rax)
	i = i + 1
	.endr
	pop	%rdx
	.irp	r, r15, r14, r13, r12, rbp, rbx
	pop	%\r
	.endr
	ret
	.size	handler_test_store, . - handler_test_store
)");

/** Write to a page that is protected; bytes of stack between what was interrupted and the handler.
 */
std::uint64_t store_and_compare(char* where) {
    Registers before{}, after{};
    for (std::size_t i = 0; i < std::size(before.value); ++i)
        before.value[i] = 0x1111'2222'0000'0000 + i;
    for (std::size_t i = 0; i < std::size(before.red_zone); ++i)
        before.red_zone[i] = 0x3333'4444'0000'0000 + i;
    const int hits_before = hits;
    handler_test_store(where, &before, &after);
    EXPECT_EQ(hits, hits_before + 1);
    EXPECT_EQ(last_address, reinterpret_cast<std::uintptr_t>(where));
    EXPECT_EQ(*where, 7);
    for (std::size_t i = 0; i < std::size(before.value); ++i)
        EXPECT_EQ(after.value[i], before.value[i]) << i;
    for (std::size_t i = 0; i < std::size(before.red_zone) - 2; ++i)
        EXPECT_EQ(after.red_zone[i], before.red_zone[i]) << i;
    constexpr std::uint64_t kCarry = 1, kDirection = 1 << 10;
    EXPECT_EQ(after.flags & (kCarry | kDirection), kCarry | kDirection);
    return before.rsp - handler_rsp;
}

/** The vector state with XMM registers (and more, where there is more) that are known. */
template <class Cause>
[[gnu::noinline]] void expect_vectors_kept(Cause cause) {
    alignas(64) std::array<std::uint64_t, 8> in{1, 2, 3, 4, 5, 6, 7, 8}, first{}, last{};
    const bool avx512 = __builtin_cpu_supports("avx512f") != 0;
    const bool avx = __builtin_cpu_supports("avx") != 0;
    if (avx512)
        asm volatile("vmovdqa64 %0, %%zmm0\n\tvmovdqa64 %0, %%zmm15" ::"m"(in) : "xmm0", "xmm15");
    else if (avx)
        asm volatile("vmovdqa %0, %%ymm0\n\tvmovdqa %0, %%ymm15" ::"m"(in) : "xmm0", "xmm15");
    else
        asm volatile("movdqa %0, %%xmm0\n\tmovdqa %0, %%xmm15" ::"m"(in) : "xmm0", "xmm15");
    cause();
    if (avx512)
        asm volatile("vmovdqa64 %%zmm0, %0\n\tvmovdqa64 %%zmm15, %1" : "=m"(first), "=m"(last));
    else if (avx)
        asm volatile("vmovdqa %%ymm0, %0\n\tvmovdqa %%ymm15, %1" : "=m"(first), "=m"(last));
    else
        asm volatile("movdqa %%xmm0, %0\n\tmovdqa %%xmm15, %1" : "=m"(first), "=m"(last));
    if (avx)
        asm volatile("vzeroupper");
    const std::size_t bytes = avx512 ? 64 : avx ? 32 : 16;
    EXPECT_EQ(std::memcmp(&in, &first, bytes), 0);
    EXPECT_EQ(std::memcmp(&in, &last, bytes), 0);
}

volatile char* store_to;

// ---- tests --------------------------------------------------------------------------------------

// From what was interrupted to the handler: the red zone, up to 15 bytes to align, the hardware's
// six words and a return address; and the registers that are saved.
constexpr std::uint64_t kLeast = 128 + 7 * 8;
constexpr std::uint64_t kScratch = kLeast + 9 * 8;
constexpr std::uint64_t kAll = kLeast + 15 * 8;

TEST_F(RuntimeHandler, SavesWhatItsCodeNeeds) {
    const struct {
        dune_pgflt_cb handler;
        std::uint64_t least;
    } handlers[] = {{needs_scratch, kScratch}, {needs_frame, kAll}, {needs_vectors, kAll}};
    for (const auto& [handler, least] : handlers) {
        dune_register_pgflt_handler(handler);
        for (const int perm : {PERM_R, PERM_NONE}) {
            for (std::size_t i = 0; i < kPages; ++i) {
                ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(i), PGSIZE, perm), 0);
                const std::uint64_t stack = store_and_compare(pages.at(i) + 100);
                EXPECT_EQ(last_code, perm == PERM_R ? FEC_P | FEC_W : FEC_W);
                EXPECT_GE(stack, perm == PERM_R ? least : kAll);
#ifdef __OPTIMIZE__
                // Of a page that is not present, all are saved, since a GiB may have to be mapped.
                EXPECT_LT(stack, (perm == PERM_R ? least : kAll) + 40);
#endif
            }
        }
        ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_R), 0);
        store_to = pages.at();
        expect_vectors_kept([] [[gnu::always_inline]] { *store_to = 7; });
    }
}

// The handler cannot help, for it would need more with a system call in it: another thread does.
TEST_F(RuntimeHandler, WhatLinuxRefusesComesToo) {
    Pages readonly(1, PROT_READ);
    EXPECT_EQ(*readonly.at(), 0);
    dune_register_pgflt_handler(
        [](std::uintptr_t address, std::uint64_t code, dune_tf*) { note(address, code); });
    std::thread helper([&] {
        while (hits < 3)
            std::this_thread::yield();
        mprotect(readonly.at(), PGSIZE, PROT_READ | PROT_WRITE);
    });
    store_to = readonly.at();
    expect_vectors_kept([] [[gnu::always_inline]] { *store_to = 7; });
    helper.join();
    EXPECT_GE(hits, 3);
    EXPECT_EQ(last_code, FEC_P | FEC_W);
    EXPECT_EQ(last_address, readonly.address());
    EXPECT_EQ(*readonly.at(), 7);
}

TEST_F(RuntimeHandler, ALargePageIsCutAndVectorsAreKept) {
    dune_register_pgflt_handler(needs_scratch_and_calls);
    char* const large = reinterpret_cast<char*>(0x345800000000);
    ASSERT_EQ(dune_vm_map_pages(pgroot, large, BIG_PGSIZE, PERM_R | PERM_W | PERM_BIG), 0);
    *large = 1;
    ASSERT_EQ(dune_vm_mprotect(pgroot, large, BIG_PGSIZE, PERM_R), 0);
    store_to = large + 5 * PGSIZE;
    expect_vectors_kept([] [[gnu::always_inline]] { *store_to = 7; });
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(*store_to, 7);
    ptent_t* entry = nullptr;
    ASSERT_EQ(dune_vm_lookup(pgroot, large + 6 * PGSIZE, CREATE_NONE, &entry), 0);
    EXPECT_EQ(*entry & (PTE_P | PTE_W), PTE_P) << "its neighbour stays as it was";
    EXPECT_GT(store_and_compare(large + 6 * PGSIZE), 0U);
    ASSERT_EQ(dune_vm_unmap(pgroot, large, BIG_PGSIZE), 0);
}

// A handler faults itself: in memory that is protected, and in a GiB that was never touched.
char* second_page;
volatile char* new_gib;

void faults_itself(std::uintptr_t address, std::uint64_t code, dune_tf*) {
    note(address, code);
    if (PGADDR(address) != reinterpret_cast<std::uintptr_t>(second_page)) {
        *static_cast<volatile char*>(second_page) = 8;
        *new_gib = 9;
        last_address = address;
        hits = hits - 1;
    }
    allow(address);
}

TEST_F(RuntimeHandler, FaultsInAHandler) {
    Pages other(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(0x567a00000000));
    dune_register_pgflt_handler(faults_itself);
    second_page = pages.at(1);
    new_gib = other.at();
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), 2 * PGSIZE, PERM_R), 0);
    store_and_compare(pages.at() + 50);
    EXPECT_EQ(*second_page, 8);
    EXPECT_EQ(*new_gib, 9);
    EXPECT_EQ(hits, 1);
}

// The entry's own fault, on the stack, comes before the handler hears of the program's.
TEST_F(RuntimeHandler, OnAStackInANewGib) {
    dune_register_pgflt_handler(needs_scratch);
    for (const int perm : {PERM_R, PERM_NONE}) {
        hits = 0;
        ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, perm), 0);
        write_on_new_stack(pages.at() + 123);
        EXPECT_EQ(hits, 1);
        EXPECT_EQ(last_address, pages.address() + 123);
        EXPECT_EQ(last_code, perm == PERM_R ? FEC_P | FEC_W : FEC_W);
        EXPECT_EQ(pages.at()[123], 7);
    }
}

// Handlers of each kind are registered in turn while threads fault: none meets an entry that saves
// less than it needs.
TEST_F(RuntimeHandler, ChangedWhileThreadsFault) {
    static constexpr dune_pgflt_cb kHandlers[] = {needs_scratch, needs_vectors, needs_frame};
    constexpr int kThreads = 2, kStores = 1000;
    constexpr unsigned kChanges = 60;
    std::atomic<int> running{kThreads};
    std::atomic<unsigned> changes{0};
    std::vector<std::thread> threads;
    dune_register_pgflt_handler(needs_vectors);
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([&, i] {
            static thread_local volatile char* mine;
            mine = pages.at(static_cast<std::size_t>(i));
            EXPECT_EQ(dune_enter(), 0);
            for (int n = 0; (n < kStores || changes < kChanges) && !HasFailure(); ++n) {
                dune_vm_mprotect(pgroot, const_cast<char*>(mine), PGSIZE, PERM_R);
                expect_vectors_kept([] [[gnu::always_inline]] { *mine = 7; });
                EXPECT_EQ(*mine, 7);
                *mine = 0;
            }
            --running;
        });
    while (running != 0) {
        dune_register_pgflt_handler(kHandlers[changes++ % std::size(kHandlers)]);
        std::this_thread::yield();
    }
    for (auto& thread : threads)
        thread.join();
}

}  // namespace
