// SPDX-License-Identifier: MIT
// Processes made from Dune mode.
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>

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

TEST_F(RuntimeFork, CloneOnASharedStackIsRefused) {
    EXPECT_EQ(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(syscall(SYS_clone3, reinterpret_cast<void*>(8), 88), -1);
}

TEST_F(RuntimeFork, ManyTimes) {
    for (int i = 0; i < 200; ++i) {
        const pid_t pid = fork();
        if (pid == 0)
            _exit(dune_enter() == 0 && dune_leave() == 0 && dune_enter() == 0 ? i % 100 : 101);
        ASSERT_EQ(wait_for(pid), i % 100);
    }
}

}  // namespace
