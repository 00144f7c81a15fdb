// SPDX-License-Identifier: MIT
/*
 * Processes and threads that enter Dune mode and go, over and over: nothing may be left of them.
 * SOAK_FORKS and SOAK_ROUNDS (of 64 threads) say how often; see CMakeLists.txt.
 */
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "kern/dune.h"
#include "support.h"

namespace {

using namespace dune::test;

using RuntimeSoak = RuntimeTest;

constexpr int kThreads = 64;

/** A number behind a name in a file of /proc, in its own unit. */
long number_in(const char* file, const char* name) {
    FILE* const stream = std::fopen(file, "re");
    char line[256];
    long value = -1;
    while (stream != nullptr && value < 0 && std::fgets(line, sizeof(line), stream) != nullptr)
        if (std::strncmp(line, name, std::strlen(name)) == 0)
            std::sscanf(line + std::strlen(name), ": %ld", &value);
    if (stream != nullptr)
        std::fclose(stream);
    return value;
}

long open_files() {
    long count = 0;
    DIR* const dir = opendir("/proc/self/fd");
    while (readdir(dir) != nullptr)
        ++count;
    closedir(dir);
    return count;
}

/** What this process and the module hold. */
struct Held {
    long files;
    long threads;
    long address_space;  // KiB
    long free;           // KiB, of the whole machine
    unsigned vcpus;
    unsigned long nested;  // bytes of EPT tables
};

Held held() {
    const int device = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    dune_stats stats = {};
    stats.size = sizeof(stats);
    EXPECT_EQ(ioctl(device, DUNE_GET_STATS, &stats), 0);
    close(device);
    return {.files = open_files(),
            .threads = number_in("/proc/self/status", "Threads"),
            .address_space = number_in("/proc/self/status", "VmSize"),
            .free = number_in("/proc/meminfo", "MemAvailable"),
            .vcpus = stats.vcpus,
            .nested = stats.ept_bytes};
}

// Linux frees what is left of a task a little after it was waited for.
void settle() {
    usleep(200000);
}

/**
 * Does something many times over, and expects nothing to be left of it. Memory that Linux keeps for
 * later, as slabs of each CPU, may be taken once; a leak takes it each time.
 */
template <class Work>
void expect_nothing_left(Work work) {
    settle();
    Held before = held();
    for (int attempt = 0; attempt < 3; ++attempt) {
        work();
        settle();
        const Held after = held();
        EXPECT_EQ(after.files, before.files);
        EXPECT_EQ(after.threads, before.threads);
        EXPECT_EQ(after.vcpus, before.vcpus);
        // The library keeps the stacks of up to 16 threads for the next ones.
        EXPECT_LE(after.address_space, before.address_space + 16 * 400);
        EXPECT_LE(after.nested, before.nested + (64 << 10));
        // Less than a page for each of many.
        if (after.free >= before.free - 6 * 1024)
            return;
        before.free = after.free;
    }
    ADD_FAILURE() << "each time there were more than 6 MiB less of free memory";
}

void fork_enter_exit(int times) {
    for (int i = 0; i < times; ++i) {
        const pid_t pid = fork();
        if (pid == 0)
            _exit(dune_enter() == 0 && dune_in_guest() ? i % 100 : 101);
        ASSERT_GT(pid, 0) << "fork " << i << ": " << std::strerror(errno);
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFEXITED(status)) << "fork " << i << ": status " << status;
        ASSERT_EQ(WEXITSTATUS(status), i % 100);
    }
}

TEST_F(RuntimeSoak, ForkEnterExit) {
    fork_enter_exit(20);
    expect_nothing_left([] { fork_enter_exit(SOAK_FORKS); });
}

void threads_enter_and_leave(int times) {
    for (int i = 0; i < times; ++i) {
        std::vector<std::thread> threads;
        std::vector<int> results(kThreads, -1);
        for (int n = 0; n < kThreads; ++n)
            threads.emplace_back([n, &result = results[static_cast<std::size_t>(n)]] {
                result = dune_enter();
                for (int each = 0; result == 0 && each < 3; ++each) {
                    result = dune_leave();
                    if (result == 0)
                        result = dune_enter();
                }
                if (result == 0 && n % 2 == 0)  // and end in host mode
                    result = dune_leave();
            });
        for (auto& thread : threads)
            thread.join();
        for (const int result : results)
            ASSERT_EQ(result, 0);
    }
}

TEST_F(RuntimeSoak, SixtyFourThreadsEnterAndLeave) {
    mallopt(M_ARENA_MAX, 1);  // the C library may make another one, of 64 MiB, at any time
    threads_enter_and_leave(2);
    expect_nothing_left([] { threads_enter_and_leave(SOAK_ROUNDS); });
}

}  // namespace
