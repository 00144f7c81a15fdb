// SPDX-License-Identifier: MIT
//
// The life of processes that use Dune: fork, vfork, exec, exit, kill, and many at once. The
// runner unloads the module after each case, which shows that nothing is left.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;
using guest::map;
using support::arg;
using support::fork_or_end;
using support::kPage;
using support::status_of;
using support::wait_status;

TEST(Life, ForkFromTheGuestGoesOnInBoth) {
    char* shared = static_cast<char*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    char* own = map(kPage);
    long status = 0;
    const End end = guest::enter([&] {
        *own = 1;
        const long pid = call(SYS_fork);
        if (pid == 0) {
            *own = 2;
            *shared = 7;
            call(SYS_exit_group, *own);
        }
        call(SYS_wait4, pid, arg(&status), 0, 0);
    });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(WEXITSTATUS(status), 2);
    EXPECT_EQ(*own, 1);
    EXPECT_EQ(*shared, 7);
}

TEST(Life, ForkBranchesTwentyTimes) {
    const End end = guest::enter([] {
        for (int i = 0; i < 20; i++) {
            const long pid = call(SYS_fork);
            if (pid != 0) {
                int status = -1;
                call(SYS_wait4, pid, arg(&status), 0, 0);
                if (i == 0 && status != 20 << 8) {
                    guest::leave(static_cast<uint64_t>(status));
                }
                if (i > 0) {
                    call(SYS_exit_group, status >> 8);
                }
                return;
            }
        }
        call(SYS_exit_group, 20);
    });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(end.argument, 0U);
}

TEST(Life, Clone3) {
    clone_args args = {};
    args.exit_signal = SIGCHLD;
    char* own = map(kPage);
    int status = 0, pidfd = -1;
    args.flags = CLONE_PIDFD;
    args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
    siginfo_t info = {};
    const End end = guest::enter([&] {
        const long pid = call(SYS_clone3, arg(&args), sizeof(args));
        if (pid == 0) {
            *own = 3;
            call(SYS_exit_group, *own);
        }
        call(SYS_waitid, P_PIDFD, pidfd, arg(&info), WEXITED | WNOWAIT);
        call(SYS_wait4, pid, arg(&status), 0, 0);
    });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(info.si_status, 3) << "by its pidfd";
    EXPECT_EQ(WEXITSTATUS(status), 3);
    EXPECT_EQ(*own, 0);
}

