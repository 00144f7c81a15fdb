// SPDX-License-Identifier: MIT
//
// Suspend to RAM with guests on the CPUs.

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "guest.h"
#include "support.h"
#include "workers.h"

namespace {

using guest::End;

TEST(Suspend, ToRamWhileGuestsRun) {
    if (support::read_file("/sys/power/state").find("mem") == std::string::npos ||
        support::read_file("/sys/power/mem_sleep").find("[deep]") == std::string::npos) {
        GTEST_SKIP() << "no suspend to RAM";
    }
    // Without dune.ko, too.
    if (support::read_file("/proc/cpuinfo").find("i7-2600K") != std::string::npos) {
        GTEST_SKIP() << "the emulator's Sandy Bridge does not come back from S3";
    }
    Workers workers(2);
    std::atomic<bool> stop = false;
    std::atomic<uint64_t> spun = 0;
    End end;
    std::thread spinner([&] {
        end = guest::enter([&] {
            asm volatile("cli");
            while (!stop) {
                spun++;
            }
        });
    });
    while (spun == 0) {
        usleep(1000);
    }
    // Turns and no seconds: with two CPUs the emulator's clock leaps when it wakes up.
    const auto within_turns = [](auto&& done) {
        for (int turn = 0; turn < 1000 && !done(); turn++) {
            usleep(10'000);
        }
        return done();
    };
    for (int i = 0; i < 3; i++) {
        // The emulator wakes up by itself, at once.
        support::write_file("/sys/class/rtc/rtc0/wakealarm", "0");
        if (!support::write_file("/sys/class/rtc/rtc0/wakealarm", "+3")) {
            GTEST_SKIP() << "no clock that could wake it up";
        }
        ASSERT_TRUE(support::write_file("/sys/power/state", "mem")) << strerror(errno);
        const uint64_t before = workers.rounds();
        EXPECT_TRUE(within_turns([&] { return workers.rounds() - before >= 10; }))
            << "the guests go on";
    }
    support::write_file("/sys/class/rtc/rtc0/wakealarm", "0");
    workers.stop();
    // Linux takes the leap for time that who was running then has had, and lets the others go
    // first. So the spinner, which is in the guest since before the first suspend, is looked at
    // alone.
    const uint64_t spins = spun;
    EXPECT_TRUE(within_turns([&] { return spun > spins; }));
    stop = true;
    spinner.join();
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(workers.wrong(), 0U);
}

}  // namespace
