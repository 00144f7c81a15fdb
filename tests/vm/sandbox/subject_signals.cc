// SPDX-License-Identifier: MIT

#include <immintrin.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>

#include "subject.h"

namespace dune::sandbox_test {

namespace {

constexpr size_t kPage = 4096;

void on(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0) {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    sigaction(signal, &action, nullptr);
}

volatile int count;
volatile int order[4];
volatile int value;
void* volatile address;

}  // namespace

void test_signals() {
    // Nested: the second comes while the first's handler runs.
    on(SIGUSR1, [](int, siginfo_t* info, void*) {
        order[count] = 1;
        count = count + 1;
        raise(SIGUSR2);
        CHECK(info->si_pid == getpid());
        order[count] = 3;
        count = count + 1;
    });
    on(SIGUSR2, [](int, siginfo_t*, void*) {
        order[count] = 2;
        count = count + 1;
    });
    raise(SIGUSR1);
    CHECK(count == 3 && order[0] == 1 && order[1] == 2 && order[2] == 3);
    // Blocked, it waits.
    sigset_t set;
    sigset_t pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    raise(SIGUSR2);
    CHECK(count == 3);
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR2) == 1);
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    CHECK(count == 4);
    // With a value.
    on(SIGRTMIN, [](int, siginfo_t* info, void*) { value = info->si_value.sival_int; });
    sigqueue(getpid(), SIGRTMIN, {.sival_int = 4711});
    CHECK(value == 4711);
    // While computing, without a system call.
    count = 0;
    on(SIGALRM, [](int, siginfo_t*, void*) { count = count + 1; });
    const itimerval timer = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &timer, nullptr);
    while (count < 5) {
    }
    const itimerval off{};
    setitimer(ITIMER_REAL, &off, nullptr);
    // Once only.
    on(
        SIGUSR1, [](int, siginfo_t*, void*) {}, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction now {};
    sigaction(SIGUSR1, nullptr, &now);
    CHECK(now.sa_handler == SIG_DFL);
}

void test_altstack() {
    static char stack[64 << 10];
    const stack_t wanted = {stack, 0, sizeof(stack)};
    CHECK(sigaltstack(&wanted, nullptr) == 0);
    on(
        SIGUSR1,
        [](int, siginfo_t*, void*) {
            char here;
            stack_t current;
            address = &here;
            CHECK(sigaltstack(nullptr, &current) == 0 && current.ss_flags == SS_ONSTACK);
            CHECK(sigaltstack(&current, nullptr) == -1 && errno == EPERM);
        },  // NOLINT(clang-analyzer-core.StackAddressEscape): looked at, not through
        SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(static_cast<char*>(address) > stack &&
          static_cast<char*>(address) < stack + sizeof(stack));
}

void test_segv() {
    // The handler makes the page writable, and the write goes on.
    static char* page;
    page = static_cast<char*>(mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    on(SIGSEGV, [](int, siginfo_t* info, void* raw) {
        const auto* const context = static_cast<ucontext_t*>(raw);
        CHECK(info->si_code == SEGV_ACCERR);
        CHECK(static_cast<char*>(info->si_addr) == page + 5);
        CHECK(context->uc_mcontext.gregs[REG_TRAPNO] == 14);
        CHECK(context->uc_mcontext.gregs[REG_CR2] ==
              static_cast<greg_t>(reinterpret_cast<uintptr_t>(page) + 5));
        mprotect(page, kPage, PROT_READ | PROT_WRITE);
        count = count + 1;
    });
    page[5] = 1;
    CHECK(page[5] == 1 && count == 1);
    // Nothing there at all; the handler steps over the instruction (mov %al, (%rcx): 2 bytes).
    on(SIGSEGV, [](int, siginfo_t* info, void* raw) {
        CHECK(info->si_code == SEGV_MAPERR);
        static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP] += 2;
        count = count + 1;
    });
    asm volatile(".byte 0x88, 0x01" ::"c"(0x123456000), "a"(0) : "memory");
    CHECK(count == 2);
    on(SIGFPE, [](int, siginfo_t* info, void* raw) {
        CHECK(info->si_code == FPE_INTDIV);
        static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP] += 2;  // div %ecx
        count = count + 1;
    });
    asm volatile("div %%ecx" ::"c"(0), "a"(1), "d"(0));
    CHECK(count == 3);
    on(SIGILL, [](int, siginfo_t*, void* raw) {
        static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP] += 2;  // ud2
        count = count + 1;
    });
    asm volatile("ud2");
    CHECK(count == 4);
    on(SIGTRAP, [](int, siginfo_t*, void*) { count = count + 1; });
    asm volatile("int3");
    CHECK(count == 5);
}

