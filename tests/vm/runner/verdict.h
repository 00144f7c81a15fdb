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
// result (77: skipped). The program "module" with the case "cycle" is none: the
// module is unloaded and loaded, which tells what the tests before left in it.
struct TestCase {
    std::string program;
    std::string name;
    std::chrono::seconds limit{0};

    bool is_plain() const { return name == "-"; }
    bool is_cycle() const { return program == "module" && name == "cycle"; }
};

std::optional<TestCase> parse_case(std::string_view line);

enum class Outcome { kPass, kFail, kSkip };

const char* outcome_name(Outcome outcome);

struct Verdict {
    Outcome outcome = Outcome::kFail;
    std::vector<std::string> reasons;  // of a failure, one line each
};

// What the program did; the kernel's log is judged on the host.
Verdict judge(const TestCase& test, const ProcessResult& result);

// `error` is what Module::cycle() returned.
Verdict judge_cycle(const std::string& error);

}  // namespace dune::vmtest

#endif
