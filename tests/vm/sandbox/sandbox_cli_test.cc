// SPDX-License-Identifier: MIT
//
// dune-sandbox as a person meets it: exit statuses, messages, policies.

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "sandboxed.h"

namespace dune::sandbox_test {
namespace {

void write_file(const std::string& path, const std::string& text, mode_t mode = 0644) {
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(Status, IsTheProgramsOwn) {
    EXPECT_EQ(sandboxed({}, {"/bin/sh", "-c", "exit 0"}).status, 0);
    EXPECT_EQ(sandboxed({}, {"sh", "-c", "exit 7"}).status, 7);
    EXPECT_EQ(sandboxed({}, {"sh", "-c", "kill -TERM $$"}).signal, SIGTERM);
    EXPECT_EQ(sandboxed({"--stats"}, {"sh", "-c", "kill -KILL $$"}).signal, SIGKILL);
    EXPECT_EQ(sandboxed({"--stats"}, {"sh", "-c", "exit 9"}).status, 9);
}

TEST(Status, NotFoundAndNotExecutable) {
    write_file("/tmp/plain", "text\n", 0644);
    write_file("/tmp/noise", "\x01\x02", 0755);
    write_file("/tmp/lost", "#!/no/such/interpreter\n", 0755);
    const Outcome missing = sandboxed({}, {"no-such-program"});
    EXPECT_EQ(missing.status, 127);
    EXPECT_TRUE(has(missing.err, "dune-sandbox: no-such-program: not found")) << missing.text();
    EXPECT_EQ(sandboxed({}, {"/tmp/lost"}).status, 127);
    EXPECT_EQ(sandboxed({}, {"/tmp/plain"}).status, 126);
    EXPECT_EQ(sandboxed({}, {"/tmp/noise"}).status, 126);
    EXPECT_EQ(sandboxed({}, {"/tmp"}).status, 126);
    // ELF headers of a 32-bit program, and of one for AArch64.
    std::string elf(
        "\x7f"
        "ELF\x01\x01\x01",
        7);
    elf.resize(64);
    elf[16] = 2;
    elf[18] = 3;
    write_file("/tmp/elf32", elf, 0755);
    const Outcome narrow = sandboxed({}, {"/tmp/elf32"});
    EXPECT_EQ(narrow.status, 126);
    EXPECT_TRUE(has(narrow.err, "32-bit")) << narrow.text();
    elf[4] = 2;
    elf[18] = static_cast<char>(183);
    write_file("/tmp/elfarm", elf, 0755);
    EXPECT_TRUE(has(sandboxed({}, {"/tmp/elfarm"}).err, "another processor"));
}

TEST(Options, Mistakes) {
    EXPECT_EQ(sandboxed({"--no-such-option"}, {"true"}).status, 125);
    EXPECT_EQ(sandboxed({"--preset", "lax"}, {"true"}).status, 125);
    EXPECT_EQ(sandboxed({"--net", "some"}, {"true"}).status, 125);
    EXPECT_EQ(sandboxed({"--policy", "/no/such/file"}, {"true"}).status, 125);
    const Outcome help = run({beside("dune-sandbox"), "--help"});
    EXPECT_TRUE(help.ok() && has(help.out, "Usage: dune-sandbox")) << help.text();
}

TEST(PolicyFile, ErrorsHaveLineAndColumn) {
    write_file("/tmp/policy", "preset default\nallow raed\n");
    const Outcome outcome = sandboxed({"--policy", "/tmp/policy"}, {"true"});
    EXPECT_EQ(outcome.status, 125);
    EXPECT_EQ(outcome.err, "dune-sandbox: /tmp/policy:2:7: no system call \"raed\"\n");
}

TEST(PolicyFile, CallsAreDeniedWithTheErrorAsked) {
    write_file("/tmp/policy", "errno ENOENT uname\ndeny getuid\n");
    const Outcome outcome = sandboxed({"--policy", "/tmp/policy"}, {"uname"});
    EXPECT_TRUE(has(outcome.err, "denied: uname: by the policy (ENOENT)")) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "denied: getuid: by the policy (EPERM)")) << outcome.text();
    EXPECT_FALSE(has(outcome.out, "Linux")) << outcome.text();
}

TEST(Files, ReadWriteHide) {
    mkdir("/tmp/in", 0755);
    mkdir("/tmp/out", 0755);
    write_file("/tmp/in/file", "inside\n");
    const std::vector<std::string> options = {"--preset", "compute",  "--read", "/bin",
                                              "--read",   "/usr/bin", "--read", "/tmp/in",
                                              "--write",  "/tmp/out"};
    EXPECT_EQ(sandboxed(options, {"cat", "/tmp/in/file"}).out, "inside\n");
    EXPECT_NE(sandboxed(options, {"cat", "/etc/passwd"}).status, 0);
    EXPECT_NE(sandboxed(options, {"sh", "-c", "echo x >/tmp/in/new"}).status, 0);
    EXPECT_EQ(sandboxed(options, {"sh", "-c", "echo x >/tmp/out/new"}).status, 0);
    EXPECT_EQ(sandboxed(options, {"sh", "-c", "cat /tmp/out/../out/new"}).out, "x\n");
    const Outcome shadow = sandboxed({}, {"cat", "/etc/shadow"});
    EXPECT_NE(shadow.status, 0);
    EXPECT_TRUE(has(shadow.err, "denied: openat \"/etc/shadow\"") ||
                has(shadow.err, "denied: open \"/etc/shadow\""))
        << shadow.text();
}

// Of root's capabilities none is left that is about the machine, nor comes back with another
// program.
TEST(Root, HasNoPowerOverTheMachine) {
    const std::vector<std::string> ask = {"sh", "-c", "exec grep CapEff: /proc/self/status"};
    const std::vector<std::string> permissive = {"--quiet", "--preset", "permissive"};
    const auto effective = [](const Outcome& outcome) {
        const auto at = outcome.out.find("CapEff:");
        EXPECT_NE(at, std::string::npos) << outcome.text();
        return std::strtoull(outcome.out.c_str() + at + strlen("CapEff:"), nullptr, 16);
    };
    constexpr uint64_t kMachine =
        1ull << CAP_SYS_ADMIN | 1ull << CAP_NET_ADMIN | 1ull << CAP_MKNOD | 1ull << CAP_SYS_RAWIO |
        1ull << CAP_SYS_MODULE | 1ull << CAP_SYS_PTRACE | 1ull << CAP_SYS_BOOT | 1ull << CAP_BPF |
        1ull << CAP_SETPCAP | 1ull << CAP_SETFCAP;
    EXPECT_EQ(effective(run(ask)) & kMachine, kMachine);
    EXPECT_EQ(effective(sandboxed(permissive, ask)) & kMachine, 0u);
    EXPECT_NE(effective(sandboxed(permissive, ask)) & 1ull << CAP_CHOWN, 0u);
    EXPECT_NE(sandboxed(permissive, {"mknod", "/tmp/node", "c", "1", "3"}).status, 0);
    EXPECT_NE(access("/tmp/node", F_OK), 0);
    EXPECT_EQ(sandboxed(permissive, {"sh", "-c", "echo >/tmp/own && chown 1000 /tmp/own"}).status,
              0);
}

TEST(Log, TraceNamesCallsAndResults) {
    const Outcome outcome = sandboxed({"--trace"}, {"sh", "-c", "exit 3"});
    EXPECT_EQ(outcome.status, 3);
    EXPECT_TRUE(has(outcome.err, "arch_prctl(")) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "exit_group(3)")) << outcome.text();
}

TEST(Log, StatsCount) {
    const Outcome outcome = sandboxed({"--stats"}, {"sh", "-c", "/bin/true; exit 0"});
    EXPECT_TRUE(has(outcome.err, "system calls: ")) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "processes: 2")) << outcome.text();
    unlink("/tmp/log");
    EXPECT_EQ(sandboxed({"--log", "/tmp/log", "--trace"}, {"true"}).err, "");
    EXPECT_EQ(access("/tmp/log", R_OK), 0);
}

TEST(Scripts, RunTheirInterpreters) {
    write_file("/tmp/script", "#!/bin/sh\necho script $0 $1\n", 0755);
    write_file("/tmp/nested", "#!/tmp/script inner\n", 0755);
    EXPECT_EQ(sandboxed({}, {"/tmp/script", "one"}).out, "script /tmp/script one\n");
    EXPECT_EQ(sandboxed({}, {"/tmp/nested", "two"}).out, "script /tmp/script inner\n");
    EXPECT_EQ(sandboxed({}, {"sh", "-c", "/tmp/script three"}).out, "script /tmp/script three\n");
}

}  // namespace
}  // namespace dune::sandbox_test
