// SPDX-License-Identifier: MIT
//
// Hostile programs: none gets anything, and the sandbox outlives each.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "sandboxed.h"
#include "secret.h"

namespace dune::sandbox_test {
namespace {

Outcome attack(const std::string& name, const std::string& argument = "",
               const std::string& preset = "permissive") {
    return sandboxed_with_helper({"--quiet", "--preset", preset, "--hide", "/etc/shadow"},
                                 {beside("sandbox_attacker"), name, argument});
}

class Attack : public ::testing::TestWithParam<const char*> {};

TEST_P(Attack, IsRefused) {
    const Outcome outcome = attack(GetParam());
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

INSTANTIATE_TEST_SUITE_P(All, Attack,
                         ::testing::Values("memory", "pointers", "mappings", "descriptors",
                                           "instructions", "single-step", "calls", "iovec-race",
                                           "signals", "robust-list", "frames", "rseq", "zero-copy",
                                           "outsiders", "kernel"),
                         [](const auto& info) {
                             std::string name = info.param;
                             for (char& c : name) {
                                 c = c == '-' ? '_' : c;
                             }
                             return name;
                         });

TEST_F(Secret, NoNameLeadsToIt) {
    const Outcome outcome = sandboxed({"--quiet", "--preset", "permissive", "--hide", path_},
                                      {beside("sandbox_attacker"), "paths", path_});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

TEST_F(Secret, NoRaceLeadsToIt) {
    const Outcome outcome = sandboxed({"--quiet", "--preset", "default", "--hide", path_},
                                      {beside("sandbox_attacker"), "path-race", path_});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

TEST_F(Secret, NoEmptyPathBecomesItsName) {
    const Outcome outcome = sandboxed({"--quiet", "--preset", "default", "--hide", path_},
                                      {beside("sandbox_attacker"), "empty-path-race", path_});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

// In a directory of its own: the program may write where it was started.
class Readable : public Secret {
  protected:
    Readable() { path_ = "/readable/file"; }
    void SetUp() override {
        mkdir("/readable", 0755);
        Secret::SetUp();
    }
};

TEST_F(Readable, IsNotChangeable) {
    const Outcome outcome = sandboxed({"--quiet", "--preset", "default", "--read", "/readable"},
                                      {beside("sandbox_attacker"), "attributes", path_});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

// A socket where the program may but read.
TEST_F(Readable, NoMessageGetsThere) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, "/readable/s");
    unlink(address.sun_path);
    const int receiver = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(bind(receiver, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const Outcome outcome = sandboxed({"--quiet", "--preset", "default", "--read", "/readable"},
                                      {beside("sandbox_attacker"), "message-race", "/readable"});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
    char byte;
    EXPECT_EQ(recv(receiver, &byte, 1, MSG_DONTWAIT), -1) << "a message came";
    close(receiver);
    unlink(address.sun_path);
}

TEST(Network, LoopbackIsAllThereIs) {
    const Outcome outcome = sandboxed({"--quiet", "--preset", "default", "--net", "loopback"},
                                      {beside("sandbox_attacker"), "network"});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

TEST(Processes, ADescriptorFromOutsideGivesNoRights) {
    const int given = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
    const int fd = fcntl(given, F_DUPFD, 100);
    ASSERT_GE(fd, 0);
    close(given);
    struct sigaction old {};
    static std::atomic<int> signals;
    struct sigaction action {};
    action.sa_handler = [](int) { signals++; };
    sigaction(SIGUSR1, &action, &old);
    const Outcome outcome =
        sandboxed({"--quiet", "--preset", "permissive"},
                  {beside("sandbox_attacker"), "process-descriptor", std::to_string(fd)});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
    EXPECT_EQ(signals, 0);
    sigaction(SIGUSR1, &old, nullptr);
    close(fd);
}

// /proc is hidden by rules about its name: so is what else leads there.
TEST(Mounts, AnotherProcIsNoWayOut) {
    const char* const where = "/tmp/other proc";
    mkdir(where, 0755);
    ASSERT_EQ(mount("proc", where, "proc", 0, nullptr), 0) << strerror(errno);
    for (const char* const preset : {"permissive", "default"}) {
        const Outcome outcome = sandboxed({"--quiet", "--preset", preset},
                                          {beside("sandbox_attacker"), "other-mount", where});
        EXPECT_TRUE(outcome.ok()) << outcome.text();
    }
    EXPECT_EQ(umount(where), 0);
    rmdir(where);
}

// Waits for a file's first line; empty if it does not come.
std::string wait_for_line(const std::string& path) {
    std::string line;
    for (int i = 0; i < 400 && !std::getline(std::ifstream(path), line); i++) {
        usleep(50000);
    }
    return line;
}

// A process that has the given id, until it is killed; -1 if that cannot be had. `start` is what it
// does.
pid_t process_with_id(pid_t wanted, void (*start)()) {
    for (int i = 0; i < 20; i++) {
        std::ofstream("/proc/sys/kernel/ns_last_pid") << wanted - 1 << std::flush;
        const pid_t pid = fork();
        if (pid == 0) {
            if (getpid() == wanted) {
                start();
            }
            pause();
        }
        if (pid == wanted) {
            return pid;
        }
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        usleep(20000);
    }
    return -1;
}

// The id of a process of the sandbox that was killed, when another process has got it.
// `comm`: the name that the process has when it has started, if that takes a while.
void reuse_id(void (*start)(), const std::string& comm = "") {
    const std::string dir = "/tmp/sandbox-reused-id";
    mkdir(dir.c_str(), 0777);
    unlink((dir + "/id").c_str());
    unlink((dir + "/go").c_str());
    // The shell waits there without a process that could take the id.
    ASSERT_EQ(mkfifo((dir + "/go").c_str(), 0666), 0);
    pid_t other = -1;
    std::thread helper([&] {
        const std::string id = wait_for_line(dir + "/id");
        other = id.empty() ? -1 : process_with_id(std::stoi(id), start);
        const std::string name = "/proc/" + std::to_string(other) + "/comm";
        for (int i = 0; i < 100 && !comm.empty() && wait_for_line(name) != comm; i++) {
            usleep(50000);
        }
        std::ofstream(dir + "/go") << "go\n";
    });
    const Outcome outcome =
        sandboxed({"--quiet", "--write", dir},
                  {"/bin/sh", "-c",
                   "cd " + dir +
                       "; sleep 1000 & kill -0 $! && kill -9 $!; wait $!; echo $! >new; mv new id;"
                       "read word <go; kill -0 $! || echo refused; kill -9 $!; exit 5"});
    helper.join();
    ASSERT_GT(other, 0) << outcome.text();
    EXPECT_EQ(outcome.status, 5) << outcome.text();
    EXPECT_EQ(outcome.out, "refused\n") << outcome.text();
    EXPECT_EQ(waitpid(other, nullptr, WNOHANG), 0) << "it was killed";
    kill(other, SIGKILL);
    waitpid(other, nullptr, 0);
}

TEST(Processes, AnIdIsOnlyGoodForItsProcess) {
    reuse_id([] {});
}

TEST(Processes, AnIdIsNotGoodForAnotherSandbox) {
    reuse_id(
        [] {
            const std::string sandbox = beside("dune-sandbox");
            execl(sandbox.c_str(), "dune-sandbox", "--quiet", "--", "/bin/sleep", "1000", nullptr);
        },
        "sleep");
}

// The test leads the group that it and the sandbox are in.
TEST(Processes, ASignalToTheGroupStaysInTheSandbox) {
    static volatile sig_atomic_t outside;
    struct sigaction old {};
    struct sigaction action {};
    action.sa_handler = [](int) { outside = 1; };
    setpgid(0, 0);
    ASSERT_EQ(getpgrp(), getpid());
    sigaction(SIGTERM, &action, &old);
    // It would not return while the sleeper has its output.
    const Outcome outcome = sandboxed({"--quiet"}, {"/bin/sh", "-c",
                                                    "sleep 1000 & trap 'echo got; exit 5' TERM;"
                                                    "kill -TERM 0; wait; sleep 1; exit 6"});
    sigaction(SIGTERM, &old, nullptr);
    EXPECT_EQ(outcome.status, 5) << outcome.text();
    EXPECT_EQ(outcome.out, "got\n") << outcome.text();
    EXPECT_EQ(outside, 0);
}

}  // namespace
}  // namespace dune::sandbox_test
