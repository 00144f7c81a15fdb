// SPDX-License-Identifier: MIT
//
// main() of the GoogleTest programs of tests/vm: GoogleTest's own, or, where dune-vm-runner says
// so, a server of cases (case_server.h).

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "case_server.h"
#include "process.h"

namespace {

using namespace dune::vmtest;

struct Request {
    std::string name;  // empty: there are no more
    int output = -1;
};

Request receive(int socket) {
    std::array<char, kMaxCaseName> name;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
    iovec data = {name.data(), name.size()};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    Request request;
    const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    const cmsghdr* attached = CMSG_FIRSTHDR(&message);
    if (n > 0 && attached != nullptr && attached->cmsg_type == SCM_RIGHTS) {
        request.name.assign(name.data(), static_cast<size_t>(n));
        std::memcpy(&request.output, CMSG_DATA(attached), sizeof(int));
    }
    return request;
}

void answer(int socket, int value) {
    if (send(socket, &value, sizeof value, MSG_NOSIGNAL) != sizeof value) {
        _exit(1);  // the runner is gone
    }
}

[[noreturn]] void run_case(const Request& request) {
    become_test(request.output);
    GTEST_FLAG_SET(filter, request.name);
    std::exit(RUN_ALL_TESTS());
}

int serve(int socket) {
    for (;;) {
        const Request request = receive(socket);
        if (request.name.empty()) {
            return 0;
        }
        const pid_t pid = fork();
        if (pid == 0) {
            close(socket);
            run_case(request);
        }
        close(request.output);
        answer(socket, pid);
        int status = 0;
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        answer(socket, status);
    }
}

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    const char* socket = getenv(kCaseSocketVariable);
    if (socket == nullptr) {
        return RUN_ALL_TESTS();
    }
    const int fd = std::atoi(socket);
    unsetenv(kCaseSocketVariable);
    return serve(fd);
}
