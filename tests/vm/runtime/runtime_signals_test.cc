// SPDX-License-Identifier: MIT
// Linux signals in Dune mode.
#include <pthread.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "support.h"

namespace {

using namespace dune::test;

std::atomic<int> hits;
volatile int privilege;
siginfo_t info_seen;

class RuntimeSignals : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        hits = 0;
        privilege = -1;
    }
    void TearDown() override {
        const itimerval off = {};
        setitimer(ITIMER_REAL, &off, nullptr);
        for (const int sig : {SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGRTMIN, SIGRTMAX}) {
            dune_register_signal_handler(sig, nullptr);
            signal(sig, SIG_DFL);
        }
    }
};

void count(int) {
    ++hits;
    privilege = read_cs() & 3;
}

void install(int sig, int flags, void (*handler)(int) = count) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    ASSERT_EQ(sigaction(sig, &action, nullptr), 0);
}

void alarm_in(int microseconds) {
    const itimerval timer = {{0, 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, nullptr);
}

TEST_F(RuntimeSignals, HandlerRunsInRing0) {
    install(SIGUSR1, 0);
    raise(SIGUSR1);
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(privilege, 0);
    kill(getpid(), SIGUSR1);
    EXPECT_EQ(hits, 2);
}

TEST_F(RuntimeSignals, SiginfoAndContext) {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void* context) {
        info_seen = *info;
        auto* const uc = static_cast<ucontext_t*>(context);
        hits = uc->uc_mcontext.gregs[REG_RIP] != 0 && uc->uc_mcontext.fpregs != nullptr ? 1 : -1;
    };
    sigaction(SIGRTMIN, &action, nullptr);
    const sigval value = {.sival_int = 1234};
    ASSERT_EQ(sigqueue(getpid(), SIGRTMIN, value), 0);
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(info_seen.si_signo, SIGRTMIN);
    EXPECT_EQ(info_seen.si_value.sival_int, 1234);
    EXPECT_EQ(info_seen.si_pid, getpid());
}

TEST_F(RuntimeSignals, AllRealTimeSignals) {
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; ++sig)
        install(sig, 0);
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; ++sig)
        raise(sig);
    EXPECT_EQ(hits, SIGRTMAX - SIGRTMIN + 1);
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; ++sig)
        signal(sig, SIG_DFL);
}

TEST_F(RuntimeSignals, QueuedSignalsAreNotLost) {
    install(SIGRTMIN, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    for (int i = 0; i < 20; ++i)
        raise(SIGRTMIN);
    EXPECT_EQ(hits, 0);
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    EXPECT_EQ(hits, 20);
}

TEST_F(RuntimeSignals, InterruptedCallSaysEintr) {
    install(SIGALRM, 0);
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    alarm_in(5000);
    char c;
    EXPECT_EQ(read(fds[0], &c, 1), -1);
    EXPECT_EQ(errno, EINTR);
    EXPECT_EQ(hits, 1);
    alarm_in(5000);
    const timespec second = {1, 0};
    timespec rest = {};
    EXPECT_EQ(nanosleep(&second, &rest), -1);
    EXPECT_EQ(errno, EINTR);
    EXPECT_GT(rest.tv_nsec, 0);
    alarm_in(5000);
    EXPECT_EQ(pause(), -1);
    EXPECT_EQ(errno, EINTR);
    close(fds[0]);
    close(fds[1]);
}

int write_fd;

TEST_F(RuntimeSignals, InterruptedCallIsRestarted) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    write_fd = fds[1];
    install(SIGALRM, SA_RESTART, [](int) {
        ++hits;
        // A timer that goes on may leave no time for the call, as where strace stops each handler.
        if (hits < 3)
            alarm_in(3000);
        else if (write(write_fd, "x", 1) != 1)
            hits = 1000;
    });
    alarm_in(3000);
    char c = 0;
    EXPECT_EQ(read(fds[0], &c, 1), 1);
    EXPECT_EQ(c, 'x');
    EXPECT_EQ(hits, 3);
    close(fds[0]);
    close(fds[1]);
}

