// SPDX-License-Identifier: MIT
//
// Restartable sequences. The C library registers each thread.

#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "rseq_section.h"
#include "subject.h"

// Adds one to counters[CPU], 64 bytes each, a while after it was read. Returns 1 when it was
// aborted.
extern "C" uint64_t subject_add(volatile void* area, uint64_t* counters);
asm(R"(
    .section .data.rel, "aw"
    .balign 32
subject_add_section:
    .long 0, 0
    .quad subject_add_begin, subject_add_end - subject_add_begin, subject_add_abort
    .text
    .globl subject_add
subject_add:
    lea subject_add_section(%rip), %rax
    mov %rax, 8(%rdi)
subject_add_begin:
    mov 4(%rdi), %ecx
    shl $6, %rcx
    mov (%rsi,%rcx), %rdx
    inc %rdx
    mov $400, %eax
1:  dec %eax
    jnz 1b
    mov %rdx, (%rsi,%rcx)
subject_add_end:
    xor %eax, %eax
    ret
    .long 0x53053053
subject_add_abort:
    mov $1, %eax
    ret
)");

namespace dune::sandbox_test {
namespace {

using vmtest::kRseqSignature;
using vmtest::Rival;
using vmtest::rseq_wait;
using vmtest::rseq_wait_section;

constexpr uint32_t kSize = 32;
constexpr uint64_t kForEver = 1ull << 40;

volatile struct rseq* area() {
    return reinterpret_cast<volatile struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                                   __rseq_offset);
}

volatile uint64_t* section() {
    return reinterpret_cast<volatile uint64_t*>(reinterpret_cast<volatile char*>(area()) + 8);
}

long call(volatile void* at, uint32_t size, int flags, uint32_t signature) {
    return syscall(SYS_rseq, at, size, flags, signature);
}

bool fails(int error, volatile void* at, uint32_t size, int flags, uint32_t signature) {
    return call(at, size, flags, signature) == -1 && errno == error;
}

std::vector<int> cpus() {
    cpu_set_t set;
    sched_getaffinity(0, sizeof(set), &set);
    std::vector<int> result;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            result.push_back(cpu);
        }
    }
    return result;
}

void go_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
}

void errors() {
    volatile struct rseq* const mine = area();
    alignas(kSize) static char other[2 * kSize];
    CHECK(fails(EBUSY, mine, kSize, 0, kRseqSignature));
    CHECK(fails(EPERM, mine, kSize, 0, kRseqSignature + 1));
    CHECK(fails(EINVAL, other, kSize, 0, kRseqSignature));
    CHECK(fails(EINVAL, mine, kSize, 0x100, kRseqSignature));
    CHECK(fails(EINVAL, other, kSize, RSEQ_FLAG_UNREGISTER, kRseqSignature));
    CHECK(fails(EPERM, mine, kSize, RSEQ_FLAG_UNREGISTER, kRseqSignature + 1));
    CHECK(call(mine, kSize, RSEQ_FLAG_UNREGISTER, kRseqSignature) == 0);
    CHECK(mine->cpu_id == static_cast<uint32_t>(RSEQ_CPU_ID_UNINITIALIZED));
    CHECK(mine->cpu_id_start == 0);
    CHECK(fails(EINVAL, mine, kSize, RSEQ_FLAG_UNREGISTER, kRseqSignature));
    CHECK(fails(EINVAL, other + 4, kSize, 0, kRseqSignature));
    CHECK(fails(EINVAL, other, kSize / 2, 0, kRseqSignature));
    CHECK(fails(EFAULT, reinterpret_cast<void*>(0xffff800000000000), kSize, 0, kRseqSignature));
    CHECK(call(mine, kSize, 0, kRseqSignature) == 0);
    CHECK(mine->cpu_id < CPU_SETSIZE);
}

void where() {
    const std::vector<int> all = cpus();
    for (int round = 0; round < 3; round++) {
        for (const int cpu : all) {
            go_to(cpu);
            const auto wanted = static_cast<uint32_t>(cpu);
            unsigned by_vdso = ~0u, node = ~0u;
            CHECK(area()->cpu_id == wanted);
            CHECK(area()->cpu_id_start == wanted);
            CHECK(sched_getcpu() == cpu);
            CHECK(getcpu(&by_vdso, &node) == 0 && by_vdso == wanted && node == 0);
        }
    }
    // A child has the registration, and is where it is.
    const pid_t child = fork();
    if (child == 0) {
        const bool good = fails(EBUSY, area(), kSize, 0, kRseqSignature) &&
                          area()->cpu_id == static_cast<uint32_t>(all.back());
        _exit(good ? 0 : 1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    std::thread([&] { CHECK(area()->cpu_id == static_cast<uint32_t>(all.back())); }).join();
}

void preempted() {
    const Rival rival;
    const rseq_cs cs = rseq_wait_section();
    int aborted = 0;
    for (int i = 0; i < 50; i++) {
        aborted += rseq_wait(section(), &cs, kForEver) == 1;
        CHECK(*section() == 0);
    }
    CHECK(aborted == 50);
}

// Each of these dies of it, wherever it is stopped.
void malformed() {
    const Rival rival;
    enum { kNowhere, kKernel, kBadSignature, kKinds };
    for (int kind = 0; kind < kKinds; kind++) {
        const pid_t child = fork();
        if (child == 0) {
            rseq_cs cs = rseq_wait_section();
            const void* at = &cs;
            if (kind == kNowhere) {
                at = reinterpret_cast<void*>(0x1000);
            } else if (kind == kKernel) {
                at = reinterpret_cast<void*>(0xffff800000000000);
            } else {
                cs.abort_ip = reinterpret_cast<uint64_t>(vmtest::rseq_wait_bad_abort);
            }
            _exit(static_cast<int>(10 + rseq_wait(section(), at, kForEver)));
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    }
}

volatile uint64_t seen_rip;

// A signal's handler finds the section left, with all of it done that is.
void signalled() {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* raw) {
        const auto* const context = static_cast<ucontext_t*>(raw);
        seen_rip = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
        CHECK(*section() == 0);
    };
    sigaction(SIGALRM, &action, nullptr);
    const rseq_cs cs = rseq_wait_section();
    for (int i = 0; i < 5; i++) {
        seen_rip = 0;
        const itimerval soon = {{0, 0}, {0, 2000}};
        setitimer(ITIMER_REAL, &soon, nullptr);
        while (seen_rip == 0) {
            CHECK(rseq_wait(section(), &cs, kForEver) == 1);
        }
        CHECK(seen_rip == reinterpret_cast<uint64_t>(vmtest::rseq_wait_abort));
    }
}

// What threads on one CPU count there without a lock is right.
void counted() {
    struct alignas(64) Counter {
        uint64_t value;
    };
    static Counter counters[CPU_SETSIZE];
    constexpr unsigned kThreads = 4, kTurns = 4000;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; i++) {
        threads.emplace_back([] {
            for (unsigned turn = 0; turn < kTurns; turn++) {
                while (subject_add(area(), &counters[0].value) != 0) {
                }
                if (turn % 64 == 0) {
                    sched_yield();
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    uint64_t sum = 0;
    for (const Counter& counter : counters) {
        sum += counter.value;
    }
    CHECK(sum == kThreads * kTurns);
}

}  // namespace

void test_rseq() {
    CHECK(__rseq_size >= 20);
    if (__rseq_size != 0) {  // without an area there is nothing to look at
        counted();
        errors();
        signalled();
        where();
        preempted();
        malformed();
    }
}

}  // namespace dune::sandbox_test
