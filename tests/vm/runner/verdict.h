// SPDX-License-Identifier: MIT
//
// From what a test program did to pass, fail or skip.

#ifndef DUNE_TESTS_VM_RUNNER_VERDICT_H
#define DUNE_TESTS_VM_RUNNER_VERDICT_H

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "process.h"

namespace dune::vmtest {

// One line of the list of cases: "program<TAB>case<TAB>seconds". The case "-"
// means that the program is no GoogleTest program: its exit status is the
// result (77: skipped).
struct TestCase {
    std::string program;
    std::string name;
    std::chrono::seconds limit{0};

    bool is_plain() const { return name == "-"; }
};

std::optional<TestCase> parse_case(std::string_view line);

enum class Outcome { kPass, kFail, kSkip };

const char* outcome_name(Outcome outcome);

struct Verdict {
    Outcome outcome = Outcome::kFail;
    std::vector<std::string> reasons;  // of a failure, one line each
};

// `module_error` says why the module could not be unloaded or loaded after the
// test; empty if it could. The kernel's log is judged on the host.
Verdict judge(const TestCase& test, const ProcessResult& result, const std::string& module_error);

}  // namespace dune::vmtest

#endif