TEST_F(RuntimeSignals, NoWakeupIsLost) {
    install(SIGALRM, 0);
    for (int i = 0; i < 300; ++i) {
        const int before = hits;
        alarm_in(1 + i % 200);
        // The signal may come anywhere between here and the sleep: the mask decides.
        sigset_t all;
        sigset_t none;
        sigfillset(&all);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &all, nullptr);
        if (hits == before)
            sigsuspend(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        ASSERT_EQ(hits, before + 1);
    }
}

TEST_F(RuntimeSignals, BlockedDuringItsHandler) {
    install(SIGUSR1, 0, [](int) {
        const int now = ++hits;
        if (now == 1)
            raise(SIGUSR1);
        if (now == 1 && hits != 1)
            hits = 100;
    });
    raise(SIGUSR1);
    EXPECT_EQ(hits, 2);
}

TEST_F(RuntimeSignals, HandlersNest) {
    install(SIGUSR2, 0);
    install(SIGUSR1, 0, [](int) {
        ++hits;
        raise(SIGUSR2);
        if (hits != 2)
            hits = 100;
    });
    raise(SIGUSR1);
    EXPECT_EQ(hits, 2);
}

TEST_F(RuntimeSignals, MaskIsRestored) {
    install(SIGUSR1, 0);
    sigset_t before;
    sigset_t after;
    sigprocmask(SIG_SETMASK, nullptr, &before);
    raise(SIGUSR1);
    sigprocmask(SIG_SETMASK, nullptr, &after);
    for (int sig = 1; sig < 65; ++sig)
        EXPECT_EQ(sigismember(&before, sig), sigismember(&after, sig)) << sig;
}

sigjmp_buf back;

TEST_F(RuntimeSignals, JumpOutOfAHandler) {
    install(SIGUSR1, 0, [](int) {
        ++hits;
        siglongjmp(back, 1);
    });
    for (int i = 0; i < 100; ++i) {
        if (sigsetjmp(back, 1) == 0)
            raise(SIGUSR1);
        ASSERT_EQ(hits, i + 1);
    }
}

TEST_F(RuntimeSignals, MaskedInterruptsWait) {
    install(SIGUSR1, 0);
    cli();
    raise(SIGUSR1);
    const int masked = hits;
    sti();
    EXPECT_EQ(masked, 0);
    for (int i = 0; hits == 0 && i < 1000; ++i)
        getppid();
    EXPECT_EQ(hits, 1);
}

bool is_blocked(int sig) {
    sigset_t now;
    sigprocmask(SIG_SETMASK, nullptr, &now);
    return sigismember(&now, sig) != 0;
}

void unblock_all() {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
}

/** One waits for interrupts; a second finds signals unblocked by the program. */
TEST_F(RuntimeSignals, MaskedInterruptsLoseNone) {
    install(SIGUSR1, 0);
    install(SIGUSR2, 0, [](int) { hits += 100; });
    cli();
    raise(SIGUSR1);
    unblock_all();
    raise(SIGUSR2);
    unblock_all();
    sti();
    for (int i = 0; hits != 101 && i < 1000; ++i)
        getppid();
    EXPECT_EQ(hits, 101);
    EXPECT_FALSE(is_blocked(SIGUSR1) || is_blocked(SIGUSR2) || is_blocked(SIGTERM));
}

TEST_F(RuntimeSignals, LeavingWhileOneWaits) {
    for (const int flags : {0, static_cast<int>(SA_RESETHAND)}) {
        const Outcome outcome = in_child([flags] {
            install(SIGUSR1, flags);
            cli();
            raise(SIGUSR1);
            if (hits != 0 || dune_leave() != 0)
                return 1;
            return hits == 1 && privilege == 3 && !is_blocked(SIGUSR1) && !is_blocked(SIGTERM) ? 0
                                                                                               : 2;
        });
        EXPECT_TRUE(outcome.exited(0)) << flags << ": " << outcome.status << outcome.stderr_;
    }
}

