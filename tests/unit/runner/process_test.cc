// SPDX-License-Identifier: MIT

#include "process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>

namespace {

using dune::vmtest::describe_wait_status;
using dune::vmtest::ProcessResult;
using dune::vmtest::run_captured;
using dune::vmtest::Transcript;
using std::chrono::seconds;

ProcessResult run_shell(const std::string& script, seconds limit = seconds(30)) {
    return run_captured({"/bin/sh", "-c", script}, limit);
}

TEST(Process, CapturesBothStreamsAndStatus) {
    const ProcessResult result = run_shell("echo out; echo err >&2; exit 3");
    EXPECT_TRUE(result.started);
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(result.output, "out\nerr\n");
    EXPECT_EQ(describe_wait_status(result.wait_status), "exited with status 3");
    EXPECT_EQ(result.left_behind, 0);
}

TEST(Process, InputIsEmpty) {
    EXPECT_EQ(run_shell("cat; echo end").output, "end\n");
}

TEST(Process, ReportsTheSignal) {
    const ProcessResult result = run_shell("kill -SEGV $$");
    ASSERT_TRUE(WIFSIGNALED(result.wait_status));
    EXPECT_EQ(WTERMSIG(result.wait_status), SIGSEGV);
    EXPECT_NE(describe_wait_status(result.wait_status).find("signal 11"), std::string::npos);
}

TEST(Process, MissingProgram) {
    const ProcessResult result = run_captured({"/nonexistent/program"}, seconds(5));
    EXPECT_EQ(describe_wait_status(result.wait_status), "exited with status 127");
    EXPECT_NE(result.output.find("/nonexistent/program: No such file"), std::string::npos);
}

TEST(Process, TimeLimitKillsTheWholeFamily) {
    const ProcessResult result = run_shell("echo begun; setsid sleep 600 & sleep 600", seconds(1));
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(result.output, "begun\n");
    EXPECT_GE(result.left_behind, 1);
    EXPECT_LT(result.elapsed.count(), 20000);
}

TEST(Process, DescendantsThatOutliveTheProgramAreFound) {
    // The orphan holds the output open, which must not delay the result.
    const ProcessResult result = run_shell("(setsid sleep 600 &) ; echo done");
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(result.left_behind, 1);
    EXPECT_LT(result.elapsed.count(), 20000);
}

TEST(Process, FloodOfOutputIsBounded) {
    const ProcessResult result = run_shell("echo first; yes | head -c 1000000; echo last");
    EXPECT_LE(result.output.size(), Transcript::kHead + 2 * Transcript::kTail + 100);
    EXPECT_TRUE(result.output.starts_with("first\n"));
    EXPECT_TRUE(result.output.ends_with("last\n"));
    EXPECT_NE(result.output.find("bytes left out"), std::string::npos);
}

}  // namespace
