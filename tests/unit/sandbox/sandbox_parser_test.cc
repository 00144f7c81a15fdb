// SPDX-License-Identifier: MIT

#include "policy/parser.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace dune::sandbox {
namespace {

Policy parsed(std::string_view text) {
    auto result = parse_policy(text, "default", "/home/me");
    if (const auto* error = std::get_if<PolicyError>(&result)) {
        ADD_FAILURE() << error->line << ":" << error->column << ": " << error->message;
        return *Policy::preset("compute", "/");
    }
    return std::get<Policy>(std::move(result));
}

void expect_error(std::string_view text, unsigned line, unsigned column, std::string_view message) {
    const auto result = parse_policy(text, "default", "/");
    const auto* error = std::get_if<PolicyError>(&result);
    ASSERT_NE(error, nullptr) << text;
    EXPECT_EQ(error->line, line) << text;
    EXPECT_EQ(error->column, column) << text;
    EXPECT_EQ(error->message, message) << text;
}

const Verdict& call(const Policy& policy, std::string_view name) {
    return policy.call(syscall_number(name).value());
}

TEST(Parser, EmptyTextIsThePreset) {
    const Policy policy = parsed("\n   \n# only this\n");
    EXPECT_EQ(policy.access("/etc/passwd"), Access::Read);
    EXPECT_EQ(policy.access("/home/me"), Access::Write);
}

TEST(Parser, AllStatements) {
    const Policy policy = parsed(
        "preset compute   # start narrow\n"
        "allow @net uname\n"
        "deny kill   \r\n"
        "errno EACCES connect bind\n"
        "trace openat execve\n"
        "read /data \"/with blank/and \\\" quote\"\n"
        "write /out\n"
        "hide /data/key\n"
        "net loopback");
    EXPECT_EQ(call(policy, "socket").action, Action::Allow);
    EXPECT_EQ(call(policy, "kill"), (Verdict{Action::Deny, false, EPERM}));
    EXPECT_EQ(call(policy, "connect"), (Verdict{Action::Deny, false, EACCES}));
    EXPECT_TRUE(call(policy, "openat").trace);
    EXPECT_FALSE(call(policy, "read").trace);
    EXPECT_EQ(policy.access("/data/x"), Access::Read);
    EXPECT_EQ(policy.access("/with blank/and \" quote"), Access::Read);
    EXPECT_EQ(policy.access("/out/x"), Access::Write);
    EXPECT_EQ(policy.access("/data/key"), Access::Hidden);
    EXPECT_EQ(policy.net(), Net::Loopback);
}

TEST(Parser, LaterStatementsWin) {
    const Policy policy = parsed("deny @file\nallow read\nread /a\nwrite /a\n");
    EXPECT_EQ(call(policy, "write").action, Action::Deny);
    EXPECT_EQ(call(policy, "read").action, Action::Allow);
    EXPECT_EQ(policy.access("/a"), Access::Write);
}

TEST(Parser, TraceAll) {
    const Policy policy = parsed("trace @all");
    EXPECT_TRUE(call(policy, "read").trace);
    EXPECT_TRUE(call(policy, "ptrace").trace);
}

TEST(Parser, ErrorsHaveTheirPlace) {
    expect_error("allow raed", 1, 7, "no system call \"raed\"");
    expect_error("\n\n  permit read", 3, 3, "unknown statement \"permit\"");
    expect_error("allow", 1, 6, "a system call or @class must follow \"allow\"");
    expect_error("errno EFOO read", 1, 7, "no error \"EFOO\"");
    expect_error("errno ENOENT", 1, 13, "a system call or @class must follow \"ENOENT\"");
    expect_error("read data", 1, 6, "the path must begin with /");
    expect_error("read \"/data", 1, 6, "the closing \" is missing");
    expect_error("read \"/data\"x", 1, 13, "a blank must follow the closing \"");
    expect_error("net some", 1, 5, "\"some\" is not none, loopback or all");
    expect_error("net all none", 1, 9, "nothing may follow here");
    expect_error("deny @nets", 1, 6, "no class \"@nets\"");
    expect_error("allow ptrace", 1, 7, "ptrace cannot be allowed in a sandbox");
    expect_error("allow read\npreset default", 2, 1, "preset must be the first statement");
    expect_error("preset lax", 1, 8, "no preset \"lax\"; there are compute, default, permissive");
}

TEST(Parser, ErrnoNames) {
    EXPECT_EQ(errno_from_name("ENOENT"), ENOENT);
    EXPECT_EQ(errno_from_name("EHWPOISON"), EHWPOISON);
    EXPECT_EQ(errno_from_name("enoent"), std::nullopt);
}

// Any text gives a policy or an error with a place inside it, never a crash.
TEST(Parser, GarbageIsAnError) {
    uint32_t state = 12345;
    const std::string_view alphabet =
        "allow deny@netread/\"\\#\n\t \r\x01\xff"
        "EPERM";
    for (int round = 0; round < 2000; round++) {
        std::string text;
        for (int i = 0; i < 60; i++) {
            state = state * 1664525 + 1013904223;
            text += alphabet[(state >> 16) % alphabet.size()];
        }
        const auto result = parse_policy(text, "compute", "/");
        if (const auto* error = std::get_if<PolicyError>(&result)) {
            EXPECT_GE(error->line, 1u);
            EXPECT_GE(error->column, 1u);
            EXPECT_LE(error->column, text.size() + 1);
        }
    }
}

}  // namespace
}  // namespace dune::sandbox
