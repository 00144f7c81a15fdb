// SPDX-License-Identifier: MIT
//
// What /proc tells a program about itself.

#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "subject.h"

namespace dune::sandbox_test {

namespace {

struct Mapping {
    unsigned long begin = 0, end = 0;
    std::string rights, name;
};

Mapping find(const char* file, const void* where) {
    const auto address = reinterpret_cast<unsigned long>(where);
    std::ifstream maps(file);
    for (std::string line; std::getline(maps, line);) {
        Mapping found;
        char rights[8] = "";
        char name[256] = "";
        if (sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %*s %255s", &found.begin, &found.end, rights,
                   name) >= 3 &&
            found.begin <= address && address < found.end) {
            found.rights = rights;
            found.name = name;
            return found;
        }
    }
    return {};
}

std::string field_of_stat(int number) {
    std::ifstream file("/proc/self/stat");
    std::string line;
    std::getline(file, line);
    std::istringstream rest(line.substr(line.rfind(')') + 2));
    std::string word;
    for (int field = 3; field <= number; field++) {
        rest >> word;
    }
    return word;
}

std::string content_of(const char* file) {
    std::ifstream text(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(text), {}};
}

// With what it was started, by files and by what is on its stack.
void check_start() {
    std::string variables;
    for (char** variable = environ; *variable != nullptr; variable++) {
        variables.append(*variable).push_back('\0');
    }
    CHECK(!variables.empty() && content_of("/proc/self/environ") == variables);
    CHECK(content_of("/proc/thread-self/environ") == variables);
    const std::string vector = content_of("/proc/self/auxv");
    CHECK(vector.size() % sizeof(Elf64_auxv_t) == 0 && vector.size() >= 16 * sizeof(Elf64_auxv_t));
    for (size_t at = 0; at + sizeof(Elf64_auxv_t) <= vector.size(); at += sizeof(Elf64_auxv_t)) {
        Elf64_auxv_t entry;
        memcpy(&entry, vector.data() + at, sizeof(entry));
        if (entry.a_type == AT_NULL) {
            break;
        }
        // glibc has another word for what the processor can.
        CHECK(entry.a_type == AT_HWCAP ? entry.a_un.a_val > 2
                                       : getauxval(entry.a_type) == entry.a_un.a_val);
    }
}

}  // namespace

void test_start() {
    const std::string arguments = content_of("/proc/self/cmdline");
    CHECK(arguments.ends_with(std::string("sandbox_subject\0start\0", 22)));
    check_start();
    // Linux reads the strings where they are, now.
    char* const first = environ[0];
    const char letter = *first;
    *first = '#';
    CHECK(content_of("/proc/self/environ").starts_with('#'));
    *first = letter;
    if (getenv("SUBJECT_AGAIN") != nullptr) {
        return;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        check_start();
        char name[] = "sandbox_subject";
        char which[] = "start";
        char again[] = "SUBJECT_AGAIN=yes";
        char path[] = "PATH=/bin";
        char* const args[] = {name, which, nullptr};
        char* const variables[] = {again, path, nullptr};
        execve("/proc/self/exe", args, variables);
        _exit(1);
    }
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

void test_proc() {
    const int local = 0;
    char exe[512] = "";
    CHECK(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
    for (const char* file : {"/proc/self/maps", "/proc/thread-self/maps", "/proc/self/smaps"}) {
        CHECK(find(file, reinterpret_cast<void*>(&test_proc)).name == exe);
        CHECK(find(file, reinterpret_cast<void*>(&test_proc)).rights == "r-xp");
        CHECK(find(file, &local).name == "[stack]");
    }
    sbrk(4096);
    CHECK(find("/proc/self/maps", static_cast<char*>(sbrk(0)) - 1).name == "[heap]");
    // As it is now, not as it was.
    void* const at = mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(find("/proc/self/maps", at).rights == "r--p");
    mprotect(at, 8192, PROT_READ | PROT_WRITE);
    CHECK(find("/proc/self/maps", at).rights == "rw-p");
    // What garbage collectors look for.
    const unsigned long stack = strtoul(field_of_stat(28).c_str(), nullptr, 10);
    const auto here = reinterpret_cast<unsigned long>(&local);
    CHECK(here < stack && stack - here < 1 << 20);
    CHECK(field_of_stat(4) == std::to_string(getppid()));
    CHECK(field_of_stat(52) == "0");
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
    CHECK(write(fd, "", 1) == -1 && errno == EBADF);
}

void test_limits() {
    // Descriptors end with EMFILE where the limit says.
    rlimit limit{};
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 128);
    int fd;
    int last = -1;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) {
        last = fd;
    }
    CHECK(errno == EMFILE && last == static_cast<int>(limit.rlim_cur) - 1);
    CHECK(fcntl(last, F_GETFD) >= 0);
    CHECK(close_range(3, ~0u, 0) == 0);
    CHECK(fcntl(last, F_GETFD) == -1 && open("/dev/null", O_RDONLY) == 3);
    // Hundreds of threads at once.
    constexpr int kThreads = 128;
    std::atomic<int> waiting{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int i = 0; i < kThreads; i++) {
        threads.emplace_back([&] {
            waiting++;
            go.wait(false);
        });
    }
    while (waiting != kThreads) {
        usleep(1000);
    }
    go = true;
    go.notify_all();
    for (std::thread& thread : threads) {
        thread.join();
    }
    // A thread may set its own priority and CPUs, those of its siblings, and of its children.
    cpu_set_t cpus;
    CHECK(sched_getaffinity(0, sizeof(cpus), &cpus) == 0);
    CHECK(sched_setaffinity(gettid(), sizeof(cpus), &cpus) == 0);
    std::thread([&, tid = gettid()] {
        CHECK(sched_setaffinity(tid, sizeof(cpus), &cpus) == 0);
        CHECK(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 1) == 0);
    }).join();
    CHECK(setpriority(PRIO_PROCESS, 0, 2) == 0 && getpriority(PRIO_PROCESS, 0) == 2);
    CHECK(sched_getcpu() >= 0 && sched_getcpu() < CPU_SETSIZE);
}

}  // namespace dune::sandbox_test
