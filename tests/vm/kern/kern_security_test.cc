// SPDX-License-Identifier: MIT
//
// What watches or forbids system calls holds for those made from the guest: seccomp, ptrace,
// syscall user dispatch. And restartable sequences are aborted as on the host.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "guest.h"
#include "rseq_section.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::call;
using guest::End;
using support::arg;
using support::status_of;
using support::wait_status;

// A filter that does `action` for getppid() and lets all else pass.
struct Filter {
    explicit Filter(uint32_t action)
        : code{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
               BPF_STMT(BPF_RET | BPF_K, action), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)} {}
    // By a host call, or from the guest.
    long install(bool from_guest, unsigned flags = 0) {
        const auto make = from_guest ? call : guest::host_call;
        make(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
        return make(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, arg(&program), 0, 0, 0);
    }
    sock_filter code[4];
    sock_fprog program = {4, code};
};

// Both orders: the filter is there before the guest is entered, or set from inside.
class Seccomp : public testing::TestWithParam<bool> {
  protected:
    bool inside() const { return GetParam(); }

    // Runs the filter and getppid() in a child; `check` gets the result, in the child.
    template <typename F>
    int run(uint32_t action, F&& check) {
        return status_of([&] {
            Filter filter(action);
            long result = -12345;
            if (!inside() && filter.install(false) != 0) {
                _exit(97);
            }
            const End end = guest::enter([&] {
                if (inside() && filter.install(true) != 0) {
                    guest::leave(98);
                }
                result = call(SYS_getppid);
            });
            _exit(end.left() && end.argument == 0 ? check(result) : 96);
        });
    }
};

INSTANTIATE_TEST_SUITE_P(Set, Seccomp, testing::Bool(), [](const auto& info) {
    return info.param ? "FromTheGuest" : "BeforeEntry";
});

TEST_P(Seccomp, ErrnoWithData) {
    const int status =
        run(SECCOMP_RET_ERRNO | 77, [](long result) { return result == -77 ? 0 : 1; });
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST_P(Seccomp, KillProcess) {
    const int status = run(SECCOMP_RET_KILL_PROCESS, [](long) { return 1; });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << std::hex << status;
}

TEST_P(Seccomp, KillThread) {
    const int status = run(SECCOMP_RET_KILL_THREAD, [](long) { return 1; });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << std::hex << status;
}

volatile int trapped;

TEST_P(Seccomp, Trap) {
    trapped = 0;
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        trapped = info->si_syscall == SYS_getppid && info->si_errno == 5;
    };
    sigaction(SIGSYS, &action, nullptr);
    const int status = run(SECCOMP_RET_TRAP | 5, [](long) { return trapped ? 0 : 1; });
    EXPECT_EQ(status, 0) << std::hex << status;
    signal(SIGSYS, SIG_DFL);
}

