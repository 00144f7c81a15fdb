// SPDX-License-Identifier: MIT
//
// A process in the guest for strace and gdb to look at (kern_debugger_test):
//
//   kern_debugger_subject calls N   makes N fast and N slow getppid(), by VMCALL, and ends
//   kern_debugger_subject loop      the same for ever; descriptor 3 is a page of two numbers:
//   rounds
//                                   that were made, and whether to end
//
// Exits with 0 if every call returned what it should.

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "guest.h"

namespace {

bool calls_are_right(long parent) {
    return guest::call(SYS_getppid) == parent && guest::slow_call(SYS_getppid) == parent;
}

int make_calls(int times) {
    const long parent = getppid();
    bool right = true;
    const guest::End end = guest::enter([&] {
        for (int i = 0; i < times; i++) {
            right = right && calls_are_right(parent);
        }
    });
    return end.left() && right ? 0 : 1;
}

int loop() {
    signal(SIGUSR1, SIG_IGN);
    auto* shared = static_cast<volatile uint64_t*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0));
    if (shared == MAP_FAILED) {
        return 2;
    }
    const long parent = getppid();
    bool right = true;
    const guest::End end = guest::enter([&] {
        while (right && shared[1] == 0) {
            right = calls_are_right(parent);
            shared[0] = shared[0] + 1;
            // So that the debugger gets the CPU, and finds it in a call at times.
            if (shared[0] % 16 == 0) {
                const timespec moment = {0, 2'000'000};
                guest::call(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
            }
        }
    });
    return end.left() && right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "calls") == 0) {
        return make_calls(std::atoi(argv[2]));
    }
    return argc == 2 && std::strcmp(argv[1], "loop") == 0 ? loop() : 2;
}
