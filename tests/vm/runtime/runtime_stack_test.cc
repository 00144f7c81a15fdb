// SPDX-License-Identifier: MIT
// Stacks: of threads and of the program's own making, growing, overflowing, switched in handlers.
#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "support.h"

namespace {

using namespace dune::test;

using RuntimeStack = RuntimeTest;

[[gnu::noinline]] int recurse(int n, int depth) {
    volatile char frame[4096];
    frame[0] = static_cast<char>(n);
    return n >= depth ? frame[0] : recurse(n + 1, depth) + frame[0];
}

constexpr int kForEver = 1 << 30;

TEST_F(RuntimeStack, GrowsIntoANewGigabyte) {
    constexpr std::uintptr_t kBoundary = 0x123440000000;
    void* const hint = reinterpret_cast<void*>(kBoundary);
    void* const va = mmap(hint, 2 * PGSIZE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
    ASSERT_EQ(va, hint);
    auto* const bottom = static_cast<volatile char*>(va);
    bottom[0] = 1;
    for (int i = 1; i < 4; ++i) {
        bottom[-i * PGSIZE] = 2;
        EXPECT_EQ(bottom[-i * PGSIZE], 2);
    }
    munmap(reinterpret_cast<void*>(kBoundary - 3 * PGSIZE), 5 * PGSIZE);
}

/** Run a function on a thread in Dune mode whose stack is small, so that it overflows soon. */
void on_small_stack(void (*body)()) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    pthread_t thread;
    const auto run = [](void* to_run) -> void* {
        if (dune_enter() == 0)
            reinterpret_cast<void (*)()>(to_run)();
        return nullptr;
    };
    if (pthread_create(&thread, &attributes, run, reinterpret_cast<void*>(body)) == 0)
        pthread_join(thread, nullptr);
}

TEST_F(RuntimeStack, OverflowInAThreadIsSaid) {
    const Outcome outcome = in_child([] {
        on_small_stack([] { recurse(0, kForEver); });
        return 0;
    });
    EXPECT_TRUE(outcome.killed(SIGSEGV)) << outcome.status;
    EXPECT_NE(outcome.stderr_.find("dune: "), std::string::npos) << outcome.stderr_;
}

char alternate[64 << 10];
sigjmp_buf back;
volatile int hits;

void handle_overflow(void (*handler)(int, siginfo_t*, void*)) {
    const stack_t stack = {.ss_sp = alternate, .ss_flags = 0, .ss_size = sizeof(alternate)};
    ASSERT_EQ(sigaltstack(&stack, nullptr), 0);
    struct sigaction action = {};
    action.sa_flags = SA_ONSTACK | SA_SIGINFO;
    action.sa_sigaction = handler;
    ASSERT_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
}

TEST_F(RuntimeStack, OverflowIsRecoveredFrom) {
    const Outcome outcome = in_child([] {
        on_small_stack([] {
            handle_overflow([](int, siginfo_t*, void*) {
                hits = hits + 1;
                siglongjmp(back, 1);
            });
            for (int i = 0; i < 20; ++i)
                if (sigsetjmp(back, 1) == 0)
                    recurse(0, kForEver);
        });
        return hits;
    });
    EXPECT_TRUE(outcome.exited(20)) << outcome.status << outcome.stderr_;
}

char* small_stack;
constexpr std::size_t kSmallStack = 1 << 20;

/** As runtimes do that make stacks larger on demand. */
TEST_F(RuntimeStack, HandlerOfAnOverflowMapsMoreAndReturns) {
    const Outcome outcome = in_child([] {
        Pages stack(kSmallStack / PGSIZE);
        small_stack = stack.at();
        mprotect(small_stack, kSmallStack / 2, PROT_NONE);
        handle_overflow([](int, siginfo_t*, void*) {
            hits = hits + 1;
            // A system call, and memory in a GiB that was never touched.
            Pages other(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(0x234500000000));
            *other.at() = 1;
            mprotect(small_stack, kSmallStack / 2, PROT_READ | PROT_WRITE);
        });
        ucontext_t main_context;
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = small_stack;
        context.uc_stack.ss_size = kSmallStack;
        context.uc_link = &main_context;
        makecontext(
            &context, [] { recurse(0, 200); }, 0);
        return swapcontext(&main_context, &context) == 0 ? hits : 100;
    });
    EXPECT_TRUE(outcome.exited(1)) << outcome.status << outcome.stderr_;
}

/** No frame of Linux' comes over what is in use of it. */
TEST_F(RuntimeStack, EnterOnTheAlternateStack) {
    const Outcome outcome = in_child([] {
        if (dune_leave() != 0)
            return 1;
        handle_overflow([](int, siginfo_t*, void*) {
            const int entered = dune_enter();
            raise(SIGUSR1);
            if (entered == 0 && dune_leave() == 0)
                hits = hits + 1;
        });
        struct sigaction action = {};
        action.sa_flags = SA_ONSTACK;
        action.sa_handler = [](int) { hits = hits + 10; };
        sigaction(SIGUSR1, &action, nullptr);
        raise(SIGSEGV);
        return hits;
    });
    EXPECT_TRUE(outcome.exited(11)) << outcome.status << outcome.stderr_;
}

constexpr int kSwitches = 20;
ucontext_t contexts[2];
ucontext_t scheduler;
int running;
volatile long rounds[2];
volatile bool mixed_up;

void count_rounds(int me) {
    const double third = (me + 1) / 3.0;
    double sum = 0;
    for (;;) {
        sum += third;
        rounds[me] = rounds[me] + 1;
        char text[32];
        std::snprintf(text, sizeof(text), "%d", me);
        if (text[0] != '0' + me || sum < third)
            mixed_up = true;
    }
}

/** A scheduler that switches contexts within the handler of a timer. */
TEST_F(RuntimeStack, ContextsSwitchInAHandler) {
    const Outcome outcome = in_child([] {
        static char stacks[2][256 << 10];
        for (int i = 0; i < 2; ++i) {
            getcontext(&contexts[i]);
            contexts[i].uc_stack.ss_sp = stacks[i];
            contexts[i].uc_stack.ss_size = sizeof(stacks[i]);
            makecontext(&contexts[i], reinterpret_cast<void (*)()>(count_rounds), 1, i);
        }
        struct sigaction action = {};
        // The mask goes with the context: another one comes when this one's handler has returned.
        action.sa_flags = SA_RESTART;
        action.sa_handler = [](int) {
            const int before = running;
            hits = hits + 1;
            running = 1 - before;
            if (hits == kSwitches) {
                const itimerval never = {};
                setitimer(ITIMER_REAL, &never, nullptr);
            }
            swapcontext(&contexts[before], hits < kSwitches ? &contexts[running] : &scheduler);
        };
        sigaction(SIGALRM, &action, nullptr);
        const itimerval often = {{0, 5000}, {0, 5000}};
        setitimer(ITIMER_REAL, &often, nullptr);
        swapcontext(&scheduler, &contexts[0]);
        return rounds[0] > 0 && rounds[1] > 0 && !mixed_up ? 0 : 1;
    });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

}  // namespace
