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
#include <string>

#include "case_server.h"
#include "process.h"

namespace {

using namespace dune::vmtest;

// The name of a case, empty if there are no more.
std::string receive(int socket) {
    std::array<char, kMaxCaseName> name;
    const ssize_t n = recv(socket, name.data(), name.size(), 0);
    return {name.data(), static_cast<size_t>(n > 0 ? n : 0)};
}

void answer(int socket, int value) {
    if (send(socket, &value, sizeof value, MSG_NOSIGNAL) != sizeof value) {
        _exit(1);  // the runner is gone
    }
}

[[noreturn]] void run_case(const std::string& name) {
    become_test();
    GTEST_FLAG_SET(filter, name);
    std::exit(RUN_ALL_TESTS());
}

int serve(int socket) {
    for (std::string name = receive(socket); !name.empty(); name = receive(socket)) {
        const pid_t pid = fork();
        if (pid == 0) {
            close(socket);
            run_case(name);
        }
        answer(socket, pid);
        int status = 0;
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        answer(socket, status);
    }
    return 0;
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
