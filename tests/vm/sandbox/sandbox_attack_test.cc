// SPDX-License-Identifier: MIT
//
// Hostile programs: none gets anything, and the sandbox outlives each.

#include <gtest/gtest.h>

#include <string>

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
                                           "signals", "robust-list"),
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

}  // namespace
}  // namespace dune::sandbox_test
