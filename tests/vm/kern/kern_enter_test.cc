// SPDX-License-Identifier: MIT
//
// In and out of the guest, and system calls from it: slow and fast calls mean the same.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::End;
using guest::Machine;
using guest::Options;

long arg(const void* pointer) {
    return reinterpret_cast<long>(pointer);
}

Options with_traps() {
    Options options;
    options.traps = true;
    return options;
}

// --- entering ---

TEST(Enter, RunsInRing0AndLeaves) {
    uint64_t cs = 99;
    uint64_t sum = 0;
    const End end = guest::enter([&] {
        uint16_t selector;
        asm volatile("mov %%cs, %0" : "=r"(selector));
        cs = selector;
        for (uint64_t i = 0; i < 1000; i++) {
            sum += i;
        }
    });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(cs, 0x10U);
    EXPECT_EQ(cs & 3, 0U);
    EXPECT_EQ(sum, 499500U);
}

TEST(Enter, LeaveCarriesItsArgument) {
    const End end = guest::enter([] { guest::leave(0x123456789abcdef0); });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(end.argument, 0x123456789abcdef0U);
}

TEST(Enter, ByTheDoor) {
    Options options;
    options.door = true;
    long pid = 0;
    for (int i = 0; i < 100; i++) {
        options.fast = i & 1;
        ASSERT_TRUE(guest::enter([&] { pid = guest::call(SYS_getpid); }, options).left());
        ASSERT_EQ(pid, getpid());
    }
}

TEST(Enter, ThousandTimes) {
    Options options;
    options.rescan = false;
    int count = 0;
    ASSERT_TRUE(guest::enter([&] { count++; }).left());
    for (int i = 0; i < 1000; i++) {
        ASSERT_TRUE(guest::enter([&] { count++; }, options).left());
    }
    EXPECT_EQ(count, 1001);
}

TEST(Enter, GoesOnWhereItLeft) {
    guest::Vcpu& vcpu = guest::Vcpu::get();
    volatile int step = 0;
    auto two_steps = [&] {
        step = 1;
        asm volatile("vmcall" : : "a"(static_cast<long>(DUNE_HC_LEAVE)), "D"(5L) : "memory");
        step = 2;
    };
    End end = guest::enter(two_steps);
    EXPECT_EQ(end.argument, 5U);
    EXPECT_EQ(step, 1);
    end = vcpu.run({});
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(step, 2);
}

TEST(Enter, RegistersGoThereAndBack) {
    guest::Vcpu& vcpu = guest::Vcpu::get();
    vcpu.prepare([](void*) {}, nullptr, {});
    dune_vcpu_page& page = vcpu.page();
    static const unsigned char kVmcall[] = {0x0f, 0x01, 0xc1};
    page.rip = reinterpret_cast<uint64_t>(kVmcall);
    Machine::get().show(kVmcall, 3);
    auto* code = guest::map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    std::memcpy(code, kVmcall, sizeof(kVmcall));
    page.rip = reinterpret_cast<uint64_t>(code);
    page.rflags = 0x2 | 0x8d5;
    auto* regs = reinterpret_cast<uint64_t*>(&page.regs);
    for (uint64_t i = 0; i < 16; i++) {
        regs[i] = 0x0101010101010101 * (i + 1);
    }
    regs[0] = DUNE_HC_LEAVE;
    ASSERT_TRUE(vcpu.run({}).left());
    for (uint64_t i = 1; i < 16; i++) {
        EXPECT_EQ(regs[i], 0x0101010101010101 * (i + 1)) << i;
    }
    EXPECT_EQ(page.rflags, 0x2U | 0x8d5U);
    EXPECT_EQ(page.rip, reinterpret_cast<uint64_t>(code) + 3);
}

TEST(Enter, ManyVcpusInOneThread) {
    // A thread may make several; each has a state of its own.
    guest::Vcpu first, second;
    long value = 0;
    auto add = [&](long n) { value = value * 10 + n; };
    struct Call {
        decltype(add)* fn;
        long n;
    } one = {&add, 1}, two = {&add, 2};
    const auto run = [](void* c) { (*static_cast<Call*>(c)->fn)(static_cast<Call*>(c)->n); };
    for (int i = 0; i < 3; i++) {
        EXPECT_TRUE(first.enter(run, &one, {}).left());
        EXPECT_TRUE(second.enter(run, &two, {}).left());
    }
    EXPECT_EQ(value, 121212);
}

