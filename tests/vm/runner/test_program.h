// SPDX-License-Identifier: MIT
//
// A GoogleTest program of tests/vm that runs its cases one after the other, each in a process of
// its own that is forked from it (case_server.h).

#ifndef DUNE_TESTS_VM_RUNNER_TEST_PROGRAM_H
#define DUNE_TESTS_VM_RUNNER_TEST_PROGRAM_H

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "process.h"

namespace dune::vmtest {

class TestProgram {
  public:
    TestProgram() = default;
    TestProgram(const TestProgram&) = delete;
    TestProgram& operator=(const TestProgram&) = delete;
    ~TestProgram() { stop(); }

    // As run_captured() does it. Starts the program at `path` unless it runs already, and ends
    // another one. The caller must have no other children.
    ProcessResult run(const std::string& path, const std::string& name, std::chrono::seconds limit);

    void stop();

  private:
    bool start(const std::string& path);
    std::optional<int> receive();

    std::string path_;
    std::optional<OutputPipe> pipe_;
    pid_t pid_ = -1;
    int socket_ = -1;
};

}  // namespace dune::vmtest

#endif
