// SPDX-License-Identifier: MIT

#include "verdict.h"

#include <gtest/gtest.h>

#include <csignal>

namespace {

using namespace dune::vmtest;

constexpr const char* kPassed = "[  PASSED  ] 1 test.\n";
constexpr const char* kSkipped = "[  PASSED  ] 0 tests.\n[  SKIPPED ] 1 test, listed below:\n";
constexpr const char* kNone = "[==========] 0 tests ran.\n[  PASSED  ] 0 tests.\n";

const TestCase kCase{"prog", "Suite.Case", std::chrono::seconds(60)};
const TestCase kPlain{"prog", "-", std::chrono::seconds(60)};

int status_of_exit(int code) {
    return code << 8;
}

ProcessResult ended(int wait_status, const char* output) {
    ProcessResult result;
    result.started = true;
    result.wait_status = wait_status;
    result.output = output;
    return result;
}

Outcome outcome(const TestCase& test, const ProcessResult& result) {
    return judge(test, result).outcome;
}

TEST(Verdict, GoogleTestPrograms) {
    EXPECT_EQ(outcome(kCase, ended(0, kPassed)), Outcome::kPass);
    EXPECT_EQ(outcome(kCase, ended(0, kSkipped)), Outcome::kSkip);
    EXPECT_EQ(outcome(kCase, ended(status_of_exit(1), "[  FAILED  ] 1 test")), Outcome::kFail);
    EXPECT_EQ(outcome(kCase, ended(SIGSEGV, kPassed)), Outcome::kFail);
}

TEST(Verdict, AFilterThatMatchesNothingIsNoPass) {
    EXPECT_EQ(outcome(kCase, ended(0, kNone)), Outcome::kFail);
    EXPECT_EQ(outcome(kCase, ended(0, "")), Outcome::kFail);
}

TEST(Verdict, PlainPrograms) {
    EXPECT_EQ(outcome(kPlain, ended(0, "")), Outcome::kPass);
    EXPECT_EQ(outcome(kPlain, ended(status_of_exit(77), "")), Outcome::kSkip);
    EXPECT_EQ(outcome(kPlain, ended(status_of_exit(2), "")), Outcome::kFail);
    EXPECT_EQ(outcome(kCase, ended(status_of_exit(77), "")), Outcome::kFail);
}

TEST(Verdict, TimeLimit) {
    ProcessResult result = ended(SIGKILL, kPassed);
    result.timed_out = true;
    result.left_behind = 1;
    const Verdict verdict = judge(kCase, result);
    EXPECT_EQ(verdict.outcome, Outcome::kFail);
    ASSERT_EQ(verdict.reasons.size(), 1U);
    EXPECT_EQ(verdict.reasons[0], "no end after 60 s of the machine's time");
}

TEST(Verdict, LeftoversFail) {
    ProcessResult result = ended(0, kPassed);
    result.left_behind = 1;
    EXPECT_EQ(outcome(kCase, result), Outcome::kFail);
}

TEST(Verdict, ModuleThatDoesNotUnload) {
    EXPECT_EQ(judge_cycle("").outcome, Outcome::kPass);
    EXPECT_EQ(judge_cycle("the module could not be unloaded: busy").outcome, Outcome::kFail);
}

TEST(Verdict, NotStarted) {
    EXPECT_EQ(outcome(kCase, ProcessResult{}), Outcome::kFail);
}

TEST(TestCaseList, Lines) {
    const auto test = parse_case("prog\tSuite.Case/0\t30");
    ASSERT_TRUE(test);
    EXPECT_EQ(test->program, "prog");
    EXPECT_EQ(test->name, "Suite.Case/0");
    EXPECT_EQ(test->limit, std::chrono::seconds(30));
    EXPECT_FALSE(test->is_plain());
    EXPECT_TRUE(parse_case("prog\t-\t1")->is_plain());
    EXPECT_TRUE(parse_case("module\tcycle\t60")->is_cycle());
    for (const char* bad : {"", "prog", "prog\tcase", "\tcase\t1", "prog\t\t1", "prog\tcase\t",
                            "prog\tcase\t0", "prog\tcase\t-1", "prog\tcase\t1x"}) {
        EXPECT_FALSE(parse_case(bad)) << bad;
    }
}

}  // namespace
