// SPDX-License-Identifier: MIT

#include "sandboxed.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace dune::sandbox_test {

namespace {

// DUNE_SANDBOX names another sandbox, for the tests that run on the host.
std::string sandbox_program() {
    const char* const other = getenv("DUNE_SANDBOX");
    return other != nullptr ? other : beside("dune-sandbox");
}

[[noreturn]] void child(const std::vector<std::string>& argv, int in, int out, int err) {
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    for (int fd = 3; fd < 64; fd++) {
        close(fd);
    }
    std::vector<char*> args;
    args.reserve(argv.size() + 1);
    for (const std::string& arg : argv) {
        args.push_back(const_cast<char*>(arg.c_str()));
    }
    args.push_back(nullptr);
    execvp(args[0], args.data());
    _exit(127);
}

// Copies the list of a process' mappings, and closes what it was copied to.
void tell_mappings(pid_t pid, int to) {
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    const std::string text{std::istreambuf_iterator<char>(maps), {}};
    if (write(to, text.data(), text.size()) < 0) {
        perror("no word to the program");
    }
    close(to);
}

// Reads both pipes to their ends. `helper`, if it is not -1, is where an answer to kWhere goes.
void drain(std::array<int, 2> fds, std::array<std::string*, 2> texts, pid_t pid, int helper) {
    std::array<pollfd, 2> polls = {{{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}}};
    while (polls[0].fd >= 0 || polls[1].fd >= 0) {
        poll(polls.data(), polls.size(), -1);
        for (size_t i = 0; i < polls.size(); i++) {
            char room[4096];
            if (polls[i].fd < 0 || polls[i].revents == 0) {
                continue;
            }
            const ssize_t n = read(polls[i].fd, room, sizeof(room));
            if (n > 0) {
                texts[i]->append(room, static_cast<size_t>(n));
                if (helper >= 0 && texts[0]->find(kWhere) != std::string::npos) {
                    tell_mappings(pid, helper);
                    helper = -1;
                }
            } else {
                close(polls[i].fd);
                polls[i].fd = -1;
            }
        }
    }
    if (helper >= 0) {
        close(helper);
    }
}

// Starts argv[0] and waits for its end. `in` is its standard input, and is closed here.
Outcome run_with(const std::vector<std::string>& argv, int in, int helper) {
    Outcome outcome;
    int out[2];
    int err[2];
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
        return outcome;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        child(argv, in, out[1], err[1]);
    }
    close(in);
    close(out[1]);
    close(err[1]);
    drain({out[0], err[0]}, {&outcome.out, &outcome.err}, pid, helper);
    int status = 0;
    waitpid(pid, &status, 0);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return outcome;
}

std::vector<std::string> in_sandbox(const std::vector<std::string>& options,
                                    const std::vector<std::string>& command) {
    std::vector<std::string> argv = {sandbox_program()};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.emplace_back("--");
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
}

}  // namespace

std::string Outcome::text() const {
    return "status " + std::to_string(status) + ", signal " + std::to_string(signal) +
           "\n--- stdout\n" + out + "--- stderr\n" + err;
}

Outcome run(const std::vector<std::string>& argv) {
    return run_with(argv, open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
}

Outcome sandboxed(const std::vector<std::string>& options,
                  const std::vector<std::string>& command) {
    return run(in_sandbox(options, command));
}

Outcome sandboxed_with_helper(const std::vector<std::string>& options,
                              const std::vector<std::string>& command) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return {};
    }
    return run_with(in_sandbox(options, command), ends[0], ends[1]);
}

std::string beside(const std::string& name) {
    char room[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", room, sizeof(room));
    const std::string self(room, n > 0 ? static_cast<size_t>(n) : 0);
    return self.substr(0, self.rfind('/') + 1) + name;
}

}  // namespace dune::sandbox_test
