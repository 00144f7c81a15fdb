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

using Clock = std::chrono::steady_clock;

[[noreturn]] void exec_child(const std::vector<std::string>& argv, int output) {
    setsid();
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
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

// Kills and reaps every descendant. Orphans become our children one level at a
// time, hence the loop. Returns how many there were, beside zombies.
int kill_descendants() {
    int killed = 0;
    for (auto pids = children_of_self(); !pids.empty(); pids = children_of_self()) {
        for (const pid_t pid : pids) {
            if (waitpid(pid, nullptr, WNOHANG) == 0) {
                kill(pid, SIGKILL);
                waitpid(pid, nullptr, 0);
                killed++;
            }
        }
    }
    return killed;
}

int remaining_ms(Clock::time_point deadline) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    return left.count() > 0 ? static_cast<int>(left.count()) + 1 : 0;
}

// Follows the child until it exits; false when the deadline came first.
bool follow(int pidfd, int output, Clock::time_point deadline, Transcript& transcript) {
    bool open = true;
    for (;;) {
        std::array<pollfd, 2> fds = {{{pidfd, POLLIN, 0}, {open ? output : -1, POLLIN, 0}}};
        const int n = poll(fds.data(), fds.size(), remaining_ms(deadline));
        if (n == 0) {
            return false;
        }
        if (n > 0 && fds[1].revents != 0) {
            open = drain_pipe(output, transcript);
        }
        if (n > 0 && fds[0].revents != 0) {
            return true;
        }
    }
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

ProcessResult run_captured(const std::vector<std::string>& argv, std::chrono::seconds limit) {
    ProcessResult result;
    std::array<int, 2> pipe_fds;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0) {
        result.output = "pipe: " + std::string(strerror(errno)) + "\n";
        return result;
    }
    const Clock::time_point start = Clock::now();
    const pid_t pid = fork();
    if (pid == 0) {
        exec_child(argv, pipe_fds[1]);
    }
    close(pipe_fds[1]);
    const int pidfd = pid < 0 ? -1 : static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) {
        result.output = "cannot start or follow a process: " + std::string(strerror(errno)) + "\n";
        close(pipe_fds[0]);
        kill_descendants();
        return result;
    }
    fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);

    Transcript transcript;
    result.started = true;
    result.timed_out = !follow(pidfd, pipe_fds[0], start + limit, transcript);
    if (result.timed_out) {
        kill(-pid, SIGKILL);
    }
    waitpid(pid, &result.wait_status, 0);
    result.elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
    result.left_behind = kill_descendants();
    drain_pipe(pipe_fds[0], transcript);
    close(pipe_fds[0]);
    close(pidfd);
    result.output = transcript.text();
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
