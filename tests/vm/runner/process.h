// SPDX-License-Identifier: MIT
//
// Runs one test program with a time limit, its output captured.

#ifndef DUNE_TESTS_VM_RUNNER_PROCESS_H
#define DUNE_TESTS_VM_RUNNER_PROCESS_H

#include <sys/types.h>

#include <array>
#include <chrono>
#include <functional>
#include <optional>
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

// What tests write to. Reading it does not block.
class OutputPipe {
  public:
    OutputPipe();
    OutputPipe(const OutputPipe&) = delete;
    OutputPipe& operator=(const OutputPipe&) = delete;
    ~OutputPipe();

    bool ok() const { return ends_[0] >= 0; }
    int from() const { return ends_[0]; }
    // In a new process: its stdout and stderr go there.
    void connect() const;
    // Here, only others write.
    void close_input();

  private:
    std::array<int, 2> ends_ = {-1, -1};
};

// What a test writes, until it ends or its time is up.
class Capture {
  public:
    using Clock = std::chrono::steady_clock;

    Capture(const OutputPipe& pipe, std::chrono::seconds limit)
        : pipe_(pipe), start_(Clock::now()), deadline_(start_ + limit) {}

    // Until `ended` can be read; false if the limit came first.
    bool follow(int ended);

    // Follows the process until it ends: `ended` can be read then, and `reap` tells its status, or
    // nothing if that is lost. Kills its descendants, but not `keep`, a child of ours.
    ProcessResult follow_process(pid_t pid, int ended,
                                 const std::function<std::optional<int>()>& reap, pid_t keep = -1);

    std::string text();

  private:
    const OutputPipe& pipe_;
    Clock::time_point start_;
    Clock::time_point deadline_;
    Transcript transcript_;
};

// In a new process: a session of its own and no input.
void become_test();

// Kills and reaps every descendant but `keep`, a child of ours. Returns how many there were, beside
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