TEST_P(Seccomp, Log) {
    const int status =
        run(SECCOMP_RET_LOG, [](long result) { return result == getppid() ? 0 : 1; });
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST_P(Seccomp, UserNotification) {
    const int status = status_of([&] {
        Filter filter(SECCOMP_RET_USER_NOTIF);
        std::atomic<long> listener = -1;
        std::thread supervisor([&] {
            while (listener < 0) {
                usleep(1000);
            }
            const int fd = static_cast<int>(listener);
            seccomp_notif request = {};
            if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0 ||
                request.data.nr != SYS_getppid) {
                _exit(95);
            }
            seccomp_notif_resp response = {};
            response.id = request.id;
            response.val = 4711;
            ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response);
        });
        long result = 0;
        if (!inside()) {
            listener = filter.install(false, SECCOMP_FILTER_FLAG_NEW_LISTENER);
        }
        const End end = guest::enter([&] {
            if (inside()) {
                listener = filter.install(true, SECCOMP_FILTER_FLAG_NEW_LISTENER);
            }
            result = call(SYS_getppid);
        });
        supervisor.join();
        _exit(end.left() && result == 4711 ? 0 : 1);
    });
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST(SeccompOfAnotherThread, HoldsAtOnce) {
    // TSYNC: the thread in the guest gets the filter while it makes fast calls.
    const int status = status_of([] {
        std::atomic<long> result = 0;
        std::atomic<bool> started = false, stop = false;
        std::thread guest_thread([&] {
            guest::enter([&] {
                started = true;
                while (!stop) {
                    const long ppid = call(SYS_getppid);
                    if (ppid < 0) {
                        result = ppid;
                        return;
                    }
                }
            });
        });
        while (!started) {
            usleep(1000);
        }
        Filter filter(SECCOMP_RET_ERRNO | 66);
        if (filter.install(false, SECCOMP_FILTER_FLAG_TSYNC) != 0) {
            _exit(97);
        }
        for (int i = 0; i < 200 && result == 0; i++) {
            usleep(5000);
        }
        stop = true;
        guest_thread.join();
        _exit(result == -66 ? 0 : 1);
    });
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST(SeccompStrict, Kills) {
    const int status = status_of([] {
        guest::enter([] {
            call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
            call(SYS_getppid);
        });
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << std::hex << status;
}

TEST(UserDispatch, SeesTheGuestsCalls) {
    // With the selector at BLOCK each call outside a range is a SIGSYS; the trampoline's own
    // calls are made from that range here, as from a signal handler that lets them pass.
    const int status = status_of([] {
        static volatile char selector;
        static volatile int got;
        struct sigaction action = {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t* info, void*) {
            selector = 0;
            got = info->si_syscall;
        };
        sigaction(SIGSYS, &action, nullptr);
        guest::Options options;
        options.door = true;  // no system call of the trampoline's comes between
        guest::enter(
            [] {
                call(SYS_prctl, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0,
                     arg(const_cast<char*>(&selector)));
                selector = 1;
                call(SYS_getppid);
            },
            options);
        _exit(got == SYS_getppid ? 0 : 1);
    });
    EXPECT_EQ(status, 0) << std::hex << status;
}

// --- ptrace ---

TEST(Ptrace, SeesTheGuestsSystemCalls) {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        long result = 0;
        const End end = guest::enter([&] {
            for (int i = 0; i < 5; i++) {
                result += call(SYS_getppid) > 0;
            }
        });
        _exit(end.left() && result == 5 ? 0 : 1);
    }
    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    int seen = 0;
    for (;;) {
        ptrace(PTRACE_SYSCALL, pid, 0, 0);
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            break;
        }
        if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            user_regs_struct regs;
            ptrace(PTRACE_GETREGS, pid, 0, &regs);
            seen += regs.orig_rax == SYS_getppid;
        }
    }
    EXPECT_EQ(status, 0) << std::hex << status;
    EXPECT_EQ(seen, 10) << "five calls, at entry and at exit";
}

TEST(Ptrace, AttachLookAndDetach) {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        static volatile uint64_t spins;
        alarm(20);
        guest::enter([] {
            for (;;) {
                spins = spins + 1;
            }
        });
        _exit(1);
    }
    usleep(100'000);
    int status;
    for (int i = 0; i < 3; i++) {
        ASSERT_EQ(ptrace(PTRACE_ATTACH, pid, 0, 0), 0) << strerror(errno);
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFSTOPPED(status));
        user_regs_struct regs;
        EXPECT_EQ(ptrace(PTRACE_GETREGS, pid, 0, &regs), 0);
        EXPECT_EQ(regs.rip >> 47, 0U) << "the trampoline, in host mode";
        ASSERT_EQ(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
        usleep(20'000);
        EXPECT_EQ(waitpid(pid, &status, WNOHANG), 0) << "it goes on";
    }
    kill(pid, SIGKILL);
    EXPECT_EQ(WTERMSIG(wait_status(pid)), SIGKILL);
}

// --- restartable sequences ---

TEST(Rseq, PreemptedSectionsAreAborted) {
    int aborted = 0, rounds = 0;
    const dune::vmtest::Rival rival;
    const rseq_cs section = dune::vmtest::rseq_wait_section();
    const int status = status_of([&] {
        // The C library's, or, where that registered none, one of ours.
        alignas(32) static struct rseq area;
        struct rseq* mine = &area;
        if (__rseq_size != 0) {
            mine = reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                                  __rseq_offset);
        } else if (syscall(SYS_rseq, &area, sizeof(area), 0, dune::vmtest::kRseqSignature) != 0) {
            _exit(77);
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(0, &one);
        sched_setaffinity(rival.pid(), sizeof(one), &one);
        sched_setaffinity(0, sizeof(one), &one);
        const End end = guest::enter([&] {
            auto* pointer = reinterpret_cast<uint64_t*>(&mine->rseq_cs);
            for (int i = 0; i < 200; i++) {
                rounds++;
                // Long enough that a rival on the same CPU gets its turn.
                aborted += dune::vmtest::rseq_wait(pointer, &section, 2'000'000'000) == 1;
            }
        });
        _exit(end.left() && rounds == 200 && aborted == 200 ? 0 : 1);
    });
    if (WEXITSTATUS(status) == 77) {
        GTEST_SKIP() << "no rseq";
    }
    EXPECT_EQ(status, 0) << std::hex << status;
}

}  // namespace
