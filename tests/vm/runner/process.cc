// SPDX-License-Identifier: MIT

#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

namespace dune::vmtest {

namespace {

[[noreturn]] void exec_child(const std::vector<std::string>& argv, const OutputPipe& pipe) {
    become_test();
    pipe.connect();
    std::vector<char*> args;
    args.reserve(argv.size() + 1);
    for (const std::string& arg : argv) {
        args.push_back(const_cast<char*>(arg.c_str()));
    }
    args.push_back(nullptr);
    execv(args[0], args.data());
    dprintf(STDERR_FILENO, "%s: %s\n", args[0], strerror(errno));
    _exit(127);
}

// Moves what the pipe holds now to the transcript; false at its end.
bool drain_pipe(int fd, Transcript& transcript) {
    std::array<char, 4096> buffer;
    for (;;) {
        const ssize_t n = read(fd, buffer.data(), buffer.size());
        if (n > 0) {
            transcript.append({buffer.data(), static_cast<size_t>(n)});
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else {
            return n < 0;  // EAGAIN: open, but empty.
        }
    }
}

std::vector<pid_t> children_of_self() {
    std::vector<pid_t> pids;
    std::ifstream list("/proc/thread-self/children");
    for (pid_t pid; list >> pid;) {
        pids.push_back(pid);
    }
    return pids;
}

int remaining_ms(Capture::Clock::time_point deadline) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Capture::Clock::now());
    return left.count() > 0 ? static_cast<int>(left.count()) + 1 : 0;
}

}  // namespace

void Transcript::append(std::string_view text) {
    const size_t room = kHead - head_.size();
    head_.append(text.substr(0, room));
    if (text.size() > room) {
        tail_.append(text.substr(room));
    }
    if (tail_.size() > 2 * kTail) {
        const size_t excess = tail_.size() - kTail;
        tail_.erase(0, excess);
        dropped_ += excess;
    }
}

std::string Transcript::text() const {
    if (dropped_ == 0) {
        return head_ + tail_;
    }
    return head_ + "\n[... " + std::to_string(dropped_) + " bytes left out ...]\n" + tail_;
}

// Orphans become our children one level at a time, hence the loop.
int kill_descendants(pid_t keep) {
    int killed = 0;
    for (bool found = true; found;) {
        found = false;
        for (const pid_t pid : children_of_self()) {
            if (pid == keep) {
                continue;
            }
            found = true;
            if (waitpid(pid, nullptr, WNOHANG) == 0) {
                kill(pid, SIGKILL);
                waitpid(pid, nullptr, 0);
                killed++;
            }
        }
    }
    return killed;
}

void become_test() {
    setsid();
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    close(null);
}

OutputPipe::OutputPipe() {
    if (pipe2(ends_.data(), O_CLOEXEC) == 0) {
        fcntl(from(), F_SETFL, O_NONBLOCK);
    }
}

OutputPipe::~OutputPipe() {
    close_input();
    if (ok()) {
        close(from());
    }
}

void OutputPipe::connect() const {
    dup2(ends_[1], STDOUT_FILENO);
    dup2(ends_[1], STDERR_FILENO);
}

void OutputPipe::close_input() {
    if (ends_[1] >= 0) {
        close(ends_[1]);
    }
    ends_[1] = -1;
}

bool Capture::follow(int ended) {
    bool open = true;
    for (;;) {
        std::array<pollfd, 2> fds = {{{ended, POLLIN, 0}, {open ? pipe_.from() : -1, POLLIN, 0}}};
        const int n = poll(fds.data(), fds.size(), remaining_ms(deadline_));
        if (n == 0) {
            return false;
        }
        if (n > 0 && fds[1].revents != 0) {
            open = drain_pipe(pipe_.from(), transcript_);
        }
        if (n > 0 && fds[0].revents != 0) {
            return true;
        }
    }
}

ProcessResult Capture::follow_process(pid_t pid, int ended,
                                      const std::function<std::optional<int>()>& reap, pid_t keep) {
    ProcessResult result;
    result.timed_out = !follow(ended);
    if (result.timed_out) {
        kill(-pid, SIGKILL);
    }
    const std::optional<int> status = reap();
    result.started = status.has_value();
    result.wait_status = status.value_or(0);
    result.elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start_);
    result.left_behind = kill_descendants(keep);
    result.output = text();
    return result;
}

std::string Capture::text() {
    drain_pipe(pipe_.from(), transcript_);
    return transcript_.text();
}

ProcessResult run_captured(const std::vector<std::string>& argv, std::chrono::seconds limit) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    ProcessResult result;
    OutputPipe pipe;
    if (!pipe.ok()) {
        result.output = "pipe: " + std::string(strerror(errno)) + "\n";
        return result;
    }
    Capture capture(pipe, limit);
    const pid_t pid = fork();
    if (pid == 0) {
        exec_child(argv, pipe);
    }
    pipe.close_input();
    const int pidfd = pid < 0 ? -1 : static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) {
        result.output = "cannot start or follow a process: " + std::string(strerror(errno)) + "\n";
        kill_descendants();
        return result;
    }
    result = capture.follow_process(pid, pidfd, [&] {
        int status = 0;
        waitpid(pid, &status, 0);
        return std::optional(status);
    });
    close(pidfd);
    return result;
}

std::string describe_wait_status(int wait_status) {
    if (WIFSIGNALED(wait_status)) {
        const int signal = WTERMSIG(wait_status);
        return "killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
    }
    return "exited with status " + std::to_string(WEXITSTATUS(wait_status));
}

}  // namespace dune::vmtest
