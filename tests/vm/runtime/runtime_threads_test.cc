// SPDX-License-Identifier: MIT
// Threads in Dune mode, and interrupts between them.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "support.h"

namespace {

using namespace dune::test;

using RuntimeThreads = RuntimeTest;

thread_local int local = 17;

TEST_F(RuntimeThreads, NewThreadsStartInHostModeAndEnter) {
    for (int i = 0; i < 10; ++i) {
        int before = -1;
        int result = -1;
        int after = -1;
        int value = 0;
        std::thread([&] {
            before = read_cs() & 3;
            result = dune_enter();
            after = read_cs() & 3;
            value = local++;
        }).join();
        EXPECT_EQ(before, 3);
        EXPECT_EQ(result, 0);
        EXPECT_EQ(after, 0);
        EXPECT_EQ(value, 17);
    }
    EXPECT_EQ(local, 17);
}

int open_files() {
    int n = 0;
    for (int fd = 0; fd < 1024; ++fd)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

TEST_F(RuntimeThreads, ManyAtOnceAndNothingIsLeft) {
    const auto count_maps = [] {
        std::ifstream maps("/proc/self/maps");
        std::string line;
        int n = 0;
        while (std::getline(maps, line))
            n += line.find("anon_inode") != std::string::npos;
        return n;
    };
    const int files = open_files();
    const int maps = count_maps();
    std::atomic<int> entered{0};
    for (int round = 0; round < 3; ++round) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 64; ++i)
            threads.emplace_back([&] {
                if (dune_enter() == 0 && dune_in_guest())
                    ++entered;
                for (int k = 0; k < 20; ++k)
                    sched_yield();
            });
        for (auto& thread : threads)
            thread.join();
    }
    EXPECT_EQ(entered, 3 * 64);
    EXPECT_EQ(open_files(), files);
    EXPECT_EQ(count_maps(), maps);
}

TEST_F(RuntimeThreads, LocksAndConditions) {
    std::atomic<int> sum{0};
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int plain = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            ASSERT_EQ(dune_enter(), 0);
            for (int k = 0; k < 2000; ++k) {
                pthread_mutex_lock(&mutex);
                ++plain;
                pthread_mutex_unlock(&mutex);
                ++sum;
            }
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(plain, 8000);
    EXPECT_EQ(sum, 8000);
}

TEST_F(RuntimeThreads, ExitGroupEndsThoseInTheGuest) {
    const Outcome outcome = in_child([] {
        for (int i = 0; i < 3; ++i)
            std::thread([] {
                if (dune_enter() == 0)
                    for (;;)
                        cpu_relax();
            }).detach();
        usleep(5000);
        return 9;
    });
    EXPECT_TRUE(outcome.exited(9)) << outcome.status;
}

TEST_F(RuntimeThreads, SignalsFindTheirThread) {
    static std::atomic<int> tid;
    struct sigaction action = {};
    action.sa_handler = [](int) { tid = static_cast<int>(syscall(SYS_gettid)); };
    sigaction(SIGUSR1, &action, nullptr);
    std::atomic<bool> stop{false};
    std::atomic<int> thread_tid{0};
    std::thread other([&] {
        ASSERT_EQ(dune_enter(), 0);
        thread_tid = static_cast<int>(syscall(SYS_gettid));
        while (!stop)
            sched_yield();
    });
    while (thread_tid == 0)
        sched_yield();
    tid = 0;
    pthread_kill(other.native_handle(), SIGUSR1);
    for (int i = 0; tid == 0 && i < 10000; ++i)
        sched_yield();
    EXPECT_EQ(tid, thread_tid);
    stop = true;
    other.join();
    signal(SIGUSR1, SIG_DFL);
}

std::atomic<int> entered;
std::atomic<int> destroyed;
int never_written[2];

/** The thread is unwound from within the system call, as C++ wants it. */
TEST_F(RuntimeThreads, CancelledInASystemCall) {
    ASSERT_EQ(pipe(never_written), 0);
    entered = destroyed = 0;
    pthread_t thread;
    const auto body = [](void*) -> void* {
        const struct Local {
            ~Local() { ++destroyed; }
        } object;
        char c;
        if (dune_enter() == 0)
            ++entered;
        return read(never_written[0], &c, 1) == 1 ? nullptr : &entered;
    };
    ASSERT_EQ(pthread_create(&thread, nullptr, body, nullptr), 0);
    while (entered == 0)
        sched_yield();
    usleep(1000);
    pthread_cancel(thread);
    void* result = nullptr;
    pthread_join(thread, &result);
    EXPECT_EQ(result, PTHREAD_CANCELED);
    EXPECT_EQ(destroyed, 1);
    close(never_written[0]);
    close(never_written[1]);
}

