// SPDX-License-Identifier: MIT
//
// Runs one test program with a time limit, its output captured.

#ifndef DUNE_TESTS_VM_RUNNER_PROCESS_H
#define DUNE_TESTS_VM_RUNNER_PROCESS_H

#include <sys/types.h>

#include <array>
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

// What a test writes, until it ends or its time is up. The caller becomes the reaper of its
// descendants (PR_SET_CHILD_SUBREAPER).
class Capture {
  public:
    using Clock = std::chrono::steady_clock;

    explicit Capture(std::chrono::seconds limit);
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    ~Capture();

    bool ok() const { return pipe_[0] >= 0; }
    int input() const { return pipe_[1]; }  // the test's stdout and stderr
    void close_input();

    // Until `ended` can be read; false if the limit came first.
    bool follow(int ended);

    std::chrono::milliseconds elapsed() const;
    std::string text();

  private:
    std::array<int, 2> pipe_ = {-1, -1};
    Clock::time_point start_;
    Clock::time_point deadline_;
    Transcript transcript_;
};

// In a new process: a session of its own, no input, its output to `output`, which is closed.
void become_test(int output);

// Kills and reaps every descendant but `keep`, a child. Returns how many there were, beside
// zombies.
int kill_descendants(pid_t keep = -1);

// Runs argv (argv[0] is a path) in its own session with /dev/null as input, and
// kills it and all its descendants after `limit`. The caller becomes the reaper
// of its descendants and must have no other children.
ProcessResult run_captured(const std::vector<std::string>& argv, std::chrono::seconds limit);

// "exited with status 3" or "killed by signal 11 (Segmentation fault)".
std::string describe_wait_status(int wait_status);

}  // namespace dune::vmtest

#endif
