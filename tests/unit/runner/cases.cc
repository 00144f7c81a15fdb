// SPDX-License-Identifier: MIT
//
// A program of cases that go well and wrong, for test_program_test.cc.

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace {

int used;  // by cases of this process

TEST(Cases, First) {
    EXPECT_EQ(used++, 0);
}
TEST(Cases, Second) {
    EXPECT_EQ(used++, 0);
}
TEST(Cases, Fails) {
    EXPECT_EQ(1, 2) << "on purpose";
}
TEST(Cases, Skips) {
    GTEST_SKIP();
}
TEST(Cases, Dies) {
    raise(SIGKILL);
}
TEST(Cases, Hangs) {
    pause();
}
TEST(Cases, TakesTheProgramWithIt) {
    kill(getppid(), SIGKILL);
    pause();
}

TEST(Cases, LeavesAProcessBehind) {
    if (fork() == 0) {
        setsid();
        pause();
    }
}

TEST(Cases, IsAlone) {
    EXPECT_EQ(getsid(0), getpid());
    EXPECT_EQ(getchar(), EOF);
    for (int fd = 3; fd < 64; fd++) {
        EXPECT_EQ(close(fd), -1) << fd << " was open";
    }
}

}  // namespace
