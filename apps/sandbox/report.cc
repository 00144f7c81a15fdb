// SPDX-License-Identifier: MIT

#include "report.h"

#include <errno.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <vector>

#include "monitor/state.h"

namespace dune::sandbox {

namespace {

constexpr size_t kMostCalls = 12;
volatile pid_t child_pid;

void forward(int signal) {
    kill(child_pid, signal);
}

uint64_t value(const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
}

void print_report() {
    const Stats& stats = *process.stats;
    std::vector<unsigned> calls;
    for (unsigned number = 0; number < kSyscallCount; number++) {
        if (value(stats.by_call[number]) != 0) {
            calls.push_back(number);
        }
    }
    std::sort(calls.begin(), calls.end(), [&stats](unsigned a, unsigned b) {
        return value(stats.by_call[a]) > value(stats.by_call[b]);
    });
    std::string text = fmt::format(
        "dune-sandbox: system calls: {}, denied: {}, VM exits: {}, processes: {}, threads: {}, "
        "signals handled: {}\n",
        value(stats.calls), value(stats.denied), value(stats.vm_exits), value(stats.processes),
        value(stats.threads), value(stats.signals));
    for (size_t i = 0; i < std::min(calls.size(), kMostCalls); i++) {
        const unsigned number = calls[i];
        text += fmt::format("{:>10} {}", value(stats.by_call[number]), syscall_info(number)->name);
        const uint64_t denied = value(stats.denied_by_call[number]);
        text += denied != 0 ? fmt::format(" ({} denied)\n", denied) : "\n";
    }
    if (write(reserved_fd(kLogFd), text.data(), text.size()) < 0) {
        return;  // nobody reads it any more
    }
}

}  // namespace

int follow_child() {
    const pid_t pid = fork();
    if (pid <= 0) {
        return -1;  // without a parent there is only no report
    }
    child_pid = pid;
    // The terminal sends these to both; the program decides. Others are for the program alone.
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    for (const int sig : {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
        signal(sig, forward);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    print_report();
    if (WIFSIGNALED(status)) {
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);  // the program has dumped its own
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

}  // namespace dune::sandbox
