// SPDX-License-Identifier: MIT
//
// The runtime's memory: directly, by every kind of pointer that calls take, and by moving mappings
// over it.

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

sigjmp_buf back;

void on_fault(int) {
    siglongjmp(back, 1);
}

template <class Try>
void must_fault(const char* what, unsigned long where, Try attempt) {
    if (sigsetjmp(back, 1) == 0) {
        attempt();
        escaped(what, where);
    }
}

void must_fail(const char* what, unsigned long where, long result) {
    if (result != -1) {
        escaped(what, where);
    }
}

void by_buffers(unsigned long at) {
    void* const p = reinterpret_cast<void*>(at);
    int fds[2];
    int pair[2];
    if (pipe(fds) != 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0) {
        return;
    }
    const iovec vector = {p, 8};
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(&vector);
    message.msg_iovlen = 1;
    must_fail("write", at, write(fds[1], p, 8));
    must_fail("writev", at, writev(fds[1], &vector, 1));
    must_fail("vmsplice", at, vmsplice(fds[1], &vector, 1, 0));
    must_fail("send", at, send(pair[0], p, 8, 0));
    must_fail("sendmsg", at, sendmsg(pair[0], &message, 0));
    if (write(fds[1], "12345678", 8) != 8 || send(pair[0], "12345678", 8, 0) != 8) {
        return;
    }
    must_fail("read", at, read(fds[0], p, 8));
    must_fail("readv", at, readv(fds[0], &vector, 1));
    must_fail("recv", at, recv(pair[1], p, 8, MSG_DONTWAIT));
    must_fail("recvmsg", at, recvmsg(pair[1], &message, MSG_DONTWAIT));
    must_fail("process_vm_writev", at, process_vm_writev(getpid(), &vector, 1, &vector, 1, 0));
    must_fail("process_vm_readv", at, process_vm_readv(getpid(), &vector, 1, &vector, 1, 0));
    const int zero = open("/dev/zero", O_RDONLY);
    must_fail("pread", at, pread(zero, p, 8, 0));
    must_fail("preadv", at, preadv(zero, &vector, 1, 0));
    // From below into the runtime.
    const unsigned long below = (1ul << 46) - 16;
    must_fail("read across", below, read(zero, reinterpret_cast<void*>(below), at - below + 8));
    close(zero);
    for (const int fd : {fds[0], fds[1], pair[0], pair[1]}) {
        close(fd);
    }
}

void by_structures(unsigned long at) {
    void* const p = reinterpret_cast<void*>(at);
    struct sigaction action {};
    must_fail("fstat", at, syscall(SYS_fstat, 0, p));
    must_fail("stat", at, syscall(SYS_newfstatat, AT_FDCWD, "/", p, 0));
    must_fail("statx", at, syscall(SYS_statx, AT_FDCWD, "/", 0, 0xfff, p));
    must_fail("uname", at, syscall(SYS_uname, p));
    must_fail("getcwd", at, syscall(SYS_getcwd, p, 100));
    must_fail("clock_gettime", at, syscall(SYS_clock_gettime, 0, p));
    must_fail("getrandom", at, syscall(SYS_getrandom, p, 8, 0));
    must_fail("pipe", at, syscall(SYS_pipe, p));
    must_fail("socketpair", at, syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, p));
    must_fail("prlimit", at, syscall(SYS_prlimit64, 0, RLIMIT_CORE, 0, p));
    must_fail("getrusage", at, syscall(SYS_getrusage, 0, p));
    must_fail("sysinfo", at, syscall(SYS_sysinfo, p));
    must_fail("sigaction", at, syscall(SYS_rt_sigaction, SIGUSR1, 0, p, 8));
    must_fail("sigaction in", at, syscall(SYS_rt_sigaction, SIGUSR1, p, 0, 8));
    must_fail("sigprocmask", at, syscall(SYS_rt_sigprocmask, 0, 0, p, 8));
    must_fail("sigaltstack", at, syscall(SYS_sigaltstack, 0, p));
    must_fail("sigpending", at, syscall(SYS_rt_sigpending, p, 8));
    must_fail("futex", at, syscall(SYS_futex, p, FUTEX_WAIT, 0, 0, 0, 0));
    must_fail("futex wake op", at, syscall(SYS_futex, &action, FUTEX_WAKE_OP, 0, 0, p, 0));
    must_fail("poll", at, syscall(SYS_poll, p, 1, 0));
    must_fail("select", at, syscall(SYS_select, 1, p, 0, 0, 0));
    must_fail("readlink", at, syscall(SYS_readlink, "/proc/self/exe", p, 8));
    must_fail("open", at, syscall(SYS_open, p, O_RDONLY));
    must_fail("execve", at, syscall(SYS_execve, p, 0, 0));
    void* argv[] = {p, nullptr};
    must_fail("execve argv", at, syscall(SYS_execve, "/bin/sh", argv, 0));
    must_fail("execve envp", at, syscall(SYS_execve, "/bin/sh", 0, argv));
    must_fail("ioctl", at, syscall(SYS_ioctl, 0, 0x541b /* FIONREAD */, p));
    must_fail("get_robust_list", at, syscall(SYS_get_robust_list, 0, p, p));
    must_fail("set_robust_list", at, syscall(SYS_set_robust_list, p, 24));
    must_fail("arch_prctl", at, syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, p));
    must_fail("sched_getaffinity", at, syscall(SYS_sched_getaffinity, 0, 8, p));
    must_fail("capget", at, syscall(SYS_capget, p, p));
    must_fail("getgroups", at, syscall(SYS_getresuid, p, p, p));
    must_fail("times", at, syscall(SYS_times, p));
    must_fail("prctl", at, syscall(SYS_prctl, 16 /* PR_GET_NAME */, p));
}

