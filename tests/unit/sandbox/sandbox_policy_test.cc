// SPDX-License-Identifier: MIT

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "policy/policy.h"

namespace dune::sandbox {
namespace {

unsigned nr(std::string_view name) {
    return syscall_number(name).value();
}

TEST(NormalPath, IsText) {
    EXPECT_EQ(normal_path("/"), "/");
    EXPECT_EQ(normal_path(""), "/");
    EXPECT_EQ(normal_path("//a///b/"), "/a/b");
    EXPECT_EQ(normal_path("/a/./b/../c"), "/a/c");
    EXPECT_EQ(normal_path("/../../a"), "/a");
    EXPECT_EQ(normal_path("/a/.."), "/");
    EXPECT_EQ(normal_path("/a/..b"), "/a/..b");
}

TEST(NormalPath, Below) {
    EXPECT_TRUE(is_at_or_below("/usr/lib", "/usr"));
    EXPECT_TRUE(is_at_or_below("/usr", "/usr"));
    EXPECT_TRUE(is_at_or_below("/usr", "/"));
    EXPECT_FALSE(is_at_or_below("/usrlocal", "/usr"));
    EXPECT_FALSE(is_at_or_below("/us", "/usr"));
}

TEST(Presets, UnknownOne) {
    EXPECT_FALSE(Policy::preset("lenient", "/"));
}

TEST(Presets, ComputeSeesLibrariesOnly) {
    const Policy policy = *Policy::preset("compute", "/home/me");
    EXPECT_EQ(policy.access("/usr/lib/x86_64-linux-gnu/libc.so.6"), Access::Read);
    EXPECT_EQ(policy.access("/etc/passwd"), Access::Hidden);
    EXPECT_EQ(policy.access("/home/me/data"), Access::Hidden);
    EXPECT_EQ(policy.net(), Net::None);
    EXPECT_EQ(policy.call(nr("socket")).action, Action::Deny);
    EXPECT_EQ(policy.call(nr("read")).action, Action::Allow);
}

TEST(Presets, DefaultReadsAllButSecretsAndWritesHere) {
    const Policy policy = *Policy::preset("default", "/home/me");
    EXPECT_EQ(policy.access("/etc/passwd"), Access::Read);
    EXPECT_EQ(policy.access("/etc/shadow"), Access::Hidden);
    EXPECT_EQ(policy.access("/etc/shadow.d"), Access::Read);
    EXPECT_EQ(policy.access("/home/me/out"), Access::Write);
    EXPECT_EQ(policy.access("/home/you/out"), Access::Read);
    EXPECT_EQ(policy.access("/dev/null"), Access::Write);
    EXPECT_EQ(policy.access("/dev/ptmx"), Access::Write);
    EXPECT_EQ(policy.access("/dev/dune"), Access::Hidden);
    EXPECT_EQ(policy.access("/dev/sda"), Access::Hidden);
}

TEST(Presets, NoneAllowsWhatUndoesTheSandbox) {
    for (const char* name : {"compute", "default", "permissive"}) {
        const Policy policy = *Policy::preset(name, "/");
        EXPECT_EQ(policy.call(nr("ptrace")), (Verdict{Action::Deny, false, EPERM}));
        EXPECT_EQ(policy.call(nr("io_uring_setup")), (Verdict{Action::Deny, false, ENOSYS}));
        EXPECT_EQ(policy.access("/dev/mem"), Access::Hidden);
        EXPECT_EQ(policy.access("/proc/kcore"), Access::Hidden);
    }
}

TEST(Policy, NeverMeansNever) {
    Policy policy = *Policy::preset("permissive", "/");
    policy.set_class(Class::Admin, Action::Allow, 0);
    policy.set_call(nr("ptrace"), Action::Allow, 0);
    EXPECT_EQ(policy.call(nr("ptrace")).action, Action::Deny);
    EXPECT_EQ(policy.call(nr("mount")).action, Action::Deny);
    EXPECT_EQ(policy.call(nr("bpf")).action, Action::Deny);
}

TEST(Policy, ClassesAndCalls) {
    Policy policy = *Policy::preset("permissive", "/");
    policy.set_class(Class::Net, Action::Deny, EACCES);
    policy.set_call(nr("socketpair"), Action::Allow, 0);
    EXPECT_EQ(policy.call(nr("socket")), (Verdict{Action::Deny, false, EACCES}));
    EXPECT_EQ(policy.call(nr("socketpair")), Verdict{});
    EXPECT_EQ(policy.call(nr("read")), Verdict{});
}

class Frozen : public ::testing::Test {
  protected:
    void freeze(const Policy& policy) { ASSERT_TRUE(policy.freeze(*image)); }
    std::unique_ptr<PolicyImage> image = std::make_unique<PolicyImage>();
};

TEST_F(Frozen, NearestRuleDecides) {
    Policy policy = *Policy::preset("compute", "/");
    policy.set_path("/data", Access::Read);
    policy.set_path("/data/out/", Access::Write);
    policy.set_path("/data/out/private", Access::Hidden);
    freeze(policy);
    EXPECT_EQ(image->access("/data/in"), Access::Read);
    EXPECT_EQ(image->access("/data/out/x/y"), Access::Write);
    EXPECT_EQ(image->access("/data/out/private/key"), Access::Hidden);
    EXPECT_EQ(image->access("/data/outer"), Access::Read);
    EXPECT_EQ(image->access("/other"), Access::Hidden);
    EXPECT_TRUE(image->find("/data/out/x")->nested);
    EXPECT_FALSE(image->find("/data/in")->access == Access::Hidden);
    EXPECT_TRUE(image->strict_metadata);
    EXPECT_TRUE(image->leads_to_granted("/"));
    EXPECT_TRUE(image->leads_to_granted("/usr"));
    EXPECT_FALSE(image->leads_to_granted("/home"));
}

TEST_F(Frozen, KeepsCallsAndUnknownNumbers) {
    Policy policy = *Policy::preset("default", "/tmp/x");
    policy.set_call(nr("uname"), Action::Deny, EIO);
    policy.trace_call(nr("read"));
    freeze(policy);
    EXPECT_EQ(image->verdict(nr("uname")), (Verdict{Action::Deny, false, EIO}));
    EXPECT_TRUE(image->verdict(nr("read")).trace);
    EXPECT_EQ(image->verdict(400), (Verdict{Action::Deny, false, ENOSYS}));
    EXPECT_EQ(image->verdict(1u << 30), (Verdict{Action::Deny, false, ENOSYS}));
    EXPECT_FALSE(image->strict_metadata);
}

TEST_F(Frozen, TooManyRules) {
    Policy policy = *Policy::preset("compute", "/");
    for (size_t i = 0; i <= PolicyImage::kMaxRules; i++) {
        policy.set_path("/d" + std::to_string(i), Access::Read);
    }
    EXPECT_FALSE(policy.freeze(*image));

    Policy long_path = *Policy::preset("compute", "/");
    long_path.set_path("/" + std::string(PolicyImage::kTextSize, 'x'), Access::Read);
    EXPECT_FALSE(long_path.freeze(*image));
}

}  // namespace
}  // namespace dune::sandbox