TEST(Enter, ManyThreads) {
    std::array<long, 20> tids = {};
    std::vector<std::thread> threads;
    for (long& tid : tids) {
        threads.emplace_back([&tid] {
            long seen = 0;
            const long own = guest::host_call(SYS_gettid);
            const End end = guest::enter([&] {
                for (int i = 0; i < 100; i++) {
                    guest::call(SYS_sched_yield);
                }
                seen = guest::call(SYS_gettid);
            });
            tid = end.left() && seen == own;
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    for (const long ok : tids) {
        EXPECT_EQ(ok, 1);
    }
}

TEST(Enter, NopHypercallReturnsZero) {
    long result = 1;
    guest::enter([&] { result = guest::call(DUNE_HC_NOP); });
    EXPECT_EQ(result, 0);
}

// --- system calls, both ways ---

class Calls : public testing::TestWithParam<bool> {
  protected:
    Options options() const {
        Options options;
        options.fast = GetParam();
        return options;
    }
    // The same call in the guest; checks which way it took.
    long call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
        long result = -12345;
        const End end =
            guest::enter([&] { result = guest::call(nr, a, b, c, d, e, f); }, options());
        EXPECT_TRUE(end.left()) << end;
        return result;
    }
};

INSTANTIATE_TEST_SUITE_P(Ways, Calls, testing::Bool(),
                         [](const auto& info) { return info.param ? "Fast" : "Slow"; });

TEST_P(Calls, TakeTheirWay) {
    const dune_stats before = Machine::get().stats();
    EXPECT_EQ(call(SYS_getpid), getpid());
    const dune_stats after = Machine::get().stats();
    const bool fast = GetParam() && Machine::get().has(DUNE_FEAT_FAST_SYSCALLS);
    EXPECT_EQ(after.fast_calls - before.fast_calls, fast ? 1U : 0U);
    EXPECT_EQ(after.slow_calls - before.slow_calls, fast ? 0U : 1U);
}

TEST_P(Calls, Identity) {
    EXPECT_EQ(call(SYS_getpid), getpid());
    EXPECT_EQ(call(SYS_getppid), getppid());
    EXPECT_EQ(call(SYS_gettid), guest::host_call(SYS_gettid));
    EXPECT_EQ(call(SYS_getuid), static_cast<long>(getuid()));
    EXPECT_EQ(call(SYS_getpgid, 0), getpgid(0));
    EXPECT_EQ(call(SYS_getpriority, PRIO_PROCESS, 0), guest::host_call(SYS_getpriority, 0, 0));
}

TEST_P(Calls, Errors) {
    EXPECT_EQ(call(SYS_close, 9999), -EBADF);
    EXPECT_EQ(call(SYS_open, 0x10, 0), -EFAULT);
    EXPECT_EQ(call(SYS_open, arg("/no/such"), 0), -ENOENT);
    EXPECT_EQ(call(SYS_read, -1, 0, 0), -EBADF);
    EXPECT_EQ(call(SYS_mmap, 1, 0, 0), -EINVAL);
    EXPECT_EQ(call(SYS_kill, 0x7fffffff, 0), -ESRCH);
    EXPECT_EQ(call(SYS_lseek, 0, 0, 99), guest::host_call(SYS_lseek, 0, 0, 99));
    EXPECT_EQ(call(SYS_write, 1, static_cast<long>(0xffffffff81000000), 1),
              guest::host_call(SYS_write, 1, static_cast<long>(0xffffffff81000000), 1))
        << "a kernel pointer is no user's";
}

TEST_P(Calls, UnknownNumbers) {
    for (const long nr : {500L, 511L, 600L, 999L, 4000L, 0x40000000L, 0x7fffffffL, -1L,
                          static_cast<long>(0x44550003)}) {
        EXPECT_EQ(call(nr), guest::host_call(nr)) << nr;
    }
}

TEST_P(Calls, NumbersAre32Bits) {
    // Linux looks at EAX alone.
    for (const long high : {1L << 32, 1L << 63}) {
        EXPECT_EQ(call(high + SYS_getppid), guest::host_call(high + SYS_getppid));
    }
}

TEST_P(Calls, Files) {
    char path[] = "/tmp/calls-XXXXXX";
    close(mkstemp(path));
    const char text[] = "through the guest";
    char buffer[64] = {};
    const long fd = call(SYS_openat, AT_FDCWD, arg(path), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(call(SYS_write, fd, arg(text), sizeof(text)), static_cast<long>(sizeof(text)));
    EXPECT_EQ(call(SYS_pread64, fd, arg(buffer), sizeof(text), 0), static_cast<long>(sizeof(text)));
    EXPECT_STREQ(buffer, text);
    struct stat guest_stat = {}, host_stat = {};
    EXPECT_EQ(call(SYS_fstat, fd, arg(&guest_stat)), 0);
    EXPECT_EQ(fstat(static_cast<int>(fd), &host_stat), 0);
    EXPECT_EQ(guest_stat.st_ino, host_stat.st_ino);
    iovec vector[2] = {{buffer, 7}, {buffer + 10, 10}};
    EXPECT_EQ(call(SYS_preadv, fd, arg(vector), 2, 0, 0), 17);
    EXPECT_EQ(call(SYS_ftruncate, fd, 5), 0);
    EXPECT_EQ(call(SYS_lseek, fd, 0, SEEK_END), 5);
    EXPECT_EQ(call(SYS_close, fd), 0);
    EXPECT_EQ(call(SYS_unlink, arg(path)), 0);
    EXPECT_EQ(call(SYS_access, arg(path), F_OK), -ENOENT);
}

TEST_P(Calls, SixArguments) {
    const int fd = memfd_create("six", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, 8192), 0);
    ASSERT_EQ(pwrite(fd, "page two", 8, 4096), 8);
    const long address = call(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 4096);
    ASSERT_GT(address, 0);
    EXPECT_EQ(std::memcmp(reinterpret_cast<void*>(address), "page two", 8), 0);
    EXPECT_EQ(call(SYS_munmap, address, 4096), 0);
    close(fd);
}

TEST_P(Calls, Sockets) {
    int pair[2];
    EXPECT_EQ(call(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, arg(pair)), 0);
    char byte = 'x';
    EXPECT_EQ(call(SYS_sendto, pair[0], arg(&byte), 1, 0, 0, 0), 1);
    pollfd poll = {pair[1], POLLIN, 0};
    EXPECT_EQ(call(SYS_poll, arg(&poll), 1, -1), 1);
    const long epoll = call(SYS_epoll_create1, 0);
    epoll_event event = {};
    event.events = EPOLLIN;
    EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pair[1], arg(&event)), 0);
    EXPECT_EQ(call(SYS_epoll_wait, epoll, arg(&event), 1, -1), 1);
    byte = 0;
    EXPECT_EQ(call(SYS_recvfrom, pair[1], arg(&byte), 1, 0, 0, 0), 1);
    EXPECT_EQ(byte, 'x');
    close(pair[0]);
    close(pair[1]);
    close(static_cast<int>(epoll));
}

