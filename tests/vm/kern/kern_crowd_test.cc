// SPDX-License-Identifier: MIT
//
// A thousand threads in a hundred processes, all in the guest at once, in a machine with 1 GiB; and
// how much kernel memory each costs beyond what a plain thread does.

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "guest.h"
#include "support.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;
using support::arg;

constexpr int kProcesses = 100;
constexpr int kThreads = 10;  // of each
constexpr int64_t kMostBytes = 40 << 10;

// Bytes that the CPUs keep to themselves for the next allocation: free, but not in MemFree.
int64_t free_in_cpus() {
    std::ifstream zones("/proc/zoneinfo");
    std::string word;
    int64_t pages = 0, count = 0;
    while (zones >> word) {
        if (word == "count:" && zones >> count) {
            pages += count;
        }
    }
    return pages << 12;
}

// Memory that is neither free nor user space's: slabs, stacks, tables, and pages that drivers have.
int64_t kernel_bytes() {
    const auto kib = [](const char* name) {
        return static_cast<int64_t>(support::number_in("/proc/meminfo", name));
    };
    return ((kib("MemTotal") - kib("MemFree") - kib("Buffers") - kib("Cached") - kib("SwapCached") -
             kib("AnonPages"))
            << 10) -
           free_in_cpus();
}

struct Crowd {
    int64_t kernel = 0;       // bytes, while all of it was there
    int64_t page_tables = 0;  // bytes of that which are page tables of user space
    int64_t ept = 0;          // bytes of EPT tables, of all processes
};

// Blocks in read() until the parent closes the pipe; in the guest, or in host mode with the same
// user memory as there.
void stay(bool in_guest, int go, std::atomic<int>& inside, std::atomic<int>& failed) {
    char nothing;
    if (in_guest) {
        const End end = guest::enter([&] {
            inside++;
            call(SYS_read, go, arg(&nothing), 1);
        });
        failed += !end.left();
        return;
    }
    const std::vector<char> stack(guest::kStackSize / 16);
    inside++;
    failed += read(go, &nothing, 1) != 0;
}

void be_a_process(bool in_guest, int report, int go) {
    std::atomic<int> inside = 0, failed = 0;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int t = 0; t < kThreads; t++) {
        threads.emplace_back([&] { stay(in_guest, go, inside, failed); });
    }
    while (inside < kThreads) {
        usleep(10'000);
    }
    // Until each of them sleeps.
    usleep(20'000);
    const uint64_t ept = in_guest ? Machine::get().stats().ept_bytes : 0;
    failed += write(report, &ept, sizeof(ept)) != sizeof(ept);
    for (std::thread& thread : threads) {
        thread.join();
    }
    _exit(failed == 0 ? 0 : 1);
}

Crowd gather(bool in_guest) {
    int report[2], go[2];
    EXPECT_EQ(pipe(report) | pipe(go), 0);
    std::vector<pid_t> pids;
    for (int p = 0; p < kProcesses; p++) {
        const pid_t pid = support::fork_or_end();
        if (pid == 0) {
            close(go[1]);
            be_a_process(in_guest, report[1], go[0]);
        }
        EXPECT_GT(pid, 0);
        pids.push_back(pid);
    }
    close(go[0]);
    close(report[1]);
    Crowd crowd;
    for (int p = 0; p < kProcesses; p++) {
        uint64_t ept = 0;
        EXPECT_EQ(read(report[0], &ept, sizeof(ept)), static_cast<ssize_t>(sizeof(ept)));
        crowd.ept += static_cast<int64_t>(ept);
    }
    crowd.kernel = kernel_bytes();
    crowd.page_tables = static_cast<int64_t>(support::number_in("/proc/meminfo", "PageTables"))
                        << 10;
    close(go[1]);
    close(report[0]);
    for (const pid_t pid : pids) {
        EXPECT_EQ(support::wait_status(pid), 0);
    }
    return crowd;
}

TEST(Crowd, AThousandThreadsInAHundredProcesses) {
    ASSERT_LE(support::number_in("/proc/meminfo", "MemTotal"), 1U << 20) << "at most 1 GiB";
    const Crowd plain = gather(false);
    const Crowd guests = gather(true);
    constexpr int kAll = kProcesses * kThreads;
    const int64_t more = guests.kernel - plain.kernel - guests.ept;
    const int64_t tables = guests.page_tables - plain.page_tables;
    std::printf(
        "%.1f KiB of kernel memory a thread beyond a plain one's, %.1f KiB of that page "
        "tables of user space; %.1f KiB of EPT tables a process\n",
        static_cast<double>(more) / kAll / 1024, static_cast<double>(tables) / kAll / 1024,
        static_cast<double>(guests.ept) / kProcesses / 1024);
    EXPECT_GT(guests.ept, int64_t{kProcesses} * 4 * 4096);
    EXPECT_GT(more, int64_t{kAll} * 4096) << "a VMCS and a shared page are two pages at least";
    EXPECT_LE(more, kAll * kMostBytes);
}

}  // namespace