TEST_F(RuntimeSignals, LeavingAndEnteringInAStorm) {
    install(SIGALRM, 0);
    const itimerval often = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &often, nullptr);
    for (int i = 0; i < 100 || hits < 20; ++i) {
        ASSERT_LT(i, 20000);
        ASSERT_EQ(dune_leave(), 0);
        ASSERT_EQ(dune_enter(), 0);
    }
    const itimerval off = {};
    setitimer(ITIMER_REAL, &off, nullptr);
    EXPECT_FALSE(is_blocked(SIGALRM) || is_blocked(SIGTERM));
}

/** Calls that libdune answers itself. */
TEST_F(RuntimeSignals, BadPointersAreErrors) {
    for (const std::uintptr_t bad :
         {std::uintptr_t{16}, std::uintptr_t{0x600000000000}, std::uintptr_t{0x8000000000000000}}) {
        constexpr int kGetFs = 0x1003;
        constexpr int kSet = 8;
        errno = 0;
        EXPECT_EQ(syscall(SYS_rt_sigaction, SIGUSR1, bad, nullptr, kSet), -1);
        EXPECT_EQ(errno, EFAULT);
        errno = 0;
        EXPECT_EQ(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, bad, kSet), -1);
        EXPECT_EQ(errno, EFAULT);
        errno = 0;
        EXPECT_EQ(syscall(SYS_sigaltstack, bad, nullptr), -1);
        EXPECT_EQ(errno, EFAULT);
        errno = 0;
        EXPECT_EQ(syscall(SYS_sigaltstack, nullptr, bad), -1);
        EXPECT_EQ(errno, EFAULT);
        errno = 0;
        EXPECT_EQ(syscall(SYS_arch_prctl, kGetFs, bad), -1);
        EXPECT_EQ(errno, EFAULT);
    }
    EXPECT_GT(getppid(), 0);
}

TEST_F(RuntimeSignals, InterruptHandler) {
    ASSERT_EQ(dune_register_signal_handler(SIGUSR1,
                                           [](dune_tf* tf) {
                                               ++hits;
                                               privilege = static_cast<int>(tf->cs & 3);
                                           }),
              0);
    raise(SIGUSR1);
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(privilege, 0);
    ASSERT_EQ(dune_register_signal_handler(SIGRTMAX, [](dune_tf*) { ++hits; }), 0);
    raise(SIGRTMAX);
    EXPECT_EQ(hits, 2);
    EXPECT_EQ(dune_register_signal_handler(SIGKILL, [](dune_tf*) {}), -EINVAL);
    EXPECT_EQ(dune_register_signal_handler(65, [](dune_tf*) {}), -EINVAL);
}

TEST_F(RuntimeSignals, DuneSignal) {
    EXPECT_NE(dune_signal(SIGUSR1, count), SIG_ERR);
    raise(SIGUSR1);
    EXPECT_EQ(hits, 1);
    EXPECT_EQ(dune_signal(SIGUSR1, SIG_DFL), count);
    EXPECT_EQ(dune_signal(SIGKILL, count), SIG_ERR);
}

TEST_F(RuntimeSignals, OldActionsAreReported) {
    install(SIGUSR1, SA_RESTART);
    struct sigaction old = {};
    ASSERT_EQ(sigaction(SIGUSR1, nullptr, &old), 0);
    EXPECT_EQ(old.sa_handler, count);
    EXPECT_NE(old.sa_flags & SA_RESTART, 0);
    EXPECT_EQ(signal(SIGUSR1, SIG_IGN), count);
    raise(SIGUSR1);
    EXPECT_EQ(hits, 0);
    EXPECT_EQ(signal(SIGUSR1, SIG_DFL), SIG_IGN);
}

TEST_F(RuntimeSignals, OneShot) {
    const Outcome outcome = in_child([] {
        install(SIGUSR1, static_cast<int>(SA_RESETHAND));
        raise(SIGUSR1);
        if (hits != 1)
            return 1;
        raise(SIGUSR1);
        return 2;
    });
    EXPECT_TRUE(outcome.killed(SIGUSR1)) << outcome.status;
}

