// SPDX-License-Identifier: MIT

#include "test_program.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "case_server.h"

namespace dune::vmtest {

namespace {

[[noreturn]] void exec_server(const std::string& path, const OutputPipe& pipe, int socket) {
    pipe.connect();
    fcntl(socket, F_SETFD, 0);
    setenv(kCaseSocketVariable, std::to_string(socket).c_str(), 1);
    execl(path.c_str(), path.c_str(), "--gtest_color=no", nullptr);
    dprintf(STDERR_FILENO, "%s: %s\n", path.c_str(), strerror(errno));
    _exit(127);
}

}  // namespace

bool TestProgram::start(const std::string& path) {
    if (pid_ > 0 && path == path_) {
        return true;
    }
    stop();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    std::array<int, 2> sockets;
    if (!pipe_.emplace().ok() ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
        return false;
    }
    pid_ = fork();
    if (pid_ == 0) {
        exec_server(path, *pipe_, sockets[1]);
    }
    close(sockets[1]);
    pipe_->close_input();
    socket_ = sockets[0];
    path_ = path;
    return pid_ > 0;
}

void TestProgram::stop() {
    if (socket_ >= 0) {
        close(socket_);
    }
    if (pid_ > 0) {
        waitpid(pid_, nullptr, 0);
    }
    pid_ = socket_ = -1;
}

std::optional<int> TestProgram::receive() {
    int value;
    return recv(socket_, &value, sizeof value, 0) == sizeof value ? std::optional(value)
                                                                  : std::nullopt;
}

ProcessResult TestProgram::run(const std::string& path, const std::string& name,
                               std::chrono::seconds limit) {
    ProcessResult result;
    if (!start(path)) {
        result.output = "cannot start " + path + ": " + strerror(errno) + "\n";
        return result;
    }
    Capture capture(*pipe_, limit);
    const bool sent =
        name.size() < kMaxCaseName && send(socket_, name.data(), name.size(), MSG_NOSIGNAL) > 0;
    const pid_t pid = sent && capture.follow(socket_) ? receive().value_or(-1) : -1;
    if (pid > 0) {
        result = capture.follow_process(
            pid, socket_, [this] { return receive(); }, pid_);
    } else {
        result.output = capture.text();
    }
    if (!result.started) {
        // It made no process, or ended before that did: what became of the case is not known.
        result.output += path + " ended, or made no process for the case\n";
        kill_descendants();
        stop();
    }
    return result;
}

}  // namespace dune::vmtest
