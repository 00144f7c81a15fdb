// SPDX-License-Identifier: MIT
// Page faults: of the program's tables, and of Linux.
#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "support.h"

namespace {

using namespace dune::test;

struct Fault {
    std::uintptr_t addr;
    std::uint64_t fec;
    dune_tf tf;
};
Fault last;
volatile int faults;

class RuntimePgflt : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        faults = 0;
    }
    void TearDown() override { dune_register_pgflt_handler(nullptr); }
};

void note(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
    last = {addr, fec, *tf};
    faults = faults + 1;
}

void unprotect(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
    note(addr, fec, tf);
    dune_vm_mprotect(pgroot, reinterpret_cast<void*>(PGADDR(addr)), PGSIZE, PERM_R | PERM_W);
}

TEST_F(RuntimePgflt, WriteBarrier) {
    constexpr int kPages = 100;
    Pages pages(kPages);
    std::memset(pages.at(), 1, pages.size());
    dune_register_pgflt_handler(unprotect);
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), pages.size(), PERM_R), 0);
    for (int i = 0; i < kPages; ++i) {
        EXPECT_EQ(*pages.at(i), 1);
        *pages.at(i) = 2;
        ASSERT_EQ(faults, i + 1);
        EXPECT_EQ(PGADDR(last.addr), pages.address(i));
        EXPECT_EQ(last.fec, FEC_P | FEC_W);
        *pages.at(i) = 3;
        ASSERT_EQ(faults, i + 1);
    }
}

TEST_F(RuntimePgflt, NotPresent) {
    Pages pages(1);
    *pages.at() = 5;
    dune_register_pgflt_handler(unprotect);
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_NONE), 0);
    EXPECT_EQ(*static_cast<volatile char*>(pages.at()), 5);
    EXPECT_EQ(faults, 1);
    EXPECT_EQ(last.fec, 0U);
}

TEST_F(RuntimePgflt, HandlerWithoutVectorRegisters) {
    Pages pages(1);
    *pages.at() = 5;
    dune_register_pgflt_handler_general_regs(unprotect);
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_R), 0);
    *static_cast<volatile char*>(pages.at()) = 6;
    EXPECT_EQ(faults, 1);
}

TEST_F(RuntimePgflt, RefusedByLinuxGoesToTheHandler) {
    Pages pages(1, PROT_READ);
    EXPECT_EQ(*pages.at(), 0);
    dune_register_pgflt_handler([](std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
        note(addr, fec, tf);
        mprotect(reinterpret_cast<void*>(PGADDR(addr)), PGSIZE, PROT_READ | PROT_WRITE);
    });
    *static_cast<volatile char*>(pages.at(0)) = 1;
    EXPECT_EQ(faults, 1);
    EXPECT_EQ(last.addr, pages.address());
    EXPECT_EQ(last.fec, FEC_P | FEC_W);
}

volatile int signals;
siginfo_t info_seen;
sigjmp_buf back;

void on_fault(int, siginfo_t* info, void*) {
    signals = signals + 1;
    info_seen = *info;
    siglongjmp(back, 1);
}

void catch_fault(int sig) {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(sig, &action, nullptr);
    signals = 0;
}

TEST_F(RuntimePgflt, SegmentationFaultsAreSignals) {
    catch_fault(SIGSEGV);
    Pages readonly(1, PROT_READ);
    for (int i = 0; i < 20; ++i) {
        if (sigsetjmp(back, 1) == 0)
            *static_cast<volatile char*>(readonly.at()) = 1;
        EXPECT_EQ(signals, 2 * i + 1);
        EXPECT_EQ(info_seen.si_code, SEGV_ACCERR);
        EXPECT_EQ(info_seen.si_addr, readonly.at());
        if (sigsetjmp(back, 1) == 0)
            *reinterpret_cast<volatile char*>(0x3000) = 1;
        EXPECT_EQ(signals, 2 * i + 2);
        EXPECT_EQ(info_seen.si_code, SEGV_MAPERR);
        EXPECT_EQ(info_seen.si_addr, reinterpret_cast<void*>(0x3000));
    }
    signal(SIGSEGV, SIG_DFL);
}

