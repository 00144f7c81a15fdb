// SPDX-License-Identifier: MIT
//
// dune-ticks COMMAND [ARGUMENT]...: runs a command and says on stderr how many ticks of the
// time-stamp counter passed. On the one-CPU emulated machine a tick is an instruction, of the whole
// machine.

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

int main(int argc, char** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: dune-ticks COMMAND [ARGUMENT]...\n");
        return 2;
    }
    pid_t pid;
    int status;
    const unsigned long long start = __rdtsc();
    if (const int error = posix_spawnp(&pid, argv[1], nullptr, nullptr, argv + 1, environ)) {
        fprintf(stderr, "dune-ticks: %s: %s\n", argv[1], strerror(error));
        return 127;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    fprintf(stderr, "ticks: %llu\n", __rdtsc() - start);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