TEST_P(Calls, Structures) {
    utsname guest_name = {}, host_name = {};
    EXPECT_EQ(call(SYS_uname, arg(&guest_name)), 0);
    uname(&host_name);
    EXPECT_EQ(std::memcmp(&guest_name, &host_name, sizeof(host_name)), 0);
    rlimit limit = {}, host_limit = {};
    EXPECT_EQ(call(SYS_getrlimit, RLIMIT_NOFILE, arg(&limit)), 0);
    getrlimit(RLIMIT_NOFILE, &host_limit);
    EXPECT_EQ(limit.rlim_max, host_limit.rlim_max);
    timespec time = {};
    EXPECT_EQ(call(SYS_clock_gettime, CLOCK_MONOTONIC, arg(&time)), 0);
    EXPECT_GT(time.tv_sec + time.tv_nsec, 0);
    char name[16] = {};
    EXPECT_EQ(call(SYS_prctl, 16 /* PR_GET_NAME */, arg(name)), 0);
    EXPECT_STREQ(name, "kern_enter_test");
}

TEST_P(Calls, SignalsToItself) {
    static volatile int got;
    got = 0;
    signal(SIGUSR1, [](int) {
        got = got + 1;
        guest::note_handler(true);
    });
    EXPECT_EQ(call(SYS_tgkill, getpid(), guest::host_call(SYS_gettid), SIGUSR1), 0);
    EXPECT_EQ(got, 1);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    EXPECT_EQ(call(SYS_rt_sigprocmask, SIG_BLOCK, arg(&set), arg(&old), 8), 0);
    EXPECT_EQ(call(SYS_tgkill, getpid(), guest::host_call(SYS_gettid), SIGUSR1), 0);
    EXPECT_EQ(got, 1);
    EXPECT_EQ(call(SYS_rt_sigprocmask, SIG_SETMASK, arg(&old), 0, 8), 0);
    EXPECT_EQ(got, 2);
}

