// SPDX-License-Identifier: MIT
//
// What reaches processes, terminals and files outside of the sandbox by a side door.

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

// A session of its own takes the terminal that another session has.
void steal_terminal() {
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        escaped("no terminal to attack", static_cast<unsigned long>(errno));
        return;
    }
    const std::string name = ptsname(master);
    int ready[2];
    if (pipe(ready) != 0) {
        return;
    }
    const pid_t owner = fork();
    if (owner == 0) {
        setsid();
        const int terminal = open(name.c_str(), O_RDWR | O_NOCTTY);
        const bool mine = ioctl(terminal, TIOCSCTTY, 0) == 0;
        signal(SIGHUP, SIG_IGN);
        if (write(ready[1], mine ? "y" : "n", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    char answer = 0;
    if (read(ready[0], &answer, 1) != 1 || answer != 'y') {
        escaped("not even a terminal of its own", 0);
    }
    const pid_t thief = fork();
    if (thief == 0) {
        setsid();
        const int terminal = open(name.c_str(), O_RDWR | O_NOCTTY);
        _exit(ioctl(terminal, TIOCSCTTY, 1) == 0 ? 1 : 0);
    }
    int status = 0;
    waitpid(thief, &status, 0);
    if (status != 0) {
        escaped("took another session's terminal", static_cast<unsigned long>(status));
    }
    kill(owner, SIGKILL);
    waitpid(owner, nullptr, 0);
}

// While an execve is tried, the runtime may make descriptors with numbers of its own.
void take_reserved_number() {
    std::atomic<bool> done{false};
    std::thread executor([&] {
        char* const bad[] = {reinterpret_cast<char*>(8), nullptr};
        while (!done) {
            execve("/proc/self/exe", bad, bad);
        }
    });
    for (int i = 0; i < 3000; i++) {
        if (const int fd = fcntl(0, F_DUPFD, 1100); fd >= 0) {
            escaped("a number of the runtime's", static_cast<unsigned long>(fd));
            break;
        }
    }
    done = true;
    executor.join();
}

}  // namespace

void attack_outsiders(const char*) {
    // The parent is outside: it would get a child, and a signal at its end, that it knows nothing
    // of.
    const long child = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        _exit(0);
    }
    if (child > 0) {
        escaped("a child for somebody outside", static_cast<unsigned long>(child));
    }
    // Inside, it is the program's own business.
    const pid_t pid = fork();
    if (pid == 0) {
        const long sibling = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        _exit(sibling < 0 ? 1 : 0);
    }
    for (int left = 2, status = 0; left > 0; left--) {
        if (wait(&status) < 0 || status != 0) {
            escaped("no child for its own parent", static_cast<unsigned long>(status));
        }
    }
    steal_terminal();
    take_reserved_number();
}

// `where` is another place that /proc is mounted at.
void attack_other_mount(const char* where) {
    const std::string proc = std::string(where) + "/";
    const std::string self = std::to_string(getpid());
    const std::string parent = std::to_string(getppid());
    for (const std::string& file :
         {proc + "self/mem", proc + self + "/mem",
          std::string(proc).append(self).append("/task/").append(self).append("/mem"),
          proc + parent + "/mem", proc + "1/mem", proc + "sys/kernel/core_pattern",
          proc + "sysrq-trigger", proc + "self/clear_refs"}) {
        if (open(file.c_str(), O_WRONLY) >= 0) {
            escaped((file + " to be written").c_str(), 0);
        }
    }
    for (const std::string& file : {proc + "self/maps", proc + "1/environ", proc + "kcore",
                                    proc + "self/pagemap", proc + "1/maps"}) {
        if (open(file.c_str(), O_RDONLY) >= 0) {
            escaped(file.c_str(), 0);
        }
    }
    const int directory = open(proc.c_str(), O_PATH | O_DIRECTORY);
    if (openat(directory, "self/mem", O_RDWR) >= 0) {
        escaped("by the directory's descriptor", 0);
    }
}

}  // namespace dune::sandbox_test
