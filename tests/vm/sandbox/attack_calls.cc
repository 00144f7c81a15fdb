// SPDX-License-Identifier: MIT
//
// Calls that would undo the sandbox, the runtime's descriptors, and what the kernel does on a
// program's behalf later.

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

#include "attacker.h"
#include "control_message.h"

namespace dune::sandbox_test {

void attack_descriptors(const char*) {
    // Nothing was open but the first three, so every number from 6 on can only be the runtime's.
    const int null = open("/dev/null", O_RDWR);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        return;
    }
    // In every way those where one would keep its own: low, at a round number, at the limit.
    for (int fd = 6; fd < 1100; fd++) {
        if ((fd >= 64 && fd < 500) || (fd >= 576 && fd < 960)) {
            continue;
        }
        struct stat info;
        char byte;
        if (fcntl(fd, F_GETFD) != -1 || fstat(fd, &info) == 0 || read(fd, &byte, 1) >= 0 ||
            lseek(fd, 0x5d10, SEEK_DATA) != -1 || dup(fd) != -1 ||
            DescriptorMessage(fd).send(pair[0], MSG_DONTWAIT)) {
            escaped("descriptor", static_cast<unsigned long>(fd));
        }
        if (mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED ||
            ioctl(fd, 0xdb10, 0) != -1 || openat(fd, "etc", O_RDONLY) != -1 || fchdir(fd) != -1 ||
            syscall(SYS_execveat, fd, "", 0, 0, AT_EMPTY_PATH) != -1) {
            escaped("descriptor used", static_cast<unsigned long>(fd));
        }
        const std::string name = "/proc/self/fd/" + std::to_string(fd);
        if (open(name.c_str(), O_RDONLY) != -1) {
            escaped("descriptor by /proc", static_cast<unsigned long>(fd));
        }
    }
    // Replacing one: it must still be there for an execve.
    for (int fd = 6; fd < 1100; fd++) {
        if (dup2(null, fd) == fd) {
            close(fd);
        }
        close(fd);
    }
    close_range(3, ~0u, 0);
    const pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "cat /etc/shadow && exit 1; exit 55", nullptr);
        _exit(2);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 55 << 8) {
        escaped("execve after closing all", static_cast<unsigned long>(status));
    }
}

void attack_calls(const char*) {
    must_fail("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    must_fail("ptrace parent", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    must_fail("io_uring_setup", syscall(SYS_io_uring_setup, 8, nullptr));
    must_fail("userfaultfd", syscall(SYS_userfaultfd, 0));
    must_fail("bpf", syscall(SYS_bpf, 0, nullptr, 0));
    must_fail("perf_event_open", syscall(SYS_perf_event_open, nullptr, 0, 0, -1, 0));
    must_fail("unshare", syscall(SYS_unshare, 0x10000000));
    must_fail("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    must_fail("chroot", chroot("/tmp"));
    must_fail("seccomp", syscall(SYS_seccomp, 0, 0, 0));
    must_fail("prctl seccomp", prctl(PR_SET_SECCOMP, 1, 0, 0, 0));
    must_fail("prctl mm", prctl(PR_SET_MM, 1, 0, 0, 0));
    must_fail("prctl dispatch", prctl(59, 0, 0, 0, 0));
    must_fail("modify_ldt", syscall(SYS_modify_ldt, 1, nullptr, 0));
    must_fail("iopl", syscall(SYS_iopl, 3));
    must_fail("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    must_fail("init_module", syscall(SYS_init_module, nullptr, 0, ""));
    must_fail("clone newuser", syscall(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0));
    must_fail("clone files", syscall(SYS_clone, 0x400 | SIGCHLD, 0, 0, 0, 0));
    must_fail("block device", mknod("/tmp/sandbox-disk", S_IFBLK | 0600, makedev(8, 0)));
    must_fail("memory device", mknod("/tmp/sandbox-mem", S_IFCHR | 0600, makedev(1, 1)));
    must_fail("/dev/dune", open("/dev/dune", O_RDWR));
    must_fail("/dev/mem", open("/dev/mem", O_RDWR));
    must_fail("/proc/sys", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    must_fail("/proc/1/root", open("/proc/1/root/etc/shadow", O_RDONLY));
    must_fail("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    must_fail("setpriority parent", setpriority(PRIO_PROCESS, static_cast<id_t>(getppid()), 5));
    must_fail("setpriority user", setpriority(PRIO_USER, 0, 5));
    must_fail("ioprio_set parent", syscall(SYS_ioprio_set, 1, getppid(), 3 << 13));
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    must_fail("sched_setaffinity init", sched_setaffinity(1, sizeof(cpus), &cpus));
    const sched_param parameter{};
    must_fail("sched_setscheduler init", sched_setscheduler(1, SCHED_BATCH, &parameter));
    must_fail("sched_setparam init", sched_setparam(1, &parameter));
    must_fail("kill parent", kill(getppid(), 0));
    must_fail("kill init", kill(1, 0));
    must_fail("kill all", kill(-1, 0));
    must_fail("x32", syscall(0x40000000 | SYS_getpid));
    must_fail("no such call", syscall(1000));
    must_fail("uretprobe", syscall(335));
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
        escaped("set-user-ID programs would get their rights", 0);
    }
}

// A signal frame on the runtime's memory: the program must die, not the memory be written.
void attack_signals(const char*) {
    for (const Target& target : runtime_memory()) {
        if (!target.writable) {
            continue;
        }
        const pid_t pid = fork();
        if (pid == 0) {
            const stack_t stack = {reinterpret_cast<void*>(target.at), 0, target.size};
            struct sigaction action {};
            action.sa_handler = [](int) { _exit(1); };
            action.sa_flags = SA_ONSTACK;
            sigaction(SIGUSR1, &action, nullptr);
            if (sigaltstack(&stack, nullptr) == 0) {
                raise(SIGUSR1);
            } else {
                raise(SIGSEGV);
            }
            _exit(1);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) {
            escaped("signal frame", target.at);
        }
    }
    // A frame that rt_sigreturn must not believe: a stack pointer of the runtime.
    const pid_t pid = fork();
    if (pid == 0) {
        asm volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall" ::"r"(runtime_memory()[0].at));
        _exit(1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) {
        escaped("rt_sigreturn", static_cast<unsigned long>(status));
    }
}

// A robust list and a clear-tid word that point into the runtime, at the end of a thread.
void attack_robust_list(const char*) {
    for (const Target& target : runtime_memory()) {
        std::thread([&target] {
            static thread_local struct {
                unsigned long next;
                long offset;
                unsigned long pending;
            } head;
            head.next = target.at;
            head.pending = target.at + 64;
            head.offset = 8;
            syscall(SYS_set_robust_list, &head, sizeof(head));
            syscall(SYS_set_tid_address, target.at + 32);
            syscall(SYS_exit, 0);
        }).detach();
        usleep(2000);
    }
}

}  // namespace dune::sandbox_test
