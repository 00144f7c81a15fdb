// SPDX-License-Identifier: MIT
//
// Runs one test program with a time limit, its output captured.

#ifndef DUNE_TESTS_VM_RUNNER_PROCESS_H
#define DUNE_TESTS_VM_RUNNER_PROCESS_H

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace dune::vmtest {

// Output of any length, of which the beginning and the end are kept.
class Transcript {
  public:
    static constexpr size_t kHead = 16 * 1024;
    static constexpr size_t kTail = 48 * 1024;

    void append(std::string_view text);
    std::string text() const;

  private:
    std::string head_;
    std::string tail_;
    size_t dropped_ = 0;
};

struct ProcessResult {
    bool started = false;
    bool timed_out = false;
    int wait_status = 0;  // as of waitpid()
    int left_behind = 0;  // descendants that outlived the program and were killed
    std::string output;   // stdout and stderr
    std::chrono::milliseconds elapsed{0};
};

// Runs argv (argv[0] is a path) in its own session with /dev/null as input, and
// kills it and all its descendants after `limit`. The caller becomes the reaper
// of its descendants (PR_SET_CHILD_SUBREAPER) and must have no other children.
ProcessResult run_captured(const std::vector<std::string>& argv, std::chrono::seconds limit);

// "exited with status 3" or "killed by signal 11 (Segmentation fault)".
std::string describe_wait_status(int wait_status);

}  // namespace dune::vmtest

#endif
