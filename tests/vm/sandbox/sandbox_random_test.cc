// SPDX-License-Identifier: MIT
//
// Random system calls against each preset. They take a while, so not every row of the matrix has
// them.

#include "sandboxed.h"
#include "secret.h"

namespace dune::sandbox_test {
namespace {

// 100,000 calls against each preset; what the policy protects is as before, seen from outside.
class Random : public Secret, public ::testing::WithParamInterface<const char*> {};

TEST_P(Random, CallsDoNothingOutsideOfThePolicy) {
    const std::string passwd = content_of("/etc/passwd");
    const Outcome outcome =
        sandboxed_with_helper({"--quiet", "--preset", GetParam(), "--read", "/etc", "--read",
                               "/root", "--hide", path_, "--read", "/proc", "--write", "/tmp"},
                              {beside("sandbox_attacker"), "random", "4711:100000"});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
    EXPECT_EQ(content_of("/etc/passwd"), passwd);
}

INSTANTIATE_TEST_SUITE_P(Presets, Random, ::testing::Values("compute", "default", "permissive"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace dune::sandbox_test
