// SPDX-License-Identifier: MIT
// Ordinary life in Dune mode.
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <fstream>
#include <vector>

#include "kern/dune.h"
#include "support.h"

namespace {

using namespace dune::test;

using RuntimeEntry = RuntimeTest;

TEST(RuntimeEntryHost, EnterBeforeInitIsRefused) {
    EXPECT_EQ(dune_enter(), -EPERM);
    EXPECT_EQ(dune_leave(), -EPERM);
    dune_tf tf = {};
    EXPECT_EQ(dune_jump_to_user(&tf), -EPERM);
}

TEST(RuntimeEntryHost, NoPermissionIsSaid) {
    const Outcome outcome = in_child([] {
        if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)
            return 1;
        return dune_init(true) == -EACCES ? 0 : 2;
    });
    EXPECT_TRUE(outcome.exited(0));
    EXPECT_NE(outcome.stderr_.find("/dev/dune"), std::string::npos) << outcome.stderr_;
    EXPECT_NE(outcome.stderr_.find("permission"), std::string::npos) << outcome.stderr_;
}

/** From here on Linux answers this system call with EPERM. */
bool forbid(unsigned number) {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {.len = 4, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(RuntimeEntryHost, FilterThatForbidsWhatIsNeededIsSaid) {
    for (const unsigned number : {SYS_openat, SYS_ioctl, SYS_mmap, SYS_mprotect}) {
        const Outcome outcome = in_child([number] {
            if (!forbid(number))
                return 200;
            const int ret = dune_init_and_enter();
            return ret < 0 && !dune_in_guest() ? -ret : 201;
        });
        EXPECT_TRUE(WIFEXITED(outcome.status)) << number << ": " << outcome.status;
        EXPECT_TRUE(outcome.exited(EPERM) || outcome.exited(ENOMEM))
            << number << ": " << WEXITSTATUS(outcome.status);
        EXPECT_EQ(outcome.stderr_.rfind("dune: ", 0), 0U) << number << ": " << outcome.stderr_;
        EXPECT_EQ(std::count(outcome.stderr_.begin(), outcome.stderr_.end(), '\n'), 1)
            << number << ": " << outcome.stderr_;
    }
}

TEST(RuntimeEntryHost, WithoutProcItIsSaidAndTriedAgain) {
    const Outcome outcome = in_child([] {
        if (unshare(CLONE_NEWNS) != 0 ||
            mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) ||
            umount2("/proc", MNT_DETACH) != 0)
            return 1;
        if (dune_init_and_enter() != -ENOENT)
            return 2;
        if (mount("proc", "/proc", "proc", 0, nullptr) != 0)
            return 3;
        return dune_init_and_enter() == 0 && dune_in_guest() && getpid() > 0 ? 0 : 4;
    });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status;
    EXPECT_NE(outcome.stderr_.find("/proc"), std::string::npos) << outcome.stderr_;
    EXPECT_EQ(std::count(outcome.stderr_.begin(), outcome.stderr_.end(), '\n'), 1);
}

/** dune_init_and_enter() with a limit: what it answers, and what it says. */
void expect_limit_said(int resource, rlim_t limit, int error, const char* text) {
    const Outcome outcome = in_child([=] {
        const rlimit wanted = {limit, limit};
        setrlimit(static_cast<__rlimit_resource>(resource), &wanted);
        return -dune_init_and_enter();
    });
    EXPECT_TRUE(outcome.exited(error)) << limit << ": " << outcome.status;
    EXPECT_NE(outcome.stderr_.find(text), std::string::npos) << limit << ": " << outcome.stderr_;
    EXPECT_EQ(std::count(outcome.stderr_.begin(), outcome.stderr_.end(), '\n'), error != 0)
        << limit;
}

TEST(RuntimeEntryHost, LimitsAreSaid) {
    expect_limit_said(RLIMIT_AS, rlim_t{1} << 30, ENOMEM, "ulimit -v");
    const int used = open("/dev/null", O_RDONLY | O_CLOEXEC);  // a test has one or the other more
    close(used);
    expect_limit_said(RLIMIT_NOFILE, static_cast<rlim_t>(used), EMFILE, "too many open files");
    expect_limit_said(RLIMIT_NOFILE, static_cast<rlim_t>(used) + 1, EMFILE, "too many open files");
    expect_limit_said(RLIMIT_NOFILE, static_cast<rlim_t>(used) + 2, 0, "");
}

/** What is not needed, or has another way. */
TEST(RuntimeEntryHost, FiltersThatDoNotMatter) {
    for (const unsigned number : {SYS_lseek, SYS_madvise, SYS_getcpu, SYS_sigaltstack}) {
        const Outcome outcome = in_child([number] {
            if (!forbid(number) || dune_init_and_enter() != 0 || !dune_in_guest())
                return 1;
            errno = 0;
            return number == SYS_lseek && (lseek(0, 0, SEEK_CUR) != -1 || errno != EPERM) ? 2 : 0;
        });
        EXPECT_TRUE(outcome.exited(0)) << number << ": " << outcome.status << outcome.stderr_;
    }
}

/** A filter that comes when the thread is in Dune mode holds there. */
TEST_F(RuntimeEntry, FilterInDuneMode) {
    const Outcome outcome = in_child([] {
        if (!forbid(SYS_getppid))
            return 1;
        errno = 0;
        return syscall(SYS_getppid) == -1 && errno == EPERM && getpid() > 0 ? 0 : 2;
    });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeEntry, RunsInRing0) {
    EXPECT_EQ(read_cs() & 3, 0);
    EXPECT_NE(read_cr3(), 0U);
    EXPECT_NE(read_rflags() & FL_IF, 0U);
    EXPECT_EQ(dune_init_and_enter(), 0);
}

TEST_F(RuntimeEntry, SystemCallsHaveTheirResults) {
    EXPECT_EQ(getpid(), static_cast<pid_t>(syscall(SYS_getpid)));
    errno = 0;
    EXPECT_EQ(open("/nonexistent/file", O_RDONLY), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_EQ(syscall(4000), -1);
    EXPECT_EQ(errno, ENOSYS);
    EXPECT_EQ(write(-1, "x", 1), -1);
    EXPECT_EQ(errno, EBADF);
}

TEST_F(RuntimeEntry, FilesStreamsAndHeap) {
    char name[] = "/tmp/duneXXXXXX";
    const int fd = mkstemp(name);
    ASSERT_GE(fd, 0);
    std::vector<char> data(1 << 20);
    for (std::size_t i = 0; i < data.size(); ++i)
        data[i] = static_cast<char>(i * 7);
    ASSERT_EQ(write(fd, data.data(), data.size()), static_cast<ssize_t>(data.size()));
    close(fd);
    std::ifstream in(name, std::ios::binary);
    const std::vector<char> back((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(back, data);
    unlink(name);
    for (std::size_t size = 16; size < (64U << 20); size *= 4) {
        std::vector<char> block(size, 'a');
        EXPECT_EQ(block.back(), 'a');
    }
}

TEST_F(RuntimeEntry, MappingsAnywhereAreUsable) {
    // One in each of many gigabytes that nothing was mapped in before.
    for (std::uintptr_t gib = 0x1000; gib < 0x1f000; gib += 0x1555) {
        Pages pages(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(gib << 30));
        EXPECT_EQ(*pages.at(), 0);
        *pages.at() = 1;
        EXPECT_EQ(*pages.at(), 1);
    }
}

TEST_F(RuntimeEntry, StackInANewGigabyte) {
    Pages stack(4, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(0x123400000000));
    std::uint64_t top = stack.address(4);
    std::uint64_t value = 0;
    asm volatile(
        "mov %%rsp, %%rbx\n\t"
        "mov %[top], %%rsp\n\t"
        "push $77\n\t"
        "pop %[value]\n\t"
        "mov %%rbx, %%rsp"
        : [value] "=&r"(value)
        : [top] "r"(top)
        : "rbx", "memory");
    EXPECT_EQ(value, 77U);
}

std::uint64_t vm_calls() {
    static const int fd = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    dune_stats stats = {};
    stats.size = sizeof(stats);
    if (ioctl(fd, DUNE_GET_STATS, &stats) != 0)
        return 0;
    return stats.exits[18];
}

TEST_F(RuntimeEntry, ClockNeedsNoExit) {
    timespec before = {};
    timespec after = {};
    clock_gettime(CLOCK_MONOTONIC, &before);
    const std::uint64_t calls = vm_calls();
    const std::uint64_t bare = vm_calls() - calls;
    const std::uint64_t start = vm_calls();
    for (int i = 0; i < 100; ++i)
        clock_gettime(CLOCK_MONOTONIC, &after);
    const std::uint64_t used = vm_calls() - start;
    EXPECT_LE(used, bare + 2);
    EXPECT_GE(after.tv_sec, before.tv_sec);
}

TEST_F(RuntimeEntry, LeaveAndEnterAgain) {
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(dune_leave(), 0);
        ASSERT_EQ(read_cs() & 3, 3);
        ASSERT_GT(getpid(), 0);
        ASSERT_EQ(dune_enter(), 0);
        ASSERT_EQ(read_cs() & 3, 0);
    }
}

TEST_F(RuntimeEntry, PrintfGoesToStdout) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    const int saved = dup(STDOUT_FILENO);
    dup2(fds[1], STDOUT_FILENO);
    const int n = dune_printf("%d %s %#lx\n", 42, "text", 0xabcUL);
    dup2(saved, STDOUT_FILENO);
    char text[64] = {};
    EXPECT_EQ(read(fds[0], text, sizeof(text) - 1), n);
    EXPECT_STREQ(text, "42 text 0xabc\n");
    close(saved);
    close(fds[0]);
    close(fds[1]);
}

TEST_F(RuntimeEntry, ExitStatusAndHandlers) {
    EXPECT_TRUE(in_child([] { return 3; }).exited(3));
    const Outcome outcome = in_child([]() -> int {
        atexit([] { fputs("at exit", stderr); });
        exit(4);
    });
    EXPECT_TRUE(outcome.exited(4));
    EXPECT_EQ(outcome.stderr_, "at exit");
    EXPECT_TRUE(in_child([]() -> int { dune_die(); }).exited(1));
}

TEST_F(RuntimeEntry, SegmentBasesAreThePrograms) {
    unsigned long fs = 0;
    constexpr int kGetFs = 0x1003;
    ASSERT_EQ(syscall(SYS_arch_prctl, kGetFs, &fs), 0);
    EXPECT_EQ(fs, reinterpret_cast<unsigned long>(__builtin_thread_pointer()));
    constexpr int kSetFs = 0x1002;
    ASSERT_EQ(syscall(SYS_arch_prctl, kSetFs, fs), 0);
    EXPECT_EQ(fs, reinterpret_cast<unsigned long>(__builtin_thread_pointer()));
}

TEST_F(RuntimeEntry, DuneMmapMapsInTheTables) {
    void* const va = dune_mmap(reinterpret_cast<void*>(0x234500000000), 8192,
                               PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(va, MAP_FAILED);
    ptent_t* pte = nullptr;
    EXPECT_EQ(dune_vm_lookup(pgroot, va, CREATE_NONE, &pte), 0);
    *static_cast<volatile int*>(va) = 1;
    munmap(va, 8192);
}

/** It takes no more than what is used of it. */
TEST_F(RuntimeEntry, DuneMmapOfAReservation) {
    constexpr std::size_t kSize = std::size_t{1} << 43;
    void* const va = dune_mmap(nullptr, kSize, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(va, MAP_FAILED);
    auto* const memory = static_cast<volatile char*>(va);
    memory[0] = 1;
    memory[kSize / 2] = 2;
    EXPECT_EQ(memory[0] + memory[kSize / 2], 3);
    munmap(va, kSize);
    EXPECT_EQ(dune_mmap(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
    EXPECT_EQ(errno, EINVAL);
}

/** Guest-physical space has an end, which is said, and what has its place there goes on. */
TEST_F(RuntimeEntry, TooManyGigabytesAreSaid) {
    const Outcome outcome = in_child([] {
        struct sigaction action = {};
        action.sa_handler = [](int) { _exit(getpid() > 0 ? 42 : 43); };
        sigaction(SIGSEGV, &action, nullptr);
        std::uintptr_t gib = 0x2000;
        while (dune_va_to_pa(reinterpret_cast<void*>(gib << 30)) != 0)
            ++gib;
        Pages pages(1, PROT_READ | PROT_WRITE, reinterpret_cast<void*>(gib << 30));
        *pages.at() = 1;
        return 0;
    });
    EXPECT_TRUE(outcome.exited(42)) << outcome.status;
    EXPECT_NE(outcome.stderr_.find("guest-physical space"), std::string::npos) << outcome.stderr_;
}

}  // namespace