TEST_P(Calls, ForkAndWait) {
    const long pid = [&] {
        long result = 0;
        const End end = guest::enter(
            [&] {
                result = guest::call(SYS_fork);
                if (result == 0) {
                    guest::call(SYS_exit_group, guest::call(SYS_getpid) == 0 ? 1 : 42);
                }
            },
            options());
        EXPECT_TRUE(end.left()) << end;
        return result;
    }();
    ASSERT_GT(pid, 0);
    int status = 0;
    EXPECT_EQ(call(SYS_wait4, pid, arg(&status), 0, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 42) << status;
}

// Arms a timer that interrupts the next sleep of this thread.
void alarm_in(long milliseconds) {
    itimerval timer = {};
    timer.it_value.tv_sec = milliseconds / 1000;
    timer.it_value.tv_usec = milliseconds % 1000 * 1000;
    setitimer(ITIMER_REAL, &timer, nullptr);
}

void on_alarm(int flags) {
    struct sigaction action = {};
    if (flags & SA_RESTART) {
        action.sa_handler = [](int) { guest::note_handler(true); };
    } else {
        action.sa_handler = [](int) { guest::note_handler(false); };
    }
    action.sa_flags = flags;
    sigaction(SIGALRM, &action, nullptr);
}

TEST_P(Calls, InterruptedReadIsEintr) {
    on_alarm(0);
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    char byte;
    alarm_in(50);
    EXPECT_EQ(call(SYS_read, fds[0], arg(&byte), 1), -EINTR);
    close(fds[0]);
    close(fds[1]);
}

TEST_P(Calls, ReadIsRestarted) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    static int write_end;
    write_end = fds[1];
    struct sigaction action = {};
    action.sa_flags = SA_RESTART;
    action.sa_handler = [](int) {
        guest::note_handler(true);
        static_cast<void>(!write(write_end, "y", 1));
    };
    sigaction(SIGALRM, &action, nullptr);
    char byte = 0;
    alarm_in(50);
    EXPECT_EQ(call(SYS_read, fds[0], arg(&byte), 1), 1);
    EXPECT_EQ(byte, 'y');
    close(fds[0]);
    close(fds[1]);
}

TEST_P(Calls, InterruptedSleepTellsTheRest) {
    on_alarm(0);
    const timespec request = {1, 0};
    timespec rest = {};
    alarm_in(50);
    EXPECT_EQ(call(SYS_nanosleep, arg(&request), arg(&rest)), -EINTR);
    EXPECT_EQ(rest.tv_sec, 0);
    EXPECT_GT(rest.tv_nsec, 0);
}

