// SPDX-License-Identifier: MIT
//
// What the module counts, by ioctl and in debugfs.

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>

#include "guest.h"
#include "support.h"

namespace {

using guest::Machine;

TEST(Counters, Count) {
    char* fresh = guest::map(4096);
    const dune_stats before = Machine::get().stats();
    guest::enter([&] {
        *fresh = 1;
        for (int i = 0; i < 10; i++) {
            guest::call(SYS_getpid);
            guest::slow_call(SYS_getpid);
        }
        unsigned a = 0;
        asm volatile("cpuid" : "+a"(a) : : "ebx", "ecx", "edx");
    });
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(after.vcpus, 1U);
    EXPECT_EQ(after.exits[10] - before.exits[10], 1U) << "CPUID";
    EXPECT_EQ(after.exits[18] - before.exits[18], 21U) << "VMCALL";
    EXPECT_GT(after.exits[48], before.exits[48]) << "EPT violations";
    EXPECT_GT(after.ept_faults, before.ept_faults);
    EXPECT_GE(after.ept_bytes, 4 * 4096U);
    EXPECT_GE(after.slow_calls - before.slow_calls, 10U);
    if (Machine::get().has(DUNE_FEAT_FAST_SYSCALLS)) {
        EXPECT_EQ(after.fast_calls - before.fast_calls, 10U);
    }
    uint64_t sum = 0;
    for (const uint64_t exits : after.exits) {
        sum += exits;
    }
    EXPECT_EQ(after.entries, sum);
}

TEST(Counters, AStartWithOtherTablesFlushesTheTlb) {
    // MOV to CR3 would have. On the host nobody can: what changed in the tables since the guest was
    // here last is in no TLB then.
    guest::enter([] {});
    const dune_stats before = Machine::get().stats();
    for (int i = 0; i < 10; i++) {
        EXPECT_TRUE(guest::enter([] {}).left());
    }
    EXPECT_GE(Machine::get().stats().ept_flushes - before.ept_flushes, 10U);
    // A turn in host mode is no start.
    const dune_stats turns = Machine::get().stats();
    EXPECT_TRUE(guest::enter([] {
                    for (int i = 0; i < 10; i++) {
                        guest::slow_call(SYS_getpid);
                    }
                }).left());
    EXPECT_LE(Machine::get().stats().ept_flushes - turns.ept_flushes, 5U);
}

TEST(Counters, OutliveTheVcpu) {
    const dune_stats before = Machine::get().stats();
    std::thread([] { guest::enter([] { guest::slow_call(SYS_getpid); }); }).join();
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(after.vcpus, before.vcpus);
    EXPECT_EQ(after.slow_calls, before.slow_calls + 1);
}

std::string sh(const std::string& command) {
    FILE* file = popen(command.c_str(), "r");
    std::string text(4096, '\0');
    text.resize(fread(text.data(), 1, text.size(), file));
    pclose(file);
    return text;
}

constexpr const char* kMountDebugfs =
    "grep -q ' /sys/kernel/debug ' /proc/mounts || mount -t debugfs none /sys/kernel/debug; ";

TEST(Counters, InDebugfs) {
    guest::enter([] { guest::slow_call(SYS_getpid); });
    const dune_stats stats = Machine::get().stats();
    const std::string text = sh(std::string(kMountDebugfs) + "cat /sys/kernel/debug/dune/" +
                                std::to_string(getpid()) + "-*");
    EXPECT_NE(text.find("vcpus 1\n"), std::string::npos) << text;
    EXPECT_NE(text.find("\nslow_calls " + std::to_string(stats.slow_calls) + "\n"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("\nexit_18 " + std::to_string(stats.exits[18]) + "\n"), std::string::npos)
        << text;
}

TEST(Counters, NothingStaysInDebugfs) {
    const std::string command = std::string(kMountDebugfs) + "ls /sys/kernel/debug/dune | wc -l";
    const std::string before = sh(command);
    EXPECT_EQ(support::status_of([] { _exit(guest::enter([] {}).left() ? 0 : 1); }), 0);
    EXPECT_EQ(sh(command), before);
}

}  // namespace