// Files of /proc that tell addresses.
void must_show_no_runtime(const std::string& file) {
    const int base = file.ends_with("stat") ? 10 : 16;
    std::ifstream text(file);
    unsigned words = 0;
    for (std::string word; text >> word; words++) {
        const unsigned long value = strtoul(word.c_str(), nullptr, base);
        if (value >= 1ul << 46 && value < 1ul << 47) {
            escaped(file.c_str(), value);
        }
    }
    if (words == 0) {
        escaped((file + " is empty").c_str(), 0);
    }
}

}  // namespace

void attack_memory(const char*) {
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    for (const Target& target : runtime_memory()) {
        for (const unsigned long at :
             {target.at, target.at + target.size / 2 / 4096 * 4096, target.at + target.size - 64}) {
            auto* const p = reinterpret_cast<volatile char*>(at);
            must_fault("load", at, [p] { (void)*p; });
            must_fault("store", at, [p] { *p = 0; });
            must_fault("execute", at, [at] { reinterpret_cast<void (*)()>(at)(); });
        }
    }
    // The kernel's half, and addresses that are none.
    for (const unsigned long at : {0xffffffff81000000ul, 0xffff888000000000ul, 0x0000800000000000ul,
                                   0x8000000000000000ul, ~0ul}) {
        auto* const p = reinterpret_cast<volatile char*>(at);
        must_fault("load", at, [p] { (void)*p; });
        must_fault("store", at, [p] { *p = 0; });
        must_fault("execute", at, [at] { reinterpret_cast<void (*)()>(at)(); });
    }
}

void attack_pointers(const char*) {
    for (const Target& target : runtime_memory()) {
        by_buffers(target.at);
        by_buffers(target.at + target.size - 8);
        by_structures(target.at + 64);
    }
}

void attack_mappings(const char*) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
    constexpr int kRw = PROT_READ | PROT_WRITE;
    void* const own = mmap(nullptr, 4096, kRw, kFlags, -1, 0);
    const int id = shmget(IPC_PRIVATE, 4096, 0600);
    for (const Target& target : runtime_memory()) {
        const unsigned long at = target.at;
        void* const p = reinterpret_cast<void*>(at);
        must_fail("mmap fixed", at,
                  reinterpret_cast<long>(mmap(p, 4096, kRw, kFlags | MAP_FIXED, -1, 0)));
        must_fail("munmap", at, munmap(p, 4096));
        must_fail("munmap from below", at, munmap(own, at - reinterpret_cast<unsigned long>(own)));
        must_fail("mprotect", at, mprotect(p, 4096, kRw | PROT_EXEC));
        must_fail("madvise", at, madvise(p, 4096, MADV_DONTNEED));
        must_fail("mlock", at, mlock(p, 4096));
        must_fail("msync", at, msync(p, 4096, MS_SYNC));
        char resident;
        must_fail("mincore", at, syscall(SYS_mincore, p, 4096, &resident));
        must_fail("mremap away", at, reinterpret_cast<long>(mremap(p, 4096, 8192, MREMAP_MAYMOVE)));
        must_fail(
            "mremap onto", at,
            reinterpret_cast<long>(mremap(own, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, p)));
        must_fail("mremap copy", at, reinterpret_cast<long>(mremap(p, 0, 4096, MREMAP_MAYMOVE)));
        must_fail("shmat", at, reinterpret_cast<long>(shmat(id, p, SHM_REMAP)));
        must_fail("remap_file_pages", at, syscall(SYS_remap_file_pages, p, 4096, 0, 0, 0));
        if (syscall(SYS_brk, at) == static_cast<long>(at)) {
            escaped("brk", at);
        }
    }
    shmctl(id, IPC_RMID, nullptr);
    const int mem = open("/proc/self/mem", O_RDWR);
    must_fail("/proc/self/mem", 0, mem);
    must_fail("/proc/thread-self/mem", 0, open("/proc/thread-self/mem", O_RDONLY));
    must_fail("/proc/self/task/mem", 0, open("/proc/self/task/../mem", O_RDONLY));
    char name[64];
    snprintf(name, sizeof(name), "/proc/%d/task/%d/mem", getpid(), getpid());
    must_fail(name, 0, open(name, O_RDWR));
    const int proc = open("/proc/self", O_RDONLY | O_DIRECTORY);
    must_fail("mem in /proc/self", 0, openat(proc, "mem", O_RDWR));
    must_fail("pagemap", 0, open("/proc/self/pagemap", O_RDONLY));
    must_fail("rollup", 0, open("/proc/self/smaps_rollup", O_RDONLY));
    must_fail("maps to be written", 0, open("/proc/self/maps", O_RDWR));
    must_fail("another's maps", 0, open("/proc/1/maps", O_RDONLY));
    must_show_no_runtime("/proc/self/maps");
    must_show_no_runtime("/proc/thread-self/smaps");
    must_show_no_runtime("/proc/self/numa_maps");
    const std::string task = "/proc/self/task/" + std::to_string(getpid());
    must_show_no_runtime(task + "/maps");
    must_show_no_runtime(task + "/stat");
    must_show_no_runtime("/proc/self/stat");
    must_show_no_runtime("/proc/" + std::to_string(getppid()) + "/stat");
}

}  // namespace dune::sandbox_test