TEST_P(Calls, StoppedSleepGoesOnForTheRest) {
    // SIGSTOP and SIGCONT without a handler: restart_syscall, not a new sleep.
    const pid_t self = getpid();
    const pid_t other = support::fork_or_end();
    if (other == 0) {
        usleep(100'000);
        kill(self, SIGSTOP);
        usleep(100'000);
        kill(self, SIGCONT);
        _exit(0);
    }
    const timespec request = {0, 400'000'000};
    timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    EXPECT_EQ(call(SYS_nanosleep, arg(&request), 0), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    const long slept =
        (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1'000'000;
    EXPECT_GE(slept, 390);
    EXPECT_LT(slept, 900);
    waitpid(other, nullptr, 0);
}

TEST_P(Calls, PollIsNotRestarted) {
    on_alarm(SA_RESTART);
    alarm_in(50);
    EXPECT_EQ(call(SYS_poll, 0, 0, 5000), -EINTR);
}

TEST_P(Calls, SigsuspendAndPause) {
    on_alarm(0);
    sigset_t none;
    sigemptyset(&none);
    alarm_in(50);
    EXPECT_EQ(call(SYS_rt_sigsuspend, arg(&none), 8), -EINTR);
    alarm_in(50);
    EXPECT_EQ(call(SYS_pause), -EINTR);
}

TEST_P(Calls, PselectRestoresTheMask) {
    on_alarm(0);
    sigset_t block, old, empty, now;
    sigemptyset(&empty);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, &old);
    struct {
        const sigset_t* set;
        size_t size;
    } mask = {&empty, 8};
    const timespec timeout = {5, 0};
    alarm_in(50);
    EXPECT_EQ(call(SYS_pselect6, 0, 0, 0, 0, arg(&timeout), arg(&mask)), -EINTR);
    sigprocmask(SIG_SETMASK, &old, &now);
    EXPECT_TRUE(sigismember(&now, SIGALRM)) << "the mask from before pselect() is back";
}

TEST_P(Calls, Futexes) {
    static uint32_t word;
    word = 1;
    EXPECT_EQ(call(SYS_futex, arg(&word), FUTEX_WAIT_PRIVATE, 2, 0), -EAGAIN);
    const timespec timeout = {0, 20'000'000};
    EXPECT_EQ(call(SYS_futex, arg(&word), FUTEX_WAIT_PRIVATE, 1, arg(&timeout)), -ETIMEDOUT);
    std::thread waker([] {
        usleep(50'000);
        word = 2;
        guest::host_call(SYS_futex, arg(&word), FUTEX_WAKE_PRIVATE, 1);
    });
    EXPECT_EQ(call(SYS_futex, arg(&word), FUTEX_WAIT_PRIVATE, 1, 0), 0);
    waker.join();
}

TEST_P(Calls, RegistersAreKept) {
    uint64_t out[12];
    const End end = guest::enter(
        [&] {
            register uint64_t r12 asm("r12") = 12;
            register uint64_t r13 asm("r13") = 13;
            register uint64_t r14 asm("r14") = 14;
            register uint64_t r15 asm("r15") = 15;
            register uint64_t r8 asm("r8") = 8;
            register uint64_t r9 asm("r9") = 9;
            register uint64_t r10 asm("r10") = 10;
            register uint64_t r11 asm("r11") = 11;
            uint64_t rax = SYS_getpid, rbx = 3, rcx = 1, rdx = 2, rsi = 6, rdi = 7;
            asm volatile("vmcall"
                         : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi), "+D"(rdi),
                           "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r11), "+r"(r12), "+r"(r13),
                           "+r"(r14), "+r"(r15)
                         :
                         : "memory");
            const uint64_t seen[] = {rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14};
            for (int i = 0; i < 12; i++) {
                out[i] = seen[i];
            }
            static_cast<void>(r15);
        },
        options());
    ASSERT_TRUE(end.left()) << end;
    const uint64_t expected[] = {3, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    for (int i = 0; i < 12; i++) {
        EXPECT_EQ(out[i], expected[i]) << i;
    }
}

TEST(SlowCalls, AreTakenByTheirNumber) {
    // What works on the caller's own registers never takes the fast way.
    const dune_stats before = Machine::get().stats();
    guest::enter([] {
        guest::call(SYS_arch_prctl, 0x9999, 0);
        guest::call(SYS_clone3, 0, 0);
        guest::call(SYS_execve, 0, 0, 0);
        guest::call(SYS_execveat, -1, 0, 0);
        guest::call(SYS_modify_ldt, 99);
        guest::call(SYS_iopl, 99);
        guest::call(SYS_restart_syscall);
    });
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(after.slow_calls - before.slow_calls, 7U);
    EXPECT_EQ(after.fast_calls, before.fast_calls);
}

TEST(SlowCalls, HypercallTakesTheNumberFromR11) {
    long result = 0;
    const dune_stats before = Machine::get().stats();
    guest::enter([&] { result = guest::slow_call(SYS_getppid); });
    EXPECT_EQ(result, getppid());
    EXPECT_EQ(Machine::get().stats().slow_calls - before.slow_calls, 1U);
}

// --- who may call ---

extern "C" const char ring3_vmcall[];
asm(R"(
ring3_vmcall:
    mov $39, %eax
    vmcall
    int $0x81
)");

TEST(Ring3, VmcallIsUndefined) {
    guest::Trap trap;
    const dune_stats before = Machine::get().stats();
    const End end = guest::enter([&] { trap = guest::ring3(ring3_vmcall); }, with_traps());
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 6);
    EXPECT_EQ(trap.frame.rip, reinterpret_cast<uint64_t>(ring3_vmcall) + 5);
    EXPECT_EQ(trap.frame.cs & 3, 3U);
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(after.fast_calls + after.slow_calls, before.fast_calls + before.slow_calls);
}

TEST(Ring3, GateIsTrusted) {
    Options options = with_traps();
    options.gate = true;
    guest::Trap trap;
    const End end = guest::enter([&] { trap = guest::ring3(ring3_vmcall); }, options);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, guest::kBackVector);
    EXPECT_EQ(trap.frame.rax, static_cast<uint64_t>(getpid()));
}

TEST(Ring3, GateEndsWhereItEnds) {
    guest::Vcpu& vcpu = guest::Vcpu::get();
    guest::Trap trap;
    auto run = [&] { trap = guest::ring3(ring3_vmcall); };
    vcpu.prepare([](void* f) { (*static_cast<decltype(run)*>(f))(); }, &run, with_traps());
    vcpu.page().gate_start = reinterpret_cast<uint64_t>(ring3_vmcall) + 6;
    vcpu.page().gate_end = vcpu.page().gate_start + 100;
    ASSERT_TRUE(vcpu.run({}).left());
    EXPECT_EQ(trap.vector, 6) << "one byte before the gate";
}

}  // namespace