TEST(Life, Vfork) {
    volatile int shared = 0;
    int status = 0;
    const End end = guest::enter([&] {
        const long pid = call(SYS_vfork);
        if (pid == 0) {
            shared = 5;
            call(SYS_exit_group, 3);
        }
        call(SYS_wait4, pid, arg(&status), 0, 0);
    });
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(shared, 5) << "the memory is one";
    EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST(Life, ExecFromTheGuest) {
    const char* const argv[] = {"sh", "-c", "exit 17", nullptr};
    const int status =
        status_of([&] { guest::enter([&] { call(SYS_execve, arg("/bin/sh"), arg(argv), 0); }); });
    EXPECT_EQ(WEXITSTATUS(status), 17);
}

TEST(Life, AFailedExecReturns) {
    long result = 0;
    const char* const argv[] = {"x", nullptr};
    EXPECT_TRUE(
        guest::enter([&] { result = call(SYS_execve, arg("/no/such"), arg(argv), 0); }).left());
    EXPECT_EQ(result, -ENOENT);
}

TEST(Life, ExecOfOneThreadEndsTheOthers) {
    const int status = status_of([] {
        std::thread([] {
            guest::enter([] {
                for (;;) {
                    asm volatile("");
                }
            });
        }).detach();
        usleep(50'000);
        const char* const argv[] = {"sh", "-c", "exit 18", nullptr};
        guest::enter([&] { call(SYS_execve, arg("/bin/sh"), arg(argv), 0); });
    });
    EXPECT_EQ(WEXITSTATUS(status), 18);
}

TEST(Life, ExitGroupEndsAllThreads) {
    const int status = status_of([] {
        guest::Machine::get();  // opened anew by one thread, not by several at once
        for (int i = 0; i < 3; i++) {
            std::thread([i] {
                guest::enter([i] {
                    for (;;) {
                        if (i == 1) {
                            asm volatile("sti\n hlt");
                        } else if (i == 2) {
                            call(SYS_sched_yield);
                        }
                    }
                });
            }).detach();
        }
        usleep(50'000);
        guest::enter([] { call(SYS_exit_group, 6); });
    });
    EXPECT_EQ(WEXITSTATUS(status), 6);
}

TEST(Life, RebootOfItsOwnPidNamespace) {
    // To a process without rights in the machine's this is another exit.
    const auto refs = [] { return support::read_file("/sys/module/dune/refcnt"); };
    const std::string before = refs();
    const int status = status_of([] {
        if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
            _exit(99);
        }
        const int init = status_of([] {
            guest::enter([] {
                call(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_HALT,
                     0);
            });
        });
        _exit(WTERMSIG(init));
    });
    EXPECT_EQ(WEXITSTATUS(status), SIGINT);
    EXPECT_EQ(refs(), before) << "a run that never ended holds its vCPU";
}

TEST(Life, ExitOfOneThreadAlone) {
    static std::atomic<int> alive;
    const int status = status_of([] {
        std::thread([] {
            guest::enter([] {
                alive = 1;
                call(SYS_exit, 0);
            });
        }).detach();
        usleep(100'000);
        _exit(alive == 1 && guest::enter([] {}).left() ? 5 : 1);
    });
    EXPECT_EQ(WEXITSTATUS(status), 5);
}

// --- kill -9 ---

template <typename F>
void expect_killable(F&& guest_code, int threads = 1) {
    for (const int delay : {3'000, 20'000, 60'000}) {
        const pid_t pid = fork_or_end();
        if (pid == 0) {
            guest::Machine::get();  // opened anew by one thread, not by several at once
            for (int i = 1; i < threads; i++) {
                std::thread([&] { guest::enter(guest_code); }).detach();
            }
            guest::enter(guest_code);
            _exit(99);
        }
        usleep(static_cast<unsigned>(delay) + 30'000);
        kill(pid, SIGKILL);
        const int status = wait_status(pid);
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << std::hex << status;
    }
}

TEST(Kill, InTheGuest) {
    expect_killable(
        [] {
            for (;;) {
                asm volatile("");
            }
        },
        3);
}

TEST(Kill, InSystemCalls) {
    expect_killable(
        [] {
            for (;;) {
                call(SYS_getpid);
                guest::slow_call(SYS_getpid);
            }
        },
        3);
}

TEST(Kill, InASleepingCall) {
    expect_killable([] { call(SYS_pause); });
    expect_killable([] {
        const timespec long_time = {1000, 0};
        call(SYS_nanosleep, arg(&long_time), 0);
    });
}

TEST(Kill, InEptFaults) {
    char* p = map(64 << 20);
    madvise(p, 64 << 20, MADV_NOHUGEPAGE);
    expect_killable([&] {
        for (;;) {
            for (size_t i = 0; i < 32 << 20; i += kPage) {
                p[i] = 1;
            }
            call(SYS_madvise, arg(p), 64 << 20, MADV_DONTNEED);
        }
    });
    // Repeated, these would join to one mapping larger than the machine: Linux then forks no more.
    munmap(p, 64 << 20);
}

TEST(Kill, InMunmapByAnotherThread) {
    for (int i = 0; i < 3; i++) {
        const pid_t pid = fork_or_end();
        if (pid == 0) {
            char* p = map(8 << 20);
            madvise(p, 8 << 20, MADV_NOHUGEPAGE);
            std::thread([p] {
                for (;;) {
                    static_cast<void>(mmap(p, 8 << 20, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
                }
            }).detach();
            guest::enter([p] {
                for (;;) {
                    for (size_t j = 0; j < 8 << 20; j += kPage) {
                        p[j] = 1;
                    }
                }
            });
            _exit(99);
        }
        usleep(100'000);
        kill(pid, SIGKILL);
        const int status = wait_status(pid);
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << std::hex << status;
    }
}

TEST(Kill, ASignalWithoutAHandlerKills) {
    const int status = status_of([] {
        alarm(1);
        guest::enter([] {
            for (;;) {
                asm volatile("");
            }
        });
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) << status;
}

TEST(Kill, StopAndContinue) {
    const pid_t pid = fork_or_end();
    if (pid == 0) {
        const End end = guest::enter([] {
            for (int i = 0; i < 300; i++) {
                const timespec moment = {0, 1'000'000};
                call(SYS_nanosleep, arg(&moment), 0);
            }
        });
        _exit(end.left() ? 4 : 1);
    }
    for (int i = 0; i < 3; i++) {
        usleep(30'000);
        kill(pid, SIGSTOP);
        int status = 0;
        waitpid(pid, &status, WUNTRACED);
        EXPECT_TRUE(WIFSTOPPED(status));
        kill(pid, SIGCONT);
    }
    EXPECT_EQ(WEXITSTATUS(wait_status(pid)), 4);
}

// --- memory limits ---

class Cgroup {
  public:
    explicit Cgroup(const std::string& name) : path_("/sys/fs/cgroup/" + name) {
        static_cast<void>(!system(
            "grep -q ' /sys/fs/cgroup ' /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup"));
        std::ofstream("/sys/fs/cgroup/cgroup.subtree_control") << "+memory";
        ok_ = mkdir(path_.c_str(), 0755) == 0 && access((path_ + "/memory.max").c_str(), W_OK) == 0;
    }
    ~Cgroup() { rmdir(path_.c_str()); }
    bool ok() const { return ok_; }
    void set(const char* file, const std::string& value) const {
        std::ofstream(path_ + "/" + file) << value;
    }
    uint64_t get(const char* file) const {
        uint64_t value = 0;
        std::ifstream(path_ + "/" + file) >> value;
        return value;
    }

  private:
    std::string path_;
    bool ok_ = false;
};

TEST(Cgroups, OomKillInTheGuest) {
    const Cgroup group("dune-oom");
    if (!group.ok()) {
        GTEST_SKIP() << "no memory cgroups";
    }
    group.set("memory.max", "16777216");
    group.set("memory.swap.max", "0");
    const int status = status_of([&] {
        group.set("cgroup.procs", "0");
        char* p = map(64 << 20);
        guest::enter([&] {
            for (size_t i = 0; i < 64 << 20; i += kPage) {
                p[i] = 1;
            }
        });
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << std::hex << status;
}

TEST(Cgroups, EptTablesAreCharged) {
    const Cgroup group("dune-charge");
    if (!group.ok()) {
        GTEST_SKIP() << "no memory cgroups";
    }
    // Reading one page of each 2 MiB of an untouched area costs a page table and an EPT table
    // each, and no memory: only the tables are charged.
    int pipes[2][2];
    ASSERT_EQ(pipe(pipes[0]) | pipe(pipes[1]), 0);
    const pid_t pid = fork_or_end();
    if (pid == 0) {
        group.set("cgroup.procs", "0");
        char byte = 0;
        constexpr size_t kSize = 256UL << 21;
        char* p = map(kSize, PROT_READ, MAP_NORESERVE);
        madvise(p, kSize, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < kSize; i += 2 << 20) {
            static_cast<void>(*const_cast<volatile char*>(p + i));
        }
        static_cast<void>(!write(pipes[0][1], "x", 1));
        static_cast<void>(!read(pipes[1][0], &byte, 1));
        guest::enter([&] {
            for (size_t i = 0; i < kSize; i += 2 << 20) {
                static_cast<void>(*const_cast<volatile char*>(p + i));
            }
        });
        static_cast<void>(!write(pipes[0][1], "x", 1));
        static_cast<void>(!read(pipes[1][0], &byte, 1));
        _exit(Machine::get().stats().ept_bytes >= 256 * kPage ? 0 : 1);
    }
    char byte;
    ASSERT_EQ(read(pipes[0][0], &byte, 1), 1);
    const uint64_t before = group.get("memory.current");
    ASSERT_EQ(write(pipes[1][1], "x", 1), 1);
    ASSERT_EQ(read(pipes[0][0], &byte, 1), 1);
    const uint64_t after = group.get("memory.current");
    ASSERT_EQ(write(pipes[1][1], "x", 1), 1);
    EXPECT_EQ(wait_status(pid), 0);
    EXPECT_GE(after - before, 200 * kPage);
}

TEST(Cgroups, AFrozenGuestStandsStill) {
    const Cgroup group("dune-freeze");
    if (!group.ok()) {
        GTEST_SKIP() << "no control groups of version 2";
    }
    auto* rounds = static_cast<std::atomic<uint64_t>*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const pid_t pid = fork_or_end();
    if (pid == 0) {
        guest::Machine::get();  // opened anew by one thread, not by several at once
        // One spins, one makes calls, one sleeps.
        std::thread([] { guest::enter([] { call(SYS_pause); }); }).detach();
        std::thread([&] {
            guest::enter([&] {
                for (;;) {
                    call(SYS_getppid);
                    rounds[1]++;
                }
            });
        }).detach();
        guest::enter([&] {
            for (;;) {
                rounds[0]++;
            }
        });
        _exit(99);
    }
    const auto both = [&] { return std::pair(rounds[0].load(), rounds[1].load()); };
    const auto goes_on = [&] {
        const auto then = both();
        for (int i = 0; i < 2000; i++) {
            const auto now = both();
            if (now.first > then.first && now.second > then.second) {
                return true;
            }
            usleep(1000);
        }
        return false;
    };
    const auto frozen = [&] {
        return support::number_in("/sys/fs/cgroup/dune-freeze/cgroup.events", "frozen");
    };
    group.set("cgroup.procs", std::to_string(pid));
    EXPECT_TRUE(goes_on());
    for (int i = 0; i < 3; i++) {
        group.set("cgroup.freeze", "1");
        for (int ms = 0; ms < 5000 && frozen() == 0; ms++) {
            usleep(1000);
        }
        ASSERT_EQ(frozen(), 1U) << "each thread of it";
        const auto then = both();
        usleep(30'000);
        EXPECT_EQ(both(), then);
        if (i < 2) {
            group.set("cgroup.freeze", "0");
            EXPECT_TRUE(goes_on());
        }
    }
    kill(pid, SIGKILL);
    EXPECT_EQ(WTERMSIG(wait_status(pid)), SIGKILL) << "while it is frozen";
    munmap(rounds, kPage);
}

// --- the module ---

TEST(Module, StaysWhileItIsUsed) {
    const auto unload = [](auto make) {
        return make(SYS_delete_module, arg("dune"), O_NONBLOCK, 0, 0, 0, 0);
    };
    long from_guest = 0;
    ASSERT_TRUE(guest::enter([&] { from_guest = unload(call); }).left());
    EXPECT_EQ(from_guest, -EAGAIN);
    EXPECT_EQ(unload(guest::host_call), -EAGAIN);
    // A process that has forgotten its files, and has only a mapping of a vCPU left.
    EXPECT_EQ(status_of([&] {
                  guest::Vcpu& vcpu = guest::Vcpu::get();
                  close(vcpu.fd());
                  close(Machine::get().fd());
                  _exit(unload(guest::host_call) == -EAGAIN && vcpu.page().rip == 0 ? 0 : 1);
              }),
              0);
}

// --- many ---

TEST(Many, ProcessesOneAfterTheOther) {
    for (int i = 0; i < 50; i++) {
        ASSERT_EQ(status_of([] { _exit(guest::enter([] { call(SYS_getpid); }).left() ? 0 : 1); }),
                  0)
            << i;
    }
}

}  // namespace
