// SPDX-License-Identifier: MIT
//
// What comes and goes many times leaves nothing behind: VPIDs, and memory of the kernel's.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "guest.h"
#include "support.h"

namespace {

using guest::call;
using guest::Machine;

constexpr int kVcpus = 60'000;  // twice the VPIDs that there are, and more
constexpr int kProcesses = 400;
constexpr int64_t kNoise = 3 << 20;  // bytes: 32 a vCPU, two pages a process

// VPIDs in use; -1 if that can't be read.
int vpids_in_use() {
    uint64_t bitmap[0x7000 / 64];
    static const uint64_t address = support::kernel_symbols({"vpids\t[dune]"})[0];
    if (address == 0 || !support::read_kernel(address, bitmap, sizeof(bitmap))) {
        return -1;
    }
    int used = 0;
    for (const uint64_t word : bitmap) {
        used += std::popcount(word);
    }
    return used;
}

// Memory that is neither free nor user space's nor a cache's, when what waits to be freed is.
int64_t kernel_bytes() {
    for (int i = 0; i < 3; i++) {
        usleep(100'000);
        support::write_file("/proc/sys/vm/drop_caches", "3");
    }
    const auto kib = [](const char* name) {
        return static_cast<int64_t>(support::number_in("/proc/meminfo", name));
    };
    return (kib("MemTotal") - kib("MemFree") - kib("Buffers") - kib("Cached") - kib("AnonPages"))
           << 10;
}

// Expects work to take no memory for good. What Linux keeps for later, as slabs of each CPU, may be
// taken once; a leak takes it each time.
template <class Work>
void expect_no_growth(Work work) {
    int64_t before = kernel_bytes();
    for (int attempt = 0; attempt < 3; attempt++) {
        work();
        const int64_t after = kernel_bytes();
        std::printf("%lld KiB more\n", static_cast<long long>((after - before) / 1024));
        if (after - before < kNoise) {
            return;
        }
        before = after;
    }
    ADD_FAILURE() << "each time more than " << kNoise << " bytes";
}

void create_and_close(int times) {
    for (int i = 0; i < times; i++) {
        dune_vcpu_create create = {};
        create.size = sizeof(create);
        const int fd = ioctl(Machine::get().fd(), DUNE_CREATE_VCPU, &create);
        ASSERT_GE(fd, 0) << i;
        close(fd);
    }
}

TEST(Leak, VcpusThatWereNeverRun) {
    guest::enter([] {});
    create_and_close(1000);
    const int vpids = vpids_in_use();
    expect_no_growth([] { create_and_close(kVcpus); });
    EXPECT_EQ(Machine::get().stats().vcpus, 1U);
    if (Machine::get().has(DUNE_FEAT_VPID)) {
        EXPECT_GE(vpids, 1) << "this thread's (is there a /proc/kcore?)";
        EXPECT_EQ(vpids_in_use(), vpids);
    }
    EXPECT_TRUE(guest::enter([] {}).left());
}

TEST(Leak, ManyVcpusAtOnce) {
    guest::enter([] {});
    const int before = vpids_in_use();
    std::vector<int> files;
    dune_vcpu_create create = {};
    create.size = sizeof(create);
    for (int i = 0; i < 500; i++) {
        files.push_back(ioctl(Machine::get().fd(), DUNE_CREATE_VCPU, &create));
        ASSERT_GE(files.back(), 0);
    }
    if (Machine::get().has(DUNE_FEAT_VPID)) {
        EXPECT_EQ(vpids_in_use(), before + 500) << "each has its own";
    }
    for (const int fd : files) {
        close(fd);
    }
    EXPECT_EQ(vpids_in_use(), before);
}

TEST(Leak, ProcessesThatRanAndDied) {
    const auto live = [] {
        char* memory = guest::map(64 * support::kPage);
        guest::enter([&] {
            for (size_t i = 0; i < 64; i++) {
                memory[i * support::kPage] = 1;
            }
            call(SYS_exit_group, 7);
        });
    };
    for (int i = 0; i < 20; i++) {
        ASSERT_EQ(WEXITSTATUS(support::status_of(live)), 7);
    }
    const int vpids = vpids_in_use();
    expect_no_growth([&] {
        for (int i = 0; i < kProcesses; i++) {
            ASSERT_EQ(WEXITSTATUS(support::status_of(live)), 7);
        }
    });
    EXPECT_EQ(vpids_in_use(), vpids);
}

// A line of /proc/cgroups.
struct Cgroups {
    int hierarchy = -1, count = -1;
};
Cgroups memory_cgroups() {
    Cgroups memory;
    const std::string all = support::read_file("/proc/cgroups");
    const size_t line = all.find("\nmemory\t");
    if (line != std::string::npos) {
        std::sscanf(&all[line], "\nmemory %d %d", &memory.hierarchy, &memory.count);
    }
    return memory;
}

template <class Condition>
bool comes_true(Condition condition) {
    for (int i = 0; i < 100 && !condition(); i++) {
        usleep(50'000);
    }
    return condition();
}

// userfaultfd is to be told of writes to what it protects, and protects nothing: its faults are
// Linux' own.
bool watch(char* memory, size_t size) {
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api = {UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, 0};
    uffdio_register area = {};
    area.range = {reinterpret_cast<uint64_t>(memory), size};
    area.mode = UFFDIO_REGISTER_MODE_WP;
    return ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &area) == 0;
}

class LeakOfMemory : public testing::TestWithParam<bool> {};

TEST_P(LeakOfMemory, ACgroupWhoseMemoryWasOut) {
    // Of version 1, and told to kill nobody: Linux keeps a note for each fault of user mode's that
    // finds no memory, until user mode comes to sleep for it, and the guest never does.
    constexpr const char* kRoot = "/tmp/memory-cgroups";
    const std::string group = std::string(kRoot) + "/out";
    const auto set = [&](const char* file, const char* value) {
        return support::write_file((group + "/" + file).c_str(), value);
    };
    mkdir(kRoot, 0755);
    if (mount("none", kRoot, "cgroup", 0, "memory") != 0) {
        GTEST_SKIP() << "no memory cgroups of version 1";
    }
    const int before = memory_cgroups().count;
    ASSERT_EQ(mkdir(group.c_str(), 0755), 0);
    EXPECT_TRUE(set("memory.oom_control", "1"));
    EXPECT_TRUE(set("memory.limit_in_bytes", "8388608"));
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        char* memory = guest::map(32 << 20);
        if (GetParam() && !watch(memory, 32 << 20)) {
            _exit(77);
        }
        set("tasks", "0");
        guest::enter([&] {
            for (size_t i = 0; i < 32 << 20; i += support::kPage) {
                memory[i] = 1;
            }
        });
        _exit(0);
    }
    EXPECT_TRUE(comes_true(
        [&] { return std::atoi(support::read_file(group + "/memory.failcnt").c_str()) > 0; }));
    usleep(200'000);
    kill(pid, SIGKILL);
    EXPECT_EQ(WTERMSIG(support::wait_status(pid)), SIGKILL);
    set("memory.force_empty", "0");
    EXPECT_EQ(rmdir(group.c_str()), 0);
    EXPECT_TRUE(comes_true([&] { return memory_cgroups().count == before; }))
        << memory_cgroups().count;
    EXPECT_EQ(umount(kRoot), 0);
    EXPECT_TRUE(comes_true([] { return memory_cgroups().hierarchy == 0; })) << "for others' sake";
}

INSTANTIATE_TEST_SUITE_P(Userfaultfd, LeakOfMemory, testing::Bool());

}  // namespace
