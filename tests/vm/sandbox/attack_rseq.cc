// SPDX-License-Identifier: MIT
//
// Restartable sequences that would have the runtime's code interrupted, or the runtime's memory
// read or written on the program's behalf.

#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <thread>

#include "attacker.h"

namespace dune::sandbox_test {
namespace {

constexpr uint32_t kSignature = 0x53053053;
constexpr uint32_t kSize = 32;
constexpr uint64_t kUserEnd = 1ull << 46;

// Where an abort leads to: it must never run but in ring 3.
extern "C" [[gnu::used]] [[noreturn]] void attack_rseq_aborted() {
    uint16_t cs;
    asm volatile("mov %%cs, %0" : "=r"(cs));
    uint64_t stack;
    asm volatile("mov %%rsp, %0" : "=r"(stack));
    _exit((cs & 3) == 3 && stack < kUserEnd ? 7 : 8);
}
asm(R"(
    .text
    .long 0x53053053
attack_rseq_abort:
    and $-16, %rsp
    call attack_rseq_aborted
)");
extern "C" const char attack_rseq_abort[];

volatile uint64_t* section() {
    return reinterpret_cast<volatile uint64_t*>(static_cast<char*>(__builtin_thread_pointer()) +
                                                __rseq_offset + 8);
}

// Off the CPU and back, a few times: by calls and by being interrupted.
void be_resumed() {
    for (int i = 0; i < 3; i++) {
        usleep(1000);
    }
    const pid_t rival = fork();
    if (rival == 0) {
        // For some ticks of Linux' clock, and no longer: there are dozens of these.
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
        while (std::chrono::steady_clock::now() < end) {
        }
        _exit(0);
    }
    while (waitpid(rival, nullptr, WNOHANG) == 0) {
    }
}

int status_of(const std::function<void()>& act) {
    const pid_t pid = fork();
    if (pid == 0) {
        act();
        be_resumed();
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

void must_die(const char* what, uint64_t at, const std::function<void()>& act) {
    const int status = status_of(act);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) {
        fprintf(stderr, "%s: status %#x\n", what, static_cast<unsigned>(status));
        escaped(what, at);
    }
}

void set(uint64_t start, uint64_t length, uint64_t abort) {
    static rseq_cs cs;
    cs = {};
    cs.start_ip = start;
    cs.post_commit_offset = length;
    cs.abort_ip = abort;
    *section() = reinterpret_cast<uint64_t>(&cs);
}

long unregister() {
    auto* const area = reinterpret_cast<char*>(const_cast<uint64_t*>(section())) - 8;
    return syscall(SYS_rseq, area, kSize, RSEQ_FLAG_UNREGISTER, kSignature);
}

// In a process that has none, an area in the runtime's memory, or one that is lost afterwards.
void areas(uint64_t at) {
    const int status = status_of([at] {
        const uint64_t places[] = {at, at + 64, kUserEnd, ~0ull - 31};
        if (unregister() != 0) {
            _exit(10);  // all of this is about nothing
        }
        for (const uint64_t where : places) {
            if (syscall(SYS_rseq, where, kSize, 0, kSignature) != -1) {
                _exit(9);
            }
        }
    });
    if (status != 0) {
        escaped("rseq area", at);
    }
}

void lost_area() {
    unregister();
    void* const page =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    syscall(SYS_rseq, page, kSize, 0, kSignature);
    munmap(page, 4096);
}

// Sections that come and go under the monitor's eyes: never anything but an abort in ring 3, or
// death.
void race(uint64_t at, uint64_t abort) {
    const int status = status_of([at, abort] {
        alarm(20);
        static volatile rseq_cs cs;
        volatile uint64_t* const mine = section();
        cs.version = 0;
        cs.flags = 0;
        static volatile bool stop;
        std::thread other([=] {
            for (unsigned turn = 0; !stop; turn++) {
                cs.start_ip = turn % 2 != 0 ? at : 0x1000;
                cs.post_commit_offset = turn % 3 != 0 ? 0x10000 : 16;
                cs.abort_ip = turn % 5 != 0 ? abort : at + 4;
                *mine = turn % 7 != 0 ? reinterpret_cast<uint64_t>(&cs) : at;
            }
        });
        for (int i = 0; i < 50; i++) {
            usleep(100);
        }
        stop = true;
        other.join();
    });
    const bool aborted =
        WIFEXITED(status) && (WEXITSTATUS(status) == 7 || WEXITSTATUS(status) == 0);
    if (!aborted && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)) {
        fprintf(stderr, "race: status %#x\n", static_cast<unsigned>(status));
        escaped("rseq race", at);
    }
}

}  // namespace

void attack_rseq(const char*) {
    const auto abort = reinterpret_cast<uint64_t>(attack_rseq_abort);
    must_die("area is lost", 0, lost_area);
    must_die("all of memory", 0, [=] { set(0, ~0ull, abort); });
    must_die("all below the line", 0, [=] { set(abort + 1, kUserEnd, abort); });
    must_die("up to the end", 0, [=] { set(abort + 1, 0 - (abort + 1), abort); });
    must_die("section is lost", 0, [] { *section() = 0x1000; });
    must_die("section at the line", 0, [] { *section() = kUserEnd - 16; });
    must_die("section of the kernel", 0, [] { *section() = 0xffffffff81000000; });
    must_die("section nowhere", 0, [] { *section() = 0x0000800000000000; });
    must_die("abort at 0", 0, [=] { set(abort, 16, 0); });
    must_die("abort nowhere", 0, [=] { set(abort, 16, 0x0000800000000000); });
    must_die("abort in the vDSO's gap", 0, [=] { set(abort, 16, kUserEnd - (1 << 29)); });
    int tried = 0;
    for (const Target& target : runtime_memory()) {
        if (tried++ == 12) {
            break;
        }
        const uint64_t at = target.at;
        areas(at);
        must_die("section in the runtime", at, [=] { *section() = at; });
        must_die("section over the runtime", at, [=] { set(at, target.size, abort); });
        must_die("abort in the runtime", at, [=] { set(abort, 16, at + 4); });
        if (tried <= 3) {
            race(at, abort);
        }
    }
    must_fail("membarrier, rseq",
              syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0));
}

}  // namespace dune::sandbox_test
