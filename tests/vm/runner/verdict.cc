// SPDX-License-Identifier: MIT

#include "verdict.h"

#include <sys/wait.h>

#include <charconv>

namespace dune::vmtest {

namespace {

constexpr int kPlainSkipStatus = 77;

bool exited_with(int wait_status, int code) {
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == code;
}

// GoogleTest exits with 0 too when its filter matched nothing, and prints
// "PASSED 0 tests" when a test was skipped: only its own words count.
bool says_passed(std::string_view output) {
    return output.find("[  PASSED  ] 1 test.") != std::string_view::npos;
}

bool says_skipped(std::string_view output) {
    return output.find("[  SKIPPED ] 1 test") != std::string_view::npos;
}

void judge_process(const TestCase& test, const ProcessResult& result, Verdict& verdict) {
    if (!result.started) {
        verdict.reasons.emplace_back("the test could not be started");
    } else if (result.timed_out) {
        verdict.reasons.push_back("no end after " + std::to_string(test.limit.count()) +
                                  " s of the machine's time");
    } else if (test.is_plain() && exited_with(result.wait_status, kPlainSkipStatus)) {
        verdict.outcome = Outcome::kSkip;
    } else if (!exited_with(result.wait_status, 0)) {
        verdict.reasons.push_back(describe_wait_status(result.wait_status));
    } else if (test.is_plain() || says_passed(result.output)) {
        verdict.outcome = Outcome::kPass;
    } else if (says_skipped(result.output)) {
        verdict.outcome = Outcome::kSkip;
    } else {
        verdict.reasons.emplace_back("the program has no test of this name");
    }
    if (result.left_behind > 0 && !result.timed_out) {
        verdict.reasons.push_back("left " + std::to_string(result.left_behind) +
                                  " process(es) behind");
    }
}

}  // namespace

std::optional<TestCase> parse_case(std::string_view line) {
    const size_t first = line.find('\t');
    const size_t second = first == line.npos ? line.npos : line.find('\t', first + 1);
    if (second == line.npos || first == 0 || second == first + 1) {
        return std::nullopt;
    }
    const std::string_view number = line.substr(second + 1);
    long seconds = 0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), seconds);
    if (error != std::errc() || end != number.data() + number.size() || seconds <= 0) {
        return std::nullopt;
    }
    return TestCase{std::string(line.substr(0, first)),
                    std::string(line.substr(first + 1, second - first - 1)),
                    std::chrono::seconds(seconds)};
}

const char* outcome_name(Outcome outcome) {
    switch (outcome) {
        case Outcome::kPass:
            return "pass";
        case Outcome::kSkip:
            return "skip";
        case Outcome::kFail:
            break;
    }
    return "fail";
}

Verdict judge(const TestCase& test, const ProcessResult& result) {
    Verdict verdict;
    judge_process(test, result, verdict);
    if (!verdict.reasons.empty()) {
        verdict.outcome = Outcome::kFail;
    }
    return verdict;
}

Verdict judge_cycle(const std::string& error) {
    Verdict verdict;
    if (error.empty()) {
        verdict.outcome = Outcome::kPass;
    } else {
        verdict.reasons.push_back(error);
    }
    return verdict;
}

}  // namespace dune::vmtest