TEST_F(RuntimePgflt, BeyondTheEndOfAFileIsSigbus) {
    char name[] = "/tmp/duneXXXXXX";
    const int fd = mkstemp(name);
    ASSERT_EQ(ftruncate(fd, PGSIZE), 0);
    auto* const map = static_cast<volatile char*>(
        mmap(nullptr, 2 * PGSIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ASSERT_NE(map, MAP_FAILED);
    map[0] = 1;
    catch_fault(SIGBUS);
    if (sigsetjmp(back, 1) == 0)
        map[PGSIZE] = 1;
    EXPECT_EQ(signals, 1);
    EXPECT_EQ(info_seen.si_code, BUS_ADRERR);
    signal(SIGBUS, SIG_DFL);
    munmap(const_cast<char*>(map), 2 * PGSIZE);
    unlink(name);
    close(fd);
}

volatile char* nowhere() {
    std::uintptr_t address = 16;
    asm("" : "+r"(address));
    return reinterpret_cast<volatile char*>(address);
}

/** A handler that was left for good says nothing about later faults. */
TEST_F(RuntimePgflt, CopyOnWriteAfterAHandlerWasLeft) {
    dune_register_pgflt_handler([](uintptr_t, uint64_t, dune_tf*) {
        sti();
        siglongjmp(back, 1);
    });
    volatile int left = 0;
    for (int i = 0; i < 3; ++i) {
        if (sigsetjmp(back, 1) == 0)
            *nowhere() = 1;
        else
            left = left + 1;
    }
    EXPECT_EQ(left, 3);
    dune_register_pgflt_handler(nullptr);
    Pages pages(1);
    *pages.at() = 1;
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_R | PERM_COW), 0);
    *pages.at() = 2;
    EXPECT_EQ(*pages.at(), 2);
    // The copy is the pool's: what Linux puts there next is to be seen again.
    ASSERT_EQ(dune_vm_map_phys(pgroot, pages.at(), PGSIZE,
                               reinterpret_cast<void*>(dune_va_to_pa(pages.at())),
                               PERM_R | PERM_W | PERM_X),
              0);
}

char* protected_page;
double* seen_register;

/** What a handler of SIGSEGV finds in the context, also if the program's tables were why. */
TEST_F(RuntimePgflt, SignalHasTheVectorRegisters) {
    Pages pages(1);
    *pages.at() = 1;
    protected_page = pages.at();
    double value = 0;
    seen_register = &value;
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
        const auto* const fp = static_cast<ucontext_t*>(context)->uc_mcontext.fpregs;
        if (fp != nullptr)
            std::memcpy(seen_register, &fp->_xmm[15], sizeof(double));
        dune_vm_mprotect(pgroot, protected_page, PGSIZE, PERM_R | PERM_W);
    };
    ASSERT_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
    ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, PERM_R), 0);
    const double wanted = 1.25;
    asm volatile("movsd %[wanted], %%xmm15\n\tmovb $3, (%[page])"
                 :
                 : [wanted] "m"(wanted), [page] "r"(pages.at())
                 : "xmm15", "memory");
    EXPECT_EQ(value, wanted);
    EXPECT_EQ(*pages.at(), 3);
    signal(SIGSEGV, SIG_DFL);
}

