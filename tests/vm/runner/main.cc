// SPDX-License-Identifier: MIT
//
// Runs test cases inside the machine, each in a process of its own, and reports
// each as soon as it is over, as lines on stdout that tests/vm/harness reads:
//
//   @vm begin PROGRAM CASE
//   @vm | a line of the test's output (not of a test that passed)
//   @vm k a line of the kernel's log
//   @vm end PROGRAM CASE pass|fail|skip MILLISECONDS
//   @vm done
//
// A machine that dies with a test loses that test's result alone.

#include <getopt.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "kernel_log.h"
#include "module.h"
#include "process.h"
#include "test_program.h"
#include "verdict.h"

namespace {

using namespace dune::vmtest;

constexpr const char* kMark = "dune-test: ";  // in the kernel's log

struct Options {
    std::string list;
    std::string programs;  // the folder that holds them
    std::string module;
    std::string module_args;
};

[[noreturn]] void usage() {
    std::fputs(
        "usage: dune-vm-runner --list FILE --programs DIR [--module FILE [--module-args ARGS]]\n",
        stderr);
    std::exit(2);
}

Options parse_options(int argc, char** argv) {
    static const option kOptions[] = {{"list", required_argument, nullptr, 'l'},
                                      {"programs", required_argument, nullptr, 'p'},
                                      {"module", required_argument, nullptr, 'm'},
                                      {"module-args", required_argument, nullptr, 'a'},
                                      {nullptr, 0, nullptr, 0}};
    Options options;
    for (int c; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
        switch (c) {
            case 'l':
                options.list = optarg;
                break;
            case 'p':
                options.programs = optarg;
                break;
            case 'm':
                options.module = optarg;
                break;
            case 'a':
                options.module_args = optarg;
                break;
            default:
                usage();
        }
    }
    if (optind != argc || options.list.empty() || options.programs.empty()) {
        usage();
    }
    return options;
}

std::vector<TestCase> read_list(const std::string& path) {
    std::vector<TestCase> tests;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        const auto test = parse_case(line);
        if (!test) {
            std::fprintf(stderr, "dune-vm-runner: bad line in %s: %s\n", path.c_str(),
                         line.c_str());
            std::exit(2);
        }
        tests.push_back(*test);
    }
    if (tests.empty()) {
        std::fprintf(stderr, "dune-vm-runner: no tests in %s\n", path.c_str());
        std::exit(2);
    }
    return tests;
}

// A log in flood is of no more use than its beginning.
constexpr size_t kMaxKernelLines = 500;

void print_quoted(const char* mark, const std::string& text) {
    for (size_t start = 0; start < text.size();) {
        const size_t end = std::min(text.find('\n', start), text.size());
        std::printf("@vm %s %s\n", mark, text.substr(start, end - start).c_str());
        start = end + 1;
    }
}

void print_kernel_log(const std::vector<std::string>& lines) {
    for (size_t i = 0; i < std::min(lines.size(), kMaxKernelLines); i++) {
        if (!lines[i].starts_with(kMark)) {
            print_quoted("k", lines[i]);
        }
    }
}

void print_failure(const Verdict& verdict, const std::string& output) {
    print_quoted("|", output);
    for (const std::string& reason : verdict.reasons) {
        print_quoted("|", "--- failed: " + reason);
    }
}

// All that runs tests, and what it has to remember.
struct Machine {
    KernelLog log;
    Module module;
    TestProgram program;
};

ProcessResult run_process(const TestCase& test, const Options& options, TestProgram& program) {
    const std::string path = options.programs + "/" + test.program;
    if (test.is_plain()) {
        program.stop();
        return run_captured({path}, test.limit);
    }
    return program.run(path, test.name, test.limit);
}

void run_case(const TestCase& test, const Options& options, Machine& machine) {
    const std::string id = test.program + " " + test.name;
    std::printf("@vm begin %s\n", id.c_str());
    std::fflush(stdout);
    machine.log.mark(kMark + ("begin " + id));

    const auto start = std::chrono::steady_clock::now();
    ProcessResult result;
    Verdict verdict;
    if (test.is_cycle()) {
        verdict = judge_cycle(machine.module.cycle());
    } else {
        result = run_process(test, options, machine.program);
        verdict = judge(test, result);
    }
    const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    if (verdict.outcome != Outcome::kPass) {
        print_failure(verdict, result.output);
    }
    print_kernel_log(machine.log.drain());
    std::printf("@vm end %s %s %lld\n", id.c_str(), outcome_name(verdict.outcome),
                static_cast<long long>(elapsed.count()));
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse_options(argc, argv);
    const std::vector<TestCase> tests = read_list(options.list);

    // Tests find the programs that they start beside themselves.
    const char* path = getenv("PATH");
    setenv("PATH", (options.programs + ":" + (path ? path : "/bin:/usr/bin")).c_str(), 1);
    if (chdir("/tmp") != 0) {
        std::perror("dune-vm-runner: /tmp");
    }

    Machine machine{{}, {options.module, options.module_args}, {}};
    if (!machine.log.ok()) {
        std::fputs("dune-vm-runner: no /dev/kmsg: the kernel's log is part of each result\n",
                   stderr);
        return 2;
    }
    for (const TestCase& test : tests) {
        run_case(test, options, machine);
    }
    std::puts("@vm done");
    return 0;
}
