// SPDX-License-Identifier: MIT
// Processes made from Dune mode.
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "support.h"

extern char** environ;

namespace {

using namespace dune::test;

using RuntimeFork = RuntimeTest;

int wait_for(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST_F(RuntimeFork, ChildIsInHostMode) {
    const pid_t pid = fork();
    if (pid == 0)
        _exit(read_cs() & 3);
    EXPECT_EQ(wait_for(pid), 3);
    EXPECT_TRUE(dune_in_guest());
}

TEST_F(RuntimeFork, ChildEntersAgain) {
    const pid_t pid = fork();
    if (pid == 0) {
        if (dune_enter() != 0)
            _exit(1);
        static int hits;
        dune_register_intr_handler(T_ILLOP, [](dune_tf* tf) {
            ++hits;
            tf->rip += 2;
        });
        asm volatile("ud2");
        _exit(hits == 1 && dune_in_guest() ? 0 : 2);
    }
    EXPECT_EQ(wait_for(pid), 0);
}

TEST_F(RuntimeFork, Generations) {
    const Outcome outcome = in_child([] {
        const Outcome grandchild =
            in_child([] { return in_child([] { return 7; }).exited(7) ? 6 : 1; });
        return grandchild.exited(6) ? 5 : 1;
    });
    EXPECT_TRUE(outcome.exited(5)) << outcome.stderr_;
}

TEST_F(RuntimeFork, ThreadsInTheChild) {
    EXPECT_TRUE(in_child([] {
                    int result = 1;
                    std::thread([&result] { result = dune_enter(); }).join();
                    return result;
                }).exited(0));
}

TEST_F(RuntimeFork, FromAThread) {
    std::thread([] {
        ASSERT_EQ(dune_enter(), 0);
        EXPECT_TRUE(in_child([] { return dune_in_guest() ? 3 : 4; }).exited(3));
    }).join();
}

TEST_F(RuntimeFork, AlternateStackIsTheChilds) {
    static char stack[16 << 10];
    const stack_t wanted = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
    const stack_t none = {.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    ASSERT_EQ(sigaltstack(&wanted, nullptr), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        stack_t in_host = {};
        stack_t in_guest = {};
        const bool ok = sigaltstack(nullptr, &in_host) == 0 && dune_enter() == 0 &&
                        sigaltstack(nullptr, &in_guest) == 0;
        _exit(ok && in_host.ss_sp == stack && in_guest.ss_sp == stack ? 0 : 1);
    }
    EXPECT_EQ(wait_for(pid), 0);
    sigaltstack(&none, nullptr);
}

TEST_F(RuntimeFork, Vfork) {
    volatile int shared = 0;
    for (int i = 0; i < 20; ++i) {
        const pid_t pid = vfork();
        if (pid == 0) {
            shared = shared + 1;
            _exit(4);
        }
        ASSERT_EQ(wait_for(pid), 4);
        ASSERT_EQ(shared, i + 1);
        ASSERT_TRUE(dune_in_guest());
    }
}

TEST_F(RuntimeFork, VforkAndExec) {
    const pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 12", nullptr);
        _exit(127);
    }
    EXPECT_EQ(wait_for(pid), 12);
}

TEST_F(RuntimeFork, ForkAndExec) {
    const pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 13", nullptr);
        _exit(127);
    }
    EXPECT_EQ(wait_for(pid), 13);
    EXPECT_TRUE(in_child([]() -> int {
                    execl("/bin/sh", "sh", "-c", "exit 14", nullptr);
                    return 127;
                }).exited(14));
    EXPECT_EQ(execl("/nonexistent", "x", nullptr), -1);
    EXPECT_EQ(errno, ENOENT);
}

TEST_F(RuntimeFork, PosixSpawn) {
    char sh[] = "sh";
    char option[] = "-c";
    char command[] = "exit 15";
    char* const argv[] = {sh, option, command, nullptr};
    for (int i = 0; i < 10; ++i) {
        pid_t pid = 0;
        ASSERT_EQ(posix_spawn(&pid, "/bin/sh", nullptr, nullptr, argv, environ), 0);
        ASSERT_EQ(wait_for(pid), 15);
    }
    pid_t pid = 0;
    EXPECT_EQ(posix_spawn(&pid, "/nonexistent", nullptr, nullptr, argv, environ), ENOENT);
}

TEST_F(RuntimeFork, SystemAndPopen) {
    const int status = system("exit 16");
    EXPECT_EQ(WEXITSTATUS(status), 16);
    FILE* const pipe = popen("echo text", "r");
    ASSERT_NE(pipe, nullptr);
    char line[32] = {};
    EXPECT_NE(fgets(line, sizeof(line), pipe), nullptr);
    EXPECT_STREQ(line, "text\n");
    EXPECT_EQ(pclose(pipe), 0);
}

int handlers;

TEST_F(RuntimeFork, AtforkHandlersRun) {
    pthread_atfork([] { ++handlers; }, [] { ++handlers; }, [] { handlers += 10; });
    handlers = 0;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(handlers);
    EXPECT_EQ(wait_for(pid), 11);
    EXPECT_EQ(handlers, 2);
}

constexpr std::size_t kHammerPages = 128;

/** Allocator, page-table and signal locks, most of the time. */
void hammer(const std::atomic<bool>& stop, char* range) {
    ASSERT_EQ(dune_enter(), 0);
    page* const own = dune_page_alloc();
    auto* const root = static_cast<ptent_t*>(dune_page2va(own));
    std::memset(root, 0, PGSIZE);
    while (!stop.load()) {
        dune_vm_map_pages(root, range, kHammerPages * PGSIZE, PERM_R | PERM_W);
        ptent_t* const copy = dune_vm_clone(root);
        dune_vm_free(copy);
        dune_vm_unmap(root, range, kHammerPages * PGSIZE);
        dune_signal(SIGUSR2, SIG_IGN);
        dune_signal(SIGUSR2, SIG_DFL);
    }
    dune_vm_free(root);
}

/** In a child: 0 if everything that has a lock works. */
int use_all(char* range) {
    if (dune_enter() != 0)
        return 1;
    page* const own = dune_page_alloc();
    auto* const root = static_cast<ptent_t*>(dune_page2va(own));
    std::memset(root, 0, PGSIZE);
    // Locks are chosen by the root's address: 64 of them in a row have them all.
    ptent_t* roots[64];
    for (auto& each : roots) {
        each = dune_vm_clone(root);
        if (each == nullptr || dune_vm_map_pages(each, range, PGSIZE, PERM_R) != 0)
            return 2;
    }
    for (auto* const each : roots)
        dune_vm_free(each);
    dune_vm_free(root);
    return dune_signal(SIGUSR1, SIG_IGN) == SIG_ERR ? 3 : 0;
}

template <class Fork>
void fork_while_hammered(Fork make_child) {
    constexpr std::size_t kThreads = 2;
    auto* const range = reinterpret_cast<char*>(0x200000000000);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i)
        threads.emplace_back([&stop, range] { hammer(stop, range); });
    for (int i = 0; i < 4 && !testing::Test::HasFailure(); ++i) {
        const pid_t pid = make_child();
        if (pid == 0) {
            // A child that waits for a lock for ever: the default action ends it.
            alarm(10);
            _exit(use_all(range));
        }
        EXPECT_EQ(wait_for(pid), 0);
    }
    stop = true;
    for (auto& thread : threads)
        thread.join();
}

