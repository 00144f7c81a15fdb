// SPDX-License-Identifier: MIT
//
// Debian's strace and gdb with a process in the guest: they attach, see its system calls, stop it,
// look at it, let it go on and leave.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "debugger_subject.h"
#include "support.h"

namespace {

constexpr const char* kSubject = "kern_debugger_subject";
constexpr const char* kLog = "/tmp/debugger-log";
// Debian's small gdb knows system calls by number alone.
const std::string kGetppid = std::to_string(SYS_getppid);

// Runs a command of the shell; its exit status.
int sh(const std::string& command) {
    const int status = system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Lines of the log that begin with a text.
int lines_with(const std::string& start) {
    const std::string text = "\n" + support::read_file(kLog);
    int lines = 0;
    for (size_t at = 0; (at = text.find("\n" + start, at)) != std::string::npos; at++) {
        lines++;
    }
    return lines;
}

// A subject that is in the guest until it is told to end.
class Running : public testing::Test {
  protected:
    void SetUp() override {
        const int fd = memfd_create("rounds", 0);
        ASSERT_EQ(ftruncate(fd, 4096), 0);
        void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ASSERT_NE(page, MAP_FAILED);
        shared_ = static_cast<Shared*>(page);
        pid_ = support::fork_or_end();
        if (pid_ == 0) {
            dup2(fd, 3);
            execlp(kSubject, kSubject, "loop", nullptr);
            _exit(127);
        }
        if (fd != 3) {
            close(fd);
        }
        ASSERT_TRUE(goes_on());
    }

    void TearDown() override {
        shared_->end = 1;
        EXPECT_EQ(support::wait_status(pid_), 0) << "its calls returned what they should";
        unlink(kLog);
    }

    // Whether the subject gets forward.
    bool goes_on() const { return grows(shared_->rounds, 20); }

    static bool grows(const volatile uint64_t& number, uint64_t by) {
        const uint64_t before = number;
        for (int i = 0; i < 500 && number < before + by; i++) {
            usleep(10'000);
        }
        return number >= before + by;
    }

    // Starts a command whose output goes to the log; `@` is the subject's number.
    pid_t start(std::string command) {
        command.replace(command.find('@'), 1, std::to_string(pid_));
        const pid_t pid = support::fork_or_end();
        if (pid == 0) {
            const std::string all = "exec " + command + " >" + kLog + " 2>&1 </dev/null";
            execl("/bin/sh", "sh", "-c", all.c_str(), nullptr);
            _exit(127);
        }
        return pid;
    }

    static bool wait_for_lines(const std::string& start, int lines) {
        for (int i = 0; i < 6000 && lines_with(start) < lines; i++) {
            usleep(10'000);
        }
        return lines_with(start) >= lines;
    }

    pid_t pid_ = -1;
    volatile Shared* shared_ = nullptr;
};

TEST(Strace, FromTheStart) {
    // Stopped at each of its calls and of the trampoline's, it comes to its end all the same.
    EXPECT_EQ(sh(std::string("strace -o ") + kLog + " " + kSubject + " calls 50"), 0);
    EXPECT_EQ(lines_with("getppid()"), 101) << "50 by each way, and one of host mode's";
    EXPECT_EQ(lines_with("+++ exited with 0 +++"), 1);
    unlink(kLog);
}

TEST(Strace, WithAFilter) {
    EXPECT_EQ(sh(std::string("strace --seccomp-bpf -f -e trace=getppid -o ") + kLog + " " +
                 kSubject + " calls 20"),
              0);
    const std::string text = support::read_file(kLog);
    int seen = 0;
    for (size_t at = 0; (at = text.find(" getppid()", at)) != std::string::npos; at++) {
        seen++;
    }
    EXPECT_EQ(seen, 41) << text;
    unlink(kLog);
}

TEST_F(Running, StraceAttachesAndLeaves) {
    for (int i = 0; i < 2; i++) {
        const pid_t strace = start("strace -p @");
        EXPECT_TRUE(wait_for_lines("getppid()", 20)) << support::read_file(kLog);
        EXPECT_TRUE(goes_on()) << "while it is watched";
        kill(strace, SIGINT);
        support::wait_status(strace);
        EXPECT_TRUE(goes_on()) << "when strace has left";
    }
}

TEST_F(Running, ATimerUnderStrace) {
    const pid_t strace = start("strace -p @");
    EXPECT_TRUE(wait_for_lines("getppid()", 20)) << support::read_file(kLog);
    // More than strace takes for a handler: the guest gets its turn between two.
    shared_->timer_us = 20'000;
    EXPECT_TRUE(grows(shared_->alarms, 10));
    EXPECT_TRUE(goes_on()) << "with a timer";
    // Far less: the process has signals to handle and does nothing else, as one of Linux' own
    // would. Nobody else is to notice, and its handler can end it.
    shared_->timer_us = 100;
    EXPECT_TRUE(grows(shared_->alarms, 50)) << "its handlers run";
    EXPECT_EQ(shared_->timer_set, 100U);
    for (int i = 0; i < 10; i++) {
        const double start = support::now();
        usleep(10'000);
        EXPECT_LT(support::now() - start, 1) << "the CPU is shared";
    }
    shared_->timer_us = 0;
    EXPECT_TRUE(goes_on()) << "when it has ended";
    EXPECT_EQ(shared_->timer_set, 0U);
    kill(strace, SIGINT);
    support::wait_status(strace);
    EXPECT_TRUE(goes_on()) << "when strace has left";
}

TEST(Strace, InterruptedCallsOfTheRuntime) {
    // Signals, their handlers in ring 0 and the calls that they interrupt, each with many stops.
    EXPECT_EQ(sh(std::string("strace -f -o ") + kLog +
                 " runtime_signals_test_static --gtest_brief --gtest_filter='*."
                 "InterruptedCallIsRestarted:*.QueuedSignalsAreNotLost:*.NoWakeupIsLost'"),
              0)
        << support::read_file(kLog);
    unlink(kLog);
}

TEST_F(Running, GdbAttachesLooksAndLeaves) {
    const pid_t gdb = start(
        "gdb -q -nx -batch -p @ -ex 'info registers rip' -ex backtrace -ex 'info threads' "
        "-ex 'x/2i $pc' -ex detach");
    EXPECT_EQ(support::wait_status(gdb), 0);
    const std::string text = support::read_file(kLog);
    EXPECT_EQ(lines_with("rip "), 1) << text;
    EXPECT_GE(lines_with("#0 "), 1) << text;
    EXPECT_GE(lines_with("=> 0x"), 1) << text;
    EXPECT_EQ(lines_with("[Inferior 1 (process "), 1) << "detached: " << text;
    EXPECT_TRUE(goes_on()) << text;
}

TEST_F(Running, GdbContinuesAndStopsAtASignalAndACall) {
    const pid_t gdb = start(
        "gdb -q -nx -batch -p @ -ex 'handle SIGUSR1 stop print nopass' -ex 'echo ready\\n' "
        "-ex continue -ex backtrace -ex 'catch syscall " +
        kGetppid +
        "' -ex continue -ex 'info registers rip' -ex continue -ex 'delete 1' -ex detach");
    EXPECT_TRUE(wait_for_lines("ready", 1)) << support::read_file(kLog);
    EXPECT_TRUE(goes_on()) << "continued";
    kill(pid_, SIGUSR1);
    EXPECT_EQ(support::wait_status(gdb), 0);
    const std::string text = support::read_file(kLog);
    EXPECT_NE(text.find("received signal SIGUSR1"), std::string::npos) << text;
    EXPECT_NE(text.find("call to syscall " + kGetppid), std::string::npos) << text;
    EXPECT_NE(text.find("returned from syscall " + kGetppid), std::string::npos) << text;
    EXPECT_TRUE(goes_on()) << text;
}

}  // namespace
