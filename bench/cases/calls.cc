// SPDX-License-Identifier: MIT
// System calls as programs make them, in host mode and in Dune mode.
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "cases.h"
#include "libdune/dune.h"

namespace bench {

void enter_dune(Measure& measure) {
    measure.count_exits([](int device, dune_stats* stats) {
        return static_cast<long>(ioctl(device, DUNE_GET_STATS, stats));
    });
    if (const int error = dune_init_and_enter(); error != 0)
        measure.fail("cannot enter Dune mode: error %d", -error);
}

namespace {

void getpid_syscall(Measure& measure) {
    measure.sample([](unsigned) { raw_syscall(SYS_getpid); });
}

void getpid_dune(Measure& measure) {
    enter_dune(measure);
    getpid_syscall(measure);
}

/** The call that is always done in host mode, however ordinary it is. */
void getpid_slow(Measure& measure) {
    enter_dune(measure);
    measure.sample([](unsigned) {
        long result;
        register long number asm("r11") = SYS_getpid;
        asm volatile("vmcall"
                     : "=a"(result), "+r"(number)
                     : "a"(static_cast<long>(DUNE_HC_SYSCALL))
                     : "rcx", "memory");
    });
}

void clock_vdso(Measure& measure) {
    measure.sample([](unsigned) {
        timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
    });
}

void clock_vdso_dune(Measure& measure) {
    enter_dune(measure);
    clock_vdso(measure);
}

// ---- many threads -------------------------------------------------------------------------------

constexpr unsigned kCallsEach = 1000;

struct Crowd {
    bool dune;
    unsigned wanted;
    std::atomic<unsigned> here{0};
    std::atomic<unsigned> round{0};
    std::atomic<unsigned> ready{0};
    std::atomic<bool> over{false};
};

/** Waits for the main thread's word, with a futex: the threads share a CPU. */
void wait_change(std::atomic<unsigned>& word, unsigned seen) {
    while (word.load() == seen)
        syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, seen, nullptr, nullptr, 0);
}

void* crowd_member(void* argument) {
    auto& crowd = *static_cast<Crowd*>(argument);
    if (crowd.dune && dune_enter() != 0)
        _exit(1);
    crowd.here.fetch_add(1);
    for (unsigned round = 0;; ++round) {
        wait_change(crowd.round, round);
        if (crowd.over)
            return nullptr;
        for (unsigned i = 0; i < kCallsEach; ++i)
            raw_syscall(SYS_getpid);
        if (crowd.ready.fetch_add(1) + 1 == crowd.wanted)
            syscall(SYS_futex, &crowd.ready, 1 /* FUTEX_WAKE */, 1, nullptr, nullptr, 0);
    }
}

void begin_round(Crowd& crowd) {
    crowd.ready = 0;
    crowd.round.fetch_add(1);
    syscall(SYS_futex, &crowd.round, 1 /* FUTEX_WAKE */, 1000, nullptr, nullptr, 0);
}

void getpid_crowd(Measure& measure, bool dune) {
    const auto threads = static_cast<unsigned>(measure.argument());
    Crowd crowd{.dune = dune, .wanted = threads};
    std::vector<pthread_t> members(threads);
    for (pthread_t& member : members)
        if (pthread_create(&member, nullptr, crowd_member, &crowd) != 0)
            measure.fail("cannot start %u threads", threads);
    while (crowd.here < threads)
        sched_yield();
    measure.divide_by(static_cast<double>(threads) * kCallsEach);
    measure.sample([&](unsigned) {
        begin_round(crowd);
        for (unsigned seen = crowd.ready; seen != threads; seen = crowd.ready)
            wait_change(crowd.ready, seen);
    });
    crowd.over = true;
    begin_round(crowd);
    for (const pthread_t member : members)
        pthread_join(member, nullptr);
}

void getpid_threads(Measure& measure) {
    getpid_crowd(measure, false);
}

void getpid_threads_dune(Measure& measure) {
    enter_dune(measure);
    getpid_crowd(measure, true);
}

}  // namespace

void add_call_cases(Cases& cases) {
    cases.insert(cases.end(),
                 {
                     {"getpid/linux/syscall", Needs::Linux, 1000, 0, getpid_syscall},
                     {"getpid/dune/syscall", Needs::Dune, 1000, 0, getpid_dune},
                     {"getpid/dune/vmcall_slow", Needs::Dune, 1000, 0, getpid_slow},
                     {"clock_gettime/linux/vdso", Needs::Linux, 1000, 0, clock_vdso},
                     {"clock_gettime/dune/vdso", Needs::Dune, 1000, 0, clock_vdso_dune},
                 });
    for (const long threads : {1, 2, 4, 8, 16, 32, 64}) {
        const std::string count = std::to_string(threads);
        cases.push_back(
            {"getpid_threads/linux/" + count, Needs::Linux, 9, threads, getpid_threads});
        cases.push_back(
            {"getpid_threads/dune/" + count, Needs::Dune, 9, threads, getpid_threads_dune});
    }
}

}  // namespace bench
