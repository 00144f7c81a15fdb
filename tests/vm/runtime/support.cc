// SPDX-License-Identifier: MIT
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

namespace dune::test {

bool Outcome::exited(int code) const {
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

bool Outcome::killed(int sig) const {
    return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

Outcome in_child(const std::function<int()>& body) {
    int pipe_fds[2];
    if (pipe(pipe_fds) != 0)
        abort();
    const bool guest = dune_in_guest();
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        if (guest && dune_enter() != 0)
            _exit(125);
        _exit(body());
    }
    close(pipe_fds[1]);
    Outcome outcome = {};
    char buffer[512];
    for (;;) {
        const ssize_t n = read(pipe_fds[0], buffer, sizeof(buffer));
        if (n > 0)
            outcome.stderr_.append(buffer, static_cast<std::size_t>(n));
        else if (n == 0 || errno != EINTR)
            break;
    }
    close(pipe_fds[0]);
    while (waitpid(pid, &outcome.status, 0) < 0 && errno == EINTR) {
    }
    return outcome;
}

Pages::Pages(std::size_t count, int prot, void* hint) : size_(count * PGSIZE) {
    const int fixed = hint != nullptr ? MAP_FIXED_NOREPLACE : 0;
    void* const va = mmap(hint, size_, prot, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
    if (va == MAP_FAILED)
        abort();
    base_ = static_cast<char*>(va);
}

Pages::~Pages() {
    munmap(base_, size_);
}

void write_on_new_stack(volatile char* address) {
    static std::uintptr_t gib = 0x234500000000;
    gib += std::uintptr_t{1} << 30;
    Pages stack(4, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(gib));
    asm volatile(
        "mov %%rsp, %%rbx\n\t"
        "mov %[top], %%rsp\n\t"
        "movb $7, (%[address])\n\t"
        "mov %%rbx, %%rsp"
        :
        : [top] "r"(stack.address(4)), [address] "r"(address)
        : "rbx", "memory");
}

}  // namespace dune::test
