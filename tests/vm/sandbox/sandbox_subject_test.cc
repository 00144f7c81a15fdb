// SPDX-License-Identifier: MIT
//
// What programs do works in the sandbox as on plain Linux: each case is one of sandbox_subject's.

#include <gtest/gtest.h>

#include "sandboxed.h"

namespace dune::sandbox_test {
namespace {

class Subject : public ::testing::TestWithParam<const char*> {};

#ifdef ON_PLAIN_LINUX
TEST_P(Subject, WorksOnPlainLinux) {
    const Outcome outcome = run({beside("sandbox_subject"), GetParam()});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}
#else
TEST_P(Subject, WorksInTheSandbox) {
    const Outcome outcome = sandboxed({"--quiet"}, {beside("sandbox_subject"), GetParam()});
    EXPECT_TRUE(outcome.ok()) << outcome.text();
}
#endif

INSTANTIATE_TEST_SUITE_P(All, Subject,
                         ::testing::Values("auxv", "brk", "mappings", "jit", "mremap", "signals",
                                           "altstack", "segv", "restart", "longjmp", "vectors",
                                           "sigsuspend", "threads", "robust", "processes", "spawn",
                                           "fexecve", "descriptors", "files", "rseq", "proc",
                                           "start", "limits"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace dune::sandbox_test
