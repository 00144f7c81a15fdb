// SPDX-License-Identifier: MIT

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "subject.h"

namespace dune::sandbox_test {

namespace {

thread_local int mine = 5;

int status_of(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

}  // namespace

void test_threads() {
    constexpr int kThreads = 8;
    constexpr int kRounds = 300;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    std::atomic<int> started{0};
    int sum = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
        threads.emplace_back([&, i] {
            started++;
            CHECK(mine == 5);
            mine = i;
            CHECK(gettid() != getpid());
            for (int round = 0; round < kRounds; round++) {
                pthread_mutex_lock(&mutex);
                sum++;
                pthread_mutex_unlock(&mutex);
                if (round % 50 == 0) {
                    sched_yield();
                }
            }
            CHECK(mine == i);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(started == kThreads && sum == kThreads * kRounds && mine == 5);
    // One after the other: what a thread leaves is used again.
    for (int i = 0; i < 50; i++) {
        std::thread([&] { sum++; }).join();
    }
    CHECK(sum == kThreads * kRounds + 50);
    // A signal for one of them.
    static std::atomic<long> handled_by;
    signal(SIGUSR1, [](int) { handled_by = gettid(); });
    std::atomic<long> tid{0};
    std::thread waiting([&] {
        tid = gettid();
        while (handled_by == 0) {
            usleep(1000);
        }
    });
    while (tid == 0) {
        usleep(1000);
    }
    CHECK(syscall(SYS_tgkill, getpid(), tid.load(), SIGUSR1) == 0);
    waiting.join();
    CHECK(handled_by == tid);
    // A process forked by a thread, while others run.
    std::thread([] {
        const pid_t pid = fork();
        if (pid == 0) {
            _exit(gettid() == getpid() ? 7 : 1);
        }
        CHECK(status_of(pid) == 7 << 8);
    }).join();
}

void test_robust() {
    static pthread_mutex_t mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attributes);
    std::thread([] { pthread_mutex_lock(&mutex); }).join();
    CHECK(pthread_mutex_lock(&mutex) == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&mutex) == 0);
    CHECK(pthread_mutex_unlock(&mutex) == 0);
}

void test_processes() {
    int* const shared = static_cast<int*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int local = 1;
    pid_t pid = fork();
    if (pid == 0) {
        local = 2;  // NOLINT(clang-analyzer-deadcode.DeadStores): not seen by the parent
        *shared = getpid();
        _exit(getppid() != 0 ? 3 : 4);
    }
    CHECK(status_of(pid) == 3 << 8);
    CHECK(local == 1 && *shared == pid);
    // Many, and deep.
    for (int i = 0; i < 10; i++) {
        pid = fork();
        if (pid == 0) {
            const pid_t inner = fork();
            if (inner == 0) {
                _exit(9);
            }
            _exit(status_of(inner) == 9 << 8 ? 8 : 1);
        }
        CHECK(status_of(pid) == 8 << 8);
    }
    // Death by a signal is seen.
    pid = fork();
    if (pid == 0) {
        raise(SIGTERM);
        _exit(1);
    }
    CHECK(status_of(pid) == SIGTERM);
    pid = fork();
    if (pid == 0) {
        volatile uintptr_t nowhere = 16;
        *reinterpret_cast<volatile int*>(nowhere) = 1;
        _exit(1);
    }
    CHECK((status_of(pid) & 0x7f) == SIGSEGV);
    // Stopped and continued.
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(5);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK(status_of(pid) == 5 << 8);
}

void test_spawn() {
    pid_t pid;
    char name[] = "sh";
    char option[] = "-c";
    char script[] = "exit $((40 + X))";
    char variable[] = "X=2";
    char* const argv[] = {name, option, script, nullptr};
    char* const envp[] = {variable, nullptr};
    CHECK(posix_spawn(&pid, "/bin/sh", nullptr, nullptr, argv, envp) == 0);
    CHECK(status_of(pid) == 42 << 8);
    pid = vfork();
    if (pid == 0) {
        execve("/bin/sh", argv, envp);
        _exit(127);
    }
    CHECK(status_of(pid) == 42 << 8);
    // What a child of vfork leaves on the stack.
    CHECK(posix_spawn(&pid, "/no/such/program", nullptr, nullptr, argv, envp) == ENOENT);
    CHECK(posix_spawn(&pid, "/etc/passwd", nullptr, nullptr, argv, envp) == EACCES);
    volatile int left = 1;
    pid = vfork();
    if (pid == 0) {
        left = 2;
        _exit(6);
    }
    CHECK(status_of(pid) == 6 << 8 && left == 2);
    CHECK(execve("/no/such/program", argv, envp) == -1 && errno == ENOENT);
    CHECK(execve("/etc/passwd", argv, envp) == -1 && errno == EACCES);
    CHECK(execve("/tmp", argv, envp) == -1 && errno == EACCES);
    // A descriptor that is to be closed is, one that is not stays.
    int pipe_fds[2];
    CHECK(pipe(pipe_fds) == 0 && fcntl(pipe_fds[0], F_SETFD, FD_CLOEXEC) == 0);
    pid = fork();
    if (pid == 0) {
        char text[64];
        snprintf(text, sizeof(text), "[ ! -e /proc/self/fd/%d ] && echo ok >&%d", pipe_fds[0],
                 pipe_fds[1]);
        char* const args[] = {name, option, text, nullptr};
        execve("/bin/sh", args, envp);
        _exit(127);
    }
    CHECK(status_of(pid) == 0);
    char answer[3] = {};
    CHECK(read(pipe_fds[0], answer, 3) == 3 && memcmp(answer, "ok\n", 3) == 0);
}

// Programs that have no name.
void test_fexecve() {
    const auto start = [](int fd, const char* argument) {
        const pid_t pid = fork();
        if (pid == 0) {
            char name[] = "subject";
            char* const argv[] = {name, const_cast<char*>(argument), nullptr};
            char* const envp[] = {nullptr};
            fexecve(fd, argv, envp);
            _exit(100 + (errno == EACCES ? 1 : 0));
        }
        return status_of(pid);
    };
    const auto copy = [](int from, int to) {
        for (off_t at = 0; sendfile(to, from, &at, 1 << 20) > 0;) {
        }
    };
    constexpr int kDenied = 101 << 8;
    const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    const int memory = memfd_create("subject", MFD_CLOEXEC);
    copy(self, memory);
    CHECK(start(memory, "longjmp") == 0);
    CHECK(start(memory, "no such test") == 2 << 8);
    CHECK(start(self, "auxv") == 0);  // this one has a name
    const int script = memfd_create("script", 0);
    constexpr char kScript[] = "#!/bin/sh\nexit 7\n";
    CHECK(write(script, kScript, sizeof(kScript) - 1) == static_cast<ssize_t>(sizeof(kScript) - 1));
    CHECK(start(script, "") == 7 << 8);
    CHECK(fchmod(memory, 0644) == 0);
    CHECK(start(memory, "longjmp") == kDenied);
    // A file that was removed.
    const int written = open("/tmp/subject", O_RDWR | O_CREAT | O_CLOEXEC, 0700);
    copy(self, written);
    close(written);
    const int removed = open("/tmp/subject", O_RDONLY | O_CLOEXEC);
    unlink("/tmp/subject");
    CHECK(start(removed, "longjmp") == 0);
    CHECK(start(-1, "") == 100 << 8);
}

}  // namespace dune::sandbox_test