TEST_F(RuntimeFork, OtherThreadsHoldLocks) {
    fork_while_hammered([] { return fork(); });
}

TEST_F(RuntimeFork, OtherThreadsHoldLocksAndThisOneIsInHostMode) {
    ASSERT_EQ(dune_leave(), 0);
    fork_while_hammered([] { return fork(); });
    ASSERT_EQ(dune_enter(), 0);
}

TEST_F(RuntimeFork, OtherThreadsHoldLocksAndTheChildHasAStack) {
    fork_while_hammered([] {
        alignas(16) static char stack[64 << 10];
        return clone(
            [](void* range) {
                alarm(10);
                return use_all(static_cast<char*>(range));
            },
            stack + sizeof(stack), SIGCHLD, reinterpret_cast<void*>(0x200000000000));
    });
}

TEST_F(RuntimeFork, CloneOnASharedStackIsRefused) {
    EXPECT_EQ(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(syscall(SYS_clone3, reinterpret_cast<void*>(8), 88), -1);
}

TEST_F(RuntimeFork, ManyTimes) {
    for (int i = 0; i < 60; ++i) {
        const pid_t pid = fork();
        if (pid == 0)
            _exit(dune_enter() == 0 && dune_leave() == 0 && dune_enter() == 0 ? i % 100 : 101);
        ASSERT_EQ(wait_for(pid), i % 100);
    }
}

}  // namespace
