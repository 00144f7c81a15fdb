// SPDX-License-Identifier: MIT
//
// Random system calls with random arguments, from a fixed seed: `random SEED:COUNT`. Children make
// them, a few hundred each, since many end their process.

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

uint64_t state;

uint64_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 24;
}

uint64_t argument(const char* memory, const Target& target) {
    static const char* const kTexts[] = {"/etc/passwd",
                                         "/etc/shadow",
                                         "/tmp",
                                         "/tmp/random",
                                         "..",
                                         "/proc/self/mem",
                                         "/dev/mem",
                                         "",
                                         "/"};
    switch (next() % 12) {
        case 0:
            return 0;
        case 1:
            return next() % 16;
        case 2:
            return next() % 1100;  // descriptors, also the runtime's
        case 3:
            return reinterpret_cast<uint64_t>(memory) + next() % 8192;
        case 4:
            return target.at + next() % target.size;
        case 5:
            return reinterpret_cast<uint64_t>(kTexts[next() % std::size(kTexts)]);
        case 6:
            return ~0ull - next() % 64;
        case 7:
            return 1ull << next() % 64;
        case 8:
            return next();
        case 9:
            return next() << 40 | next();
        case 10:
            return 4096 << next() % 8;
        default:
            return static_cast<uint64_t>(getpid());
    }
}

// What would only wait, or end the test itself: a signal to the parent is refused, to itself is
// not.
bool is_left_out(uint64_t number) {
    switch (number) {
        case SYS_exit:
        case SYS_exit_group:
        case SYS_pause:
        case SYS_fork:
        case SYS_vfork:
        case SYS_clone:
        case SYS_clone3:
        case SYS_rt_sigsuspend:
        case SYS_rt_sigreturn:
            return true;
        default:
            return false;
    }
}

[[noreturn]] void make_calls(unsigned count, const Target& target) {
    auto* const memory = static_cast<char*>(
        mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (unsigned i = 0; i < count; i++) {
        const uint64_t number = next() % 8 == 0 ? next() % 2000 : next() % 472;
        if (is_left_out(number)) {
            continue;
        }
        alarm(1);  // what waits is ended
        syscall(static_cast<long>(number), argument(memory, target), argument(memory, target),
                argument(memory, target), argument(memory, target), argument(memory, target),
                argument(memory, target));
    }
    _exit(0);
}

}  // namespace

void attack_random(const char* text) {
    constexpr unsigned kEach = 250;
    char* rest = nullptr;
    const uint64_t seed = strtoull(text, &rest, 10);
    const unsigned count = *rest == ':' ? static_cast<unsigned>(atoi(rest + 1)) : 10000;
    const std::vector<Target>& targets = runtime_memory();
    for (unsigned done = 0; done < count; done += kEach) {
        state = seed * 1000003 + done;
        const pid_t pid = fork();
        if (pid == 0) {
            const rlimit small = {64 << 20, 64 << 20};
            setrlimit(RLIMIT_FSIZE, &small);
            setpgid(0, 0);
            make_calls(kEach, targets[next() % targets.size()]);
        }
        int status = 0;
        while (waitpid(pid, &status, 0) < 0) {
        }
    }
}

}  // namespace dune::sandbox_test
