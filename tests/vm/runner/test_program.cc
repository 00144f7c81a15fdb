// SPDX-License-Identifier: MIT

#include "test_program.h"

#include <fcntl.h>
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

[[noreturn]] void exec_server(const std::string& path, int socket) {
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
    std::array<int, 2> sockets;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
        return false;
    }
    pid_ = fork();
    if (pid_ == 0) {
        exec_server(path, sockets[1]);
    }
    close(sockets[1]);
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

bool TestProgram::receive(int& value) {
    return recv(socket_, &value, sizeof value, 0) == sizeof value;
}

// The process that runs the case, or -1.
pid_t TestProgram::request(const std::string& name, int output) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
    iovec data = {const_cast<char*>(name.data()), name.size()};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* attached = CMSG_FIRSTHDR(&message);
    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(attached), &output, sizeof(int));
    pid_t pid = -1;
    const bool sent = name.size() < kMaxCaseName && sendmsg(socket_, &message, MSG_NOSIGNAL) > 0;
    return sent && receive(pid) ? pid : -1;
}

ProcessResult TestProgram::run(const std::string& path, const std::string& name,
                               std::chrono::seconds limit) {
    ProcessResult result;
    Capture capture(limit);
    if (!capture.ok() || !start(path)) {
        result.output = "cannot start " + path + ": " + strerror(errno) + "\n";
        return result;
    }
    const pid_t pid = request(name, capture.input());
    capture.close_input();
    if (pid < 0) {
        result.output = path + " ended, or could not make a process for the case\n";
        stop();
        return result;
    }
    result.started = true;
    result.timed_out = !capture.follow(socket_);
    if (result.timed_out) {
        kill(-pid, SIGKILL);
    }
    const bool alive = receive(result.wait_status);
    result.elapsed = capture.elapsed();
    result.left_behind = kill_descendants(pid_);
    result.output = capture.text();
    if (!alive) {
        // The case took the program with it, so what became of itself is not known.
        result.started = false;
        result.output += path + " ended during the case\n";
        stop();
    }
    return result;
}

}  // namespace dune::vmtest