void test_restart() {
    int pipe_fds[2];
    char byte = 0;
    CHECK(pipe(pipe_fds) == 0);
    const pid_t parent = getpid();
    const itimerval soon = {{0, 0}, {0, 30000}};
    // Without SA_RESTART: EINTR.
    on(SIGALRM, [](int, siginfo_t*, void*) { count = count + 1; });
    setitimer(ITIMER_REAL, &soon, nullptr);
    CHECK(read(pipe_fds[0], &byte, 1) == -1 && errno == EINTR && count == 1);
    // With it: the handler runs, then the read goes on, until the child writes.
    on(
        SIGALRM, [](int, siginfo_t*, void*) { count = count + 1; }, SA_RESTART);
    const pid_t pid = fork();
    if (pid == 0) {
        usleep(50000);
        kill(parent, SIGALRM);
        usleep(50000);
        CHECK(write(pipe_fds[1], "x", 1) == 1);
        _exit(0);
    }
    CHECK(read(pipe_fds[0], &byte, 1) == 1 && byte == 'x' && count == 2);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    // Sleeps are never restarted.
    setitimer(ITIMER_REAL, &soon, nullptr);
    timespec rest{};
    const timespec second = {10, 0};
    CHECK(nanosleep(&second, &rest) == -1 && errno == EINTR && rest.tv_sec >= 5);
}

void test_longjmp() {
    static sigjmp_buf buffer;
    on(SIGSEGV, [](int, siginfo_t*, void*) { siglongjmp(buffer, 1); });
    for (int i = 0; i < 100; i++) {
        if (sigsetjmp(buffer, 1) == 0) {
            volatile uintptr_t nowhere = 8;
            *reinterpret_cast<volatile int*>(nowhere) = 1;
            CHECK(!"the write to address 8 went through");
        } else {
            count = count + 1;
        }
    }
    CHECK(count == 100);
}

void test_vectors() {
    // Handlers and system calls leave the vector registers of the interrupted code alone.
    on(SIGUSR1, [](int, siginfo_t*, void*) {
        __m128i junk = _mm_set1_epi32(-1);
        asm volatile("movdqa %0, %%xmm5\n\tmovdqa %0, %%xmm13" ::"x"(junk) : "xmm5", "xmm13");
        count = count + 1;
    });
    const __m128i wanted = _mm_set_epi32(1, 2, 3, 4);
    __m128i low;
    __m128i high;
    long result = 200;  // tkill
    const long tid = gettid();
    asm volatile(
        "movdqa %3, %%xmm5\n\t"
        "movdqa %3, %%xmm13\n\t"
        "syscall\n\t"
        "movdqa %%xmm5, %0\n\t"
        "movdqa %%xmm13, %1"
        : "=x"(low), "=x"(high), "+a"(result)
        : "x"(wanted), "D"(tid), "S"(SIGUSR1)
        : "rcx", "r11", "xmm5", "xmm13", "memory");
    CHECK(result == 0 && count == 1);
    // NOLINTBEGIN(bugprone-suspicious-memory-comparison): bits are what it is about
    CHECK(memcmp(&low, &wanted, sizeof(wanted)) == 0);
    CHECK(memcmp(&high, &wanted, sizeof(wanted)) == 0);
    // NOLINTEND(bugprone-suspicious-memory-comparison)
}

void test_sigsuspend() {
    sigset_t block;
    sigset_t none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, nullptr);
    on(SIGUSR1, [](int, siginfo_t*, void*) { count = count + 1; });
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        kill(parent, SIGUSR1);
        _exit(0);
    }
    CHECK(sigsuspend(&none) == -1 && errno == EINTR);
    CHECK(count == 1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, nullptr, &now);
    CHECK(sigismember(&now, SIGUSR1) == 1);
    CHECK(waitpid(pid, nullptr, 0) == pid);
}

}  // namespace dune::sandbox_test
