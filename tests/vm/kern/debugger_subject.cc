// SPDX-License-Identifier: MIT
//
// A process in the guest for strace and gdb to look at (kern_debugger_test):
//
//   kern_debugger_subject calls N   makes N fast and N slow getppid(), by VMCALL, and ends
//   kern_debugger_subject loop      the same until it is told to end, by the page that descriptor
//                                   3 shows (debugger_subject.h)
//
// Exits with 0 if every call returned what it should.

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "debugger_subject.h"
#include "guest.h"

namespace {

volatile Shared* shared;

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

// The timer as it is wished. From the guest, by VMCALL, or from a handler in host mode.
template <typename Call>
void set_timer(Call&& call) {
    const auto wanted = static_cast<long>(shared->timer_us);
    const itimerval timer = {{0, wanted}, {0, wanted}};
    call(SYS_setitimer, ITIMER_REAL, reinterpret_cast<long>(&timer), 0);
    shared->timer_set = static_cast<uint64_t>(wanted);
}

void on_alarm(int) {
    shared->alarms = shared->alarms + 1;
    guest::note_handler(true);
    // One that leaves the guest no time can be ended from here alone.
    if (shared->timer_set != shared->timer_us) {
        set_timer([](auto... args) { guest::host_call(args...); });
    }
}

int loop() {
    signal(SIGUSR1, SIG_IGN);
    signal(SIGALRM, on_alarm);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
    if (page == MAP_FAILED) {
        return 2;
    }
    shared = static_cast<Shared*>(page);
    const long parent = getppid();
    bool right = true;
    const guest::End end = guest::enter([&] {
        while (right && shared->end == 0) {
            right = calls_are_right(parent);
            shared->rounds = shared->rounds + 1;
            if (shared->timer_set != shared->timer_us) {
                set_timer([](auto... args) { guest::call(args...); });
            }
            // So that the debugger gets the CPU, and finds it in a call at times.
            if (shared->rounds % 16 == 0) {
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
