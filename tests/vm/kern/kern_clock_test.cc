// SPDX-License-Identifier: MIT
//
// What every number of bench/ takes for granted of the emulator: RDTSC counts the instructions of a
// CPU while the others are halted, one by one, through VM exits, and on each CPU alike.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "guest.h"
#include "support.h"

namespace {

// Behind a jump: the emulator keeps the time at the ends of straight code.
inline uint64_t ticks() {
    uint32_t low, high;
    asm volatile("jmp 1f\n1:\tlfence\n\trdtsc" : "=a"(low), "=d"(high)::"memory");
    return uint64_t{high} << 32 | low;
}

constexpr size_t kSamples = 201;

// The median and the 90th percentile of some runs: interrupts fall into a few of them.
struct Cost {
    uint64_t median, high;
};

template <class Op>
Cost cost_of(Op op) {
    std::array<uint64_t, kSamples> samples{};
    for (uint64_t& sample : samples) {
        const uint64_t begin = ticks();
        op();
        sample = ticks() - begin;
    }
    std::sort(samples.begin(), samples.end());
    return {samples[kSamples / 2], samples[kSamples * 9 / 10]};
}

struct Counted {
    Cost nothing, straight, exit, system_call;
};

Counted count_in_the_guest() {
    Counted counted{};
    guest::enter([&] {
        counted.nothing = cost_of([] {});
        counted.straight = cost_of([] { asm volatile(".rept 100\n\tnop\n\t.endr"); });
        counted.exit = cost_of([] {
            uint32_t a = 0, c = 0;
            asm volatile("cpuid" : "+a"(a), "+c"(c)::"rbx", "rdx");
        });
        counted.system_call = cost_of([] { guest::call(-1); });
    });
    return counted;
}

bool is_exact(const Counted& counted) {
    return counted.straight.median == counted.nothing.median + 100 &&
           counted.exit.high == counted.exit.median &&  // nearly all are alike
           counted.exit.median > counted.nothing.median + 50;
}

// Where another CPU is awake it takes part in the time, so that a count is a few off. Then all is
// counted anew, after some time in which it may fall asleep.
Counted count_while_others_sleep() {
    constexpr int kTries = 30;
    Counted counted = count_in_the_guest();
    for (int i = 1; i < kTries && !is_exact(counted); i++) {
        usleep(20'000);
        counted = count_in_the_guest();
    }
    return counted;
}

TEST(Clock, CountsInstructionsOnEachCpu) {
    // What scripts/machine tells the kernel of the emulator's clock.
    if (support::read_file("/proc/cmdline").find("tsc_early_khz=50000") == std::string::npos)
        GTEST_SKIP() << "this is hardware";
    std::optional<Counted> first;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
        SCOPED_TRACE(cpu);
        ASSERT_TRUE(support::pin_to(cpu));
        const Counted counted = count_while_others_sleep();
        EXPECT_EQ(counted.straight.median - counted.nothing.median, 100U);
        EXPECT_EQ(counted.exit.high, counted.exit.median) << "nearly all are alike";
        EXPECT_GT(counted.exit.median, counted.nothing.median + 50) << "it is an exit";
        if (!first)
            first = counted;
        EXPECT_EQ(counted.exit.median, first->exit.median);
        EXPECT_EQ(counted.system_call.median, first->system_call.median);
    }
}

}  // namespace