TEST_F(RuntimePgflt, UnmappedMemoryIsGone) {
    catch_fault(SIGSEGV);
    for (int i = 0; i < 50; ++i) {
        auto* const va = static_cast<volatile char*>(
            mmap(nullptr, PGSIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        *va = 1;
        munmap(const_cast<char*>(va), PGSIZE);
        if (sigsetjmp(back, 1) == 0)
            *va = 2;
        ASSERT_EQ(signals, i + 1);
    }
    signal(SIGSEGV, SIG_DFL);
}

TEST_F(RuntimePgflt, CopyOnWriteAfterFork) {
    Pages pages(8);
    std::memset(pages.at(), 1, pages.size());
    const Outcome outcome = in_child([&] {
        std::memset(pages.at(), 2, pages.size());
        return *pages.at(7);
    });
    EXPECT_TRUE(outcome.exited(2));
    EXPECT_EQ(*pages.at(7), 1);
}

TEST_F(RuntimePgflt, CloneIsCopiedOnWrite) {
    auto* const va = reinterpret_cast<char*>(0x345600000000);
    ASSERT_EQ(dune_vm_map_pages(pgroot, va, 4 * PGSIZE, PERM_R | PERM_W), 0);
    std::memset(va, 7, 4 * PGSIZE);
    ptent_t* const copy = dune_vm_clone(pgroot);
    ASSERT_NE(copy, nullptr);
    const unsigned long before = read_cr3();
    load_cr3(dune_va_to_pa(copy));
    *static_cast<volatile char*>(va) = 8;  // resolved without a handler
    EXPECT_EQ(*static_cast<volatile char*>(va), 8);
    load_cr3(before);
    EXPECT_EQ(*static_cast<volatile char*>(va), 7);
    *static_cast<volatile char*>(va) = 9;
    EXPECT_EQ(*static_cast<volatile char*>(va), 9);
    dune_vm_free(copy);
    EXPECT_EQ(dune_vm_unmap(pgroot, va, 4 * PGSIZE), 0);
}

TEST_F(RuntimePgflt, NewMemoryOnTablesOfTheProgram) {
    ptent_t* const copy = dune_vm_clone(pgroot);
    ASSERT_NE(copy, nullptr);
    const unsigned long before = read_cr3();
    load_cr3(dune_va_to_pa(copy));
    {
        Pages pages(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(0x456700000000));
        *pages.at() = 3;
        EXPECT_EQ(*pages.at(), 3);
    }
    load_cr3(before);
    dune_vm_free(copy);
}

// The entry's own fault, on the stack, hides the address of the program's. Each in turn: rights
// that lack, a page that is not present, and Linux' refusal.
TEST_F(RuntimePgflt, FaultOnAStackInANewGib) {
    Pages pages(1);
    *pages.at() = 5;
    for (const bool general : {false, true}) {
        (general ? dune_register_pgflt_handler_general_regs
                 : dune_register_pgflt_handler)(unprotect);
        for (const int perm : {PERM_R, PERM_NONE}) {
            faults = 0;
            ASSERT_EQ(dune_vm_mprotect(pgroot, pages.at(), PGSIZE, perm), 0);
            write_on_new_stack(pages.at() + 123);
            EXPECT_EQ(faults, 1);
            EXPECT_EQ(last.addr, pages.address() + 123);
            EXPECT_EQ(last.fec, perm == PERM_R ? FEC_P | FEC_W : FEC_W);
            EXPECT_EQ(pages.at()[123], 7);
        }
    }
    dune_register_pgflt_handler([](std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
        note(addr, fec, tf);
        mprotect(reinterpret_cast<void*>(PGADDR(addr)), PGSIZE, PROT_READ | PROT_WRITE);
    });
    faults = 0;
    ASSERT_EQ(mprotect(pages.at(), PGSIZE, PROT_READ), 0);
    write_on_new_stack(pages.at() + 321);
    EXPECT_EQ(faults, 1);
    EXPECT_EQ(last.addr, pages.address() + 321);
}

/** Unmaps a page at one step of what is stepped through. */
struct {
    char* page;
    int steps;  // to go
} unmap_at;

void unmap_at_step(dune_tf* tf) {
    // Not under a lock of what is interrupted, which no other thread would get either.
    if ((tf->rflags & FL_IF) == 0 || unmap_at.steps-- != 0)
        return;
    tf->rflags &= ~FL_TF;
    EXPECT_EQ(dune_vm_unmap(pgroot, unmap_at.page, PGSIZE), 0);
}

template <class Body>
[[gnu::noinline]] void step_through(const Body& body) {
    asm volatile("lea -128(%%rsp), %%rsp; pushfq; orq %0, (%%rsp); popfq; lea 128(%%rsp), %%rsp"
                 :
                 : "i"(FL_TF)
                 : "memory", "cc");
    body();
    asm volatile("lea -128(%%rsp), %%rsp; pushfq; andq %0, (%%rsp); popfq; lea 128(%%rsp), %%rsp"
                 :
                 : "i"(~FL_TF)
                 : "memory", "cc");
}

// dune_vm_mprotect() of a usual page takes no lock. Whichever of its instructions another thread's
// unmap falls on: it must not write back what it read before.
TEST_F(RuntimePgflt, UnmapWhileAPageIsProtected) {
    unmap_at.page = reinterpret_cast<char*>(0x345700000000);
    dune_register_intr_handler(T_DEBUG, unmap_at_step);
    for (const bool in_line : {true, false}) {
        int before = 0;  // how often the unmap came first
        int rounds = 0;
        for (bool reached = true; reached; ++rounds) {
            char* const page = unmap_at.page;
            ASSERT_EQ(dune_vm_map_pages(pgroot, page, PGSIZE, PERM_R | PERM_W), 0);
            *page = 1;
            ASSERT_EQ((dune_vm_mprotect)(pgroot, page, PGSIZE, PERM_R | PERM_W), 0);
            unmap_at.steps = rounds;
            int result = 1;
            if (in_line)
                step_through([&] { result = dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R); });
            else
                step_through([&] { result = (dune_vm_mprotect)(pgroot, page, PGSIZE, PERM_R); });
            reached = unmap_at.steps < 0;
            before += result == -EINVAL ? 1 : 0;
            ASSERT_TRUE(result == 0 || result == -EINVAL);
            ptent_t* entry = nullptr;
            ASSERT_EQ(dune_vm_lookup(pgroot, page, CREATE_NORMAL, &entry), 0);
            if (!reached) {
                ASSERT_EQ(dune_vm_unmap(pgroot, page, PGSIZE), 0);
            }
            ASSERT_EQ(*entry, 0U) << "the unmap came after " << rounds << " steps";
        }
        EXPECT_GT(before, 10);
        EXPECT_GT(rounds, before);
    }
    dune_register_intr_handler(T_DEBUG, nullptr);
}

// A GiB is mapped at its first touch. Of threads that touch one at the same time all but one find
// it mapped when they come to see to it, which is no fault for the program to hear of.
TEST_F(RuntimePgflt, ANewGibTouchedByManyAtOnce) {
    constexpr int kThreads = 2, kRounds = 600;
    const auto reserve = [](int round) {
        return mmap(reinterpret_cast<void*>(0x567800000000 + (std::uint64_t{1} << 30) * round),
                    PGSIZE * kThreads, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    };
    std::vector<char*> gibs;
    for (int round = 0; round < kRounds; ++round) {
        gibs.push_back(static_cast<char*>(reserve(round)));
        ASSERT_NE(gibs.back(), MAP_FAILED);
    }
    dune_register_pgflt_handler(note);
    std::atomic<int> entered{0}, arrived{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([&, i] {
            if (dune_enter() != 0)
                return;
            ++entered;
            for (int round = 0; round < kRounds; ++round) {
                ++arrived;
                while (arrived < (round + 1) * kThreads)
                    asm volatile("pause");
                // What one does, up to its table entry, the other meets at every point of its own.
                const std::uint64_t start = __builtin_ia32_rdtsc();
                while (i != 0 && __builtin_ia32_rdtsc() - start < 50U * round)
                    ;
                gibs[round][i * PGSIZE] = static_cast<char>(round);
            }
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(entered, kThreads);
    EXPECT_EQ(faults, 0);
    for (int round = 0; round < kRounds; ++round) {
        for (int i = 0; i < kThreads; ++i)
            EXPECT_EQ(gibs[round][i * PGSIZE], static_cast<char>(round));
        munmap(gibs[round], PGSIZE * kThreads);
    }
}

}  // namespace
