// SPDX-License-Identifier: MIT
//
// Hostile programs: none gets anything, and the sandbox outlives each.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sandboxed.h"

namespace dune::sandbox_test {
namespace {

std::string content_of(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

Outcome attack(const std::string& name, const std::string& argument = "",
               const std::string& preset = "permissive") {
    return sandboxed({"--quiet", "--preset", preset, "--hide", "/etc/shadow"},
                     {beside("sandbox_attacker"), name, argument});
}

class Attack : public ::testing::TestWithParam<const char*> {};

TEST_P(Attack, IsRefused) {
    const Outcome outcome = attack(GetParam());
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}

INSTANTIATE_TEST_SUITE_P(All, Attack,
                         ::testing::Values("memory", "pointers", "mappings", "descriptors",
                                           "instructions", "calls", "iovec-race", "signals",
                                           "robust-list"),
                         [](const auto& info) {
                             std::string name = info.param;
                             for (char& c : name) {
                                 c = c == '-' ? '_' : c;
                             }
                             return name;
                         });

// A file outside of what the program may see, with a witness of changes.
class Secret : public ::testing::Test {
  protected:
    void SetUp() override {
        std::ofstream(path_) << "the secret\n";
        ASSERT_EQ(stat(path_.c_str(), &before_), 0);
    }
    void TearDown() override {
        struct stat after {};
        ASSERT_EQ(stat(path_.c_str(), &after), 0) << "the file is gone";
        EXPECT_EQ(content_of(path_), "the secret\n");
        EXPECT_EQ(after.st_mode, before_.st_mode);
        EXPECT_EQ(after.st_nlink, 1u);
        unlink(path_.c_str());
    }
    std::string path_ = "/root/secret";
    struct stat before_ {};
};

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

// 100,000 calls against each preset; what the policy protects is as before, seen from outside.
class Random : public Secret, public ::testing::WithParamInterface<const char*> {};

TEST_P(Random, CallsDoNothingOutsideOfThePolicy) {
    const std::string passwd = content_of("/etc/passwd");
    const Outcome outcome =
        sandboxed({"--quiet", "--preset", GetParam(), "--read", "/etc", "--read", "/root", "--hide",
                   path_, "--read", "/proc", "--write", "/tmp"},
                  {beside("sandbox_attacker"), "random", "4711:100000"});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
    EXPECT_EQ(content_of("/etc/passwd"), passwd);
}

INSTANTIATE_TEST_SUITE_P(Presets, Random, ::testing::Values("compute", "default", "permissive"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace dune::sandbox_test