TEST_F(RuntimeSignals, DefaultActions) {
    for (const int sig : {SIGTERM, SIGINT, SIGKILL, SIGUSR2, SIGPROF})
        EXPECT_TRUE(in_child([sig] {
                        raise(sig);
                        return 0;
                    }).killed(sig));
    EXPECT_TRUE(in_child([]() -> int { abort(); }).killed(SIGABRT));
}

TEST_F(RuntimeSignals, KilledWhileSpinning) {
    const pid_t pid = fork();
    if (pid == 0) {
        if (dune_enter() != 0)
            _exit(1);
        for (;;)
            cpu_relax();
    }
    usleep(20000);
    kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(RuntimeSignals, StopAndContinue) {
    const pid_t pid = fork();
    if (pid == 0) {
        if (dune_enter() != 0)
            _exit(1);
        const timespec time = {0, 50'000'000};
        _exit(nanosleep(&time, nullptr) == 0 ? 5 : 6);
    }
    usleep(10000);
    int status = 0;
    kill(pid, SIGSTOP);
    ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    EXPECT_TRUE(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 5);
}

TEST_F(RuntimeSignals, ChildEndIsASignal) {
    install(SIGCHLD, 0);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    for (int i = 0; hits == 0 && i < 1000; ++i)
        usleep(100);
    EXPECT_EQ(hits, 1);
}

TEST_F(RuntimeSignals, HandlerFromBeforeDuneMode) {
    const Outcome outcome = in_child([] {
        if (dune_leave() != 0)
            return 1;
        install(SIGUSR1, 0);
        raise(SIGUSR1);
        if (hits != 1 || privilege != 3)
            return 2;
        if (dune_enter() != 0)
            return 3;
        raise(SIGUSR1);
        return hits == 2 && privilege == 0 ? 0 : 4;
    });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

/** In a child: do something in host mode, between dune_leave() and dune_enter(), then the rest. */
Outcome around_host_mode(const std::function<void()>& before, const std::function<void()>& in_host,
                         const std::function<int()>& after) {
    return in_child([&] {
        before();
        if (dune_leave() != 0)
            return 101;
        in_host();
        return dune_enter() != 0 ? 102 : after();
    });
}

TEST_F(RuntimeSignals, HandlerOfARealTimeSignalInstalledInHostMode) {
    for (const int sig : {SIGRTMIN, SIGRTMAX}) {
        const Outcome outcome = around_host_mode([] {}, [sig] { install(sig, 0); },
                                                 [sig] {
                                                     raise(sig);
                                                     return hits == 1 && privilege == 0 ? 0 : 1;
                                                 });
        EXPECT_TRUE(outcome.exited(0)) << sig << outcome.stderr_;
    }
}

TEST_F(RuntimeSignals, HandlerReplacedInHostMode) {
    static volatile int others;
    static volatile unsigned ring;
    const auto other = [](int) {
        others = others + 1;
        ring = read_cs() & 3;
    };
    const Outcome outcome =
        around_host_mode([] { install(SIGUSR1, 0); }, [other] { signal(SIGUSR1, other); },
                         [] {
                             raise(SIGUSR1);
                             return hits == 0 && others == 1 ? ring : 1U;
                         });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeSignals, HandlerRemovedInHostMode) {
    const Outcome outcome =
        around_host_mode([] { install(SIGUSR1, 0); }, [] { signal(SIGUSR1, SIG_DFL); },
                         [] { return raise(SIGUSR1); });
    EXPECT_TRUE(outcome.killed(SIGUSR1)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeSignals, SignalIgnoredInHostMode) {
    const Outcome outcome =
        around_host_mode([] { install(SIGUSR1, 0); }, [] { signal(SIGUSR1, SIG_IGN); },
                         [] {
                             raise(SIGUSR1);
                             struct sigaction now = {};
                             sigaction(SIGUSR1, nullptr, &now);
                             return hits == 0 && now.sa_handler == SIG_IGN ? 0 : 1;
                         });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

}  // namespace