/** The C library sends each thread a signal, for a system call of its own. */
TEST_F(RuntimeThreads, UserIdIsThatOfAllThreads) {
    const Outcome outcome = in_child([] {
        std::atomic<int> ready{0};
        std::atomic<bool> stop{false};
        std::atomic<int> right{0};
        std::vector<std::thread> threads;
        for (int i = 0; i < 3; ++i)
            threads.emplace_back([&] {
                ready += dune_enter() == 0;
                while (!stop)
                    cpu_relax();
                right += syscall(SYS_getuid) == 65534;
            });
        while (ready != 3)
            sched_yield();
        const int ret = setuid(65534);
        stop = true;
        for (auto& thread : threads)
            thread.join();
        return ret == 0 ? right.load() : 100;
    });
    EXPECT_TRUE(outcome.exited(3)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeThreads, MadeInHandlers) {
    entered = 0;
    const auto make = [] { std::thread([] { entered += dune_enter() == 0; }).join(); };
    static void (*in_handler)();
    in_handler = make;
    dune_register_intr_handler(T_BRKPT, [](dune_tf*) { in_handler(); });
    asm volatile("int3" ::: "memory");
    EXPECT_EQ(entered, 1);
    dune_register_intr_handler(T_BRKPT, nullptr);
    signal(SIGUSR1, [](int) { in_handler(); });
    raise(SIGUSR1);
    EXPECT_EQ(entered, 2);
    signal(SIGUSR1, SIG_DFL);
}

/** A program that closes all files, and has others by the same numbers. */
TEST_F(RuntimeThreads, FilesOfTheProgramAreLeftAlone) {
    const Outcome outcome = in_child([] {
        constexpr int kFiles = 12;
        const auto replace_all = [] {
            syscall(SYS_close_range, 3, ~0U, 0);
            for (int i = 0; i < kFiles; ++i)
                if (open("/dev/zero", O_RDONLY) < 0)
                    _exit(1);
        };
        replace_all();
        const int before = open_files();
        int entered_again = -1;
        std::thread([&] { entered_again = dune_enter(); }).join();  // by a device of its own
        if (entered_again != 0)
            return 2;
        int in_thread = 0;
        std::thread([&] {
            if (dune_enter() != 0)
                return;
            replace_all();
            in_thread = open_files();
        }).join();
        if (in_thread != before || open_files() != before)
            return 3;
        const pid_t pid = fork();
        if (pid == 0) {
            replace_all();
            const bool same = dune_enter() == 0 && open_files() == before + 2;
            _exit(same && lseek(3, 0, SEEK_CUR) == 0 ? 0 : 4);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    });
    EXPECT_TRUE(outcome.exited(0)) << outcome.status << outcome.stderr_;
}

TEST_F(RuntimeThreads, InterruptsBetweenThreads) {
    constexpr int kVector = 0x60;
    static std::atomic<int> got;
    got = 0;
    dune_register_intr_handler(kVector, [](dune_tf*) {
        ++got;
        dune_apic_eoi();
    });
    std::atomic<std::uint32_t> id{0};
    std::atomic<bool> stop{false};
    std::thread other([&] {
        ASSERT_EQ(dune_enter(), 0);
        id = dune_apic_id();
        while (!stop)
            cpu_relax();
    });
    while (id == 0)
        sched_yield();
    EXPECT_NE(id, dune_apic_id());
    for (int i = 1; i <= 20; ++i) {
        dune_apic_send_ipi(kVector, id);
        for (int k = 0; got < i && k < 100000; ++k)
            sched_yield();
        ASSERT_EQ(got, i);
    }
    stop = true;
    other.join();
    // To itself: when interrupts are on.
    dune_apic_send_ipi(kVector, dune_apic_id());
    EXPECT_EQ(got, 21);
    bool error = false;
    const std::uint32_t here =
        dune_apic_id_for_cpu(static_cast<std::uint32_t>(sched_getcpu()), &error);
    EXPECT_TRUE(error || here == dune_apic_id());
    dune_apic_id_for_cpu(4000, &error);
    EXPECT_TRUE(error);
    dune_register_intr_handler(kVector, nullptr);
}

TEST_F(RuntimeThreads, PendingInterruptWakesHlt) {
    constexpr int kVector = 0x61;
    static std::atomic<int> got;
    got = 0;
    dune_register_intr_handler(kVector, [](dune_tf*) { ++got; });
    const std::uint32_t main_id = dune_apic_id();
    std::thread other([main_id] {
        usleep(3000);
        dune_apic_send_ipi(kVector, main_id);
    });
    while (got == 0)
        asm volatile("hlt");
    other.join();
    EXPECT_EQ(got, 1);
    dune_register_intr_handler(kVector, nullptr);
}

}  // namespace
