// SPDX-License-Identifier: MIT

#include "test_program.h"

#include <gtest/gtest.h>
#include <linux/close_range.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <string>

#include "verdict.h"

namespace {

using dune::vmtest::Outcome;
using dune::vmtest::ProcessResult;
using dune::vmtest::TestCase;
using dune::vmtest::TestProgram;
using std::chrono::seconds;

constexpr const char* kCases = RUNNER_CASES;

class Program : public testing::Test {
  protected:
    ProcessResult run(const std::string& name, seconds limit = seconds(30)) {
        return program_.run(kCases, "Cases." + name, limit);
    }

    Outcome outcome(const std::string& name) {
        const TestCase test{"cases", "Cases." + name, seconds(30)};
        return judge(test, program_.run(kCases, test.name, test.limit)).outcome;
    }

    TestProgram program_;
};

TEST_F(Program, EachCaseIsAProcessOfItsOwn) {
    EXPECT_EQ(outcome("First"), Outcome::kPass);
    EXPECT_EQ(outcome("Second"), Outcome::kPass);
    EXPECT_EQ(outcome("First"), Outcome::kPass);
}

TEST_F(Program, CasesInheritNothingOfTheRunner) {
    // What the caller of this test left open is not the runner's.
    ASSERT_EQ(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC), 0);
    const ProcessResult result = run("IsAlone");
    EXPECT_EQ(result.wait_status, 0) << result.output;
}

TEST_F(Program, FailsSkipsAndUnknownNamesAreSeen) {
    EXPECT_EQ(outcome("Skips"), Outcome::kSkip);
    EXPECT_EQ(outcome("Unknown"), Outcome::kFail);
    const ProcessResult failed = run("Fails");
    EXPECT_NE(failed.wait_status, 0);
    EXPECT_NE(failed.output.find("on purpose"), std::string::npos) << failed.output;
    EXPECT_EQ(failed.output.find("Cases.First"), std::string::npos) << failed.output;
}

TEST_F(Program, ADeathIsOneCasesAlone) {
    const ProcessResult result = run("Dies");
    ASSERT_TRUE(WIFSIGNALED(result.wait_status));
    EXPECT_EQ(WTERMSIG(result.wait_status), SIGKILL);
    EXPECT_EQ(outcome("First"), Outcome::kPass);
}

TEST_F(Program, TimeLimit) {
    const ProcessResult result = run("Hangs", seconds(1));
    EXPECT_TRUE(result.timed_out);
    EXPECT_LT(result.elapsed.count(), 20000);
    EXPECT_EQ(outcome("First"), Outcome::kPass);
}

TEST_F(Program, WhatACaseLeavesIsKilledAndTheProgramIsNot) {
    EXPECT_EQ(run("LeavesAProcessBehind").left_behind, 1);
    EXPECT_EQ(run("First").left_behind, 0);
}

TEST_F(Program, IsStartedAgainWhenACaseEndsIt) {
    const ProcessResult result = run("TakesTheProgramWithIt");
    EXPECT_FALSE(result.started);
    EXPECT_NE(result.output.find("runner_cases ended"), std::string::npos) << result.output;
    EXPECT_EQ(outcome("First"), Outcome::kPass);
}

TEST_F(Program, OneThatIsMissing) {
    const ProcessResult result = program_.run("/nonexistent", "Cases.First", seconds(5));
    EXPECT_FALSE(result.started);
    EXPECT_NE(result.output.find("/nonexistent: No such file"), std::string::npos) << result.output;
    EXPECT_EQ(outcome("First"), Outcome::kPass);
}

TEST_F(Program, OneThatNeverAnswers) {
    const std::string script = testing::TempDir() + "never_answers";
    std::ofstream(script) << "#!/bin/sh\nsleep 600\n";
    ASSERT_EQ(chmod(script.c_str(), 0755), 0);
    EXPECT_FALSE(program_.run(script, "Cases.First", seconds(1)).started);
    unlink(script.c_str());
    EXPECT_EQ(run("First").left_behind, 0);
}

}  // namespace
