// SPDX-License-Identifier: MIT
//
// Runs a command in dune-sandbox and tells what became of it.

#ifndef DUNE_TESTS_VM_SANDBOX_SANDBOXED_H
#define DUNE_TESTS_VM_SANDBOX_SANDBOXED_H

#include <string>
#include <vector>

namespace dune::sandbox_test {

struct Outcome {
    int status = -1;  // exit status, or -1
    int signal = 0;   // that it died of, or 0
    std::string out;  // what it and the sandbox wrote to standard output,
    std::string err;  // and to standard error

    bool ok() const { return status == 0; }
    // For messages of failed tests.
    std::string text() const;
};

// Runs argv[0], found in PATH, with /dev/null as input.
Outcome run(const std::vector<std::string>& argv);

// The same in the sandbox: `dune-sandbox options... -- command...`.
Outcome sandboxed(const std::vector<std::string>& options, const std::vector<std::string>& command);

// The same for a program with a helper outside, which tells it on its standard input where the
// runtime is: /proc/PID/maps, once it has written kWhere to its standard output.
inline constexpr char kWhere[] = "where?\n";
Outcome sandboxed_with_helper(const std::vector<std::string>& options,
                              const std::vector<std::string>& command);

// The path of a program that lies beside the test.
std::string beside(const std::string& name);

}  // namespace dune::sandbox_test

#endif
