// SPDX-License-Identifier: MIT
//
// One attempt at each of the kernel's features by which a program could change what it is, see what
// it must not, or act on somebody else.

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <string>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

template <class... Args>
void refuses(const char* what, long number, Args... args) {
    must_fail(what, syscall(number, args...));
}

// Numbers that the C library's headers may not have.
constexpr long kProcessMadvise = 440;
constexpr long kMountSetattr = 442;
constexpr long kMapShadowStack = 453;
constexpr long kStatmount = 457;

void try_rights() {
    must_fail("personality", personality(READ_IMPLIES_EXEC));
    must_fail("personality: 32-bit", personality(PER_LINUX32));
    must_fail("personality: no randomness", personality(ADDR_NO_RANDOMIZE));
    refuses("iopl", SYS_iopl, 3);
    refuses("ioperm", SYS_ioperm, 0x80, 1, 1);
    refuses("modify_ldt", SYS_modify_ldt, 0, nullptr, 0);
    refuses("set_thread_area", SYS_set_thread_area, nullptr);
    refuses("unshare user", SYS_unshare, CLONE_NEWUSER);
    refuses("unshare mounts", SYS_unshare, CLONE_NEWNS);
    refuses("unshare files", SYS_unshare, CLONE_FILES);
    refuses("setns", SYS_setns, 0, 0);
    refuses("pivot_root", SYS_pivot_root, "/tmp", "/tmp");
    refuses("umount", SYS_umount2, "/proc", 2);
    refuses("open_tree", 428, AT_FDCWD, "/", 1);
    refuses("fsopen", 430, "tmpfs", 0);
    refuses("mount_setattr", kMountSetattr, AT_FDCWD, "/", 0, nullptr, 0);
    refuses("statmount", kStatmount, nullptr, nullptr, 0, 0);
    refuses("add_key", SYS_add_key, "user", "x", "y", 1, -3);
    refuses("request_key", SYS_request_key, "user", "x", nullptr, 0);
    refuses("keyctl", SYS_keyctl, 0, -3, 0);
    refuses("clock_settime", SYS_clock_settime, 0, nullptr);
    refuses("reboot", SYS_reboot, 0xfee1dead, 672274793, 0, nullptr);
    refuses("swapon", SYS_swapon, "/dev/null", 0);
    refuses("syslog", SYS_syslog, 10, nullptr, 0);
}

void try_introspection() {
    refuses("kcmp", SYS_kcmp, getpid(), getpid(), 0, 0, 0);
    refuses("process_madvise", kProcessMadvise, 0, nullptr, 0, 20, 0);
    refuses("perf_event_open", SYS_perf_event_open, nullptr, 0, 0, -1, 0);
    refuses("bpf", SYS_bpf, 0, nullptr, 0);
    refuses("fanotify_init", SYS_fanotify_init, 0, 0);
    refuses("name_to_handle_at", SYS_name_to_handle_at, AT_FDCWD, "/", nullptr, nullptr, 0);
    refuses("open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, nullptr, 0);
    refuses("io_uring_enter", 426, 0, 1, 0, 0, nullptr, 0);
    refuses("io_uring_register", 427, 0, 0, nullptr, 0);
    refuses("io_setup", SYS_io_setup, 1, nullptr);
    refuses("map_shadow_stack", kMapShadowStack, 0, 4096, 0);
    for (const int option : {PR_SET_MM, PR_SET_SECCOMP, 59 /* PR_SET_SYSCALL_USER_DISPATCH */,
                             55 /* PR_SET_TAGGED_ADDR_CTRL */, PR_SET_TSC, PR_SET_DUMPABLE,
                             PR_SET_PTRACER, PR_MCE_KILL, PR_SET_MM_EXE_FILE, 65 /* PR_SET_MDWE */,
                             0x53564d41 /* PR_SET_VMA */, 62 /* PR_SCHED_CORE */}) {
        must_fail(("prctl " + std::to_string(option)).c_str(), prctl(option, 1, 0, 0, 0));
    }
    for (const int code : {0x1012 /* ARCH_SET_CPUID */, 0x1022 /* ARCH_REQ_XCOMP_PERM */,
                           0x2001 /* ARCH_MAP_VDSO_X32 */, 0x2003 /* ARCH_MAP_VDSO_64 */,
                           0x4002 /* ARCH_ENABLE_TAGGED_ADDR */, 0x5001 /* ARCH_SHSTK_ENABLE */,
                           0x5003 /* ARCH_SHSTK_LOCK */}) {
        must_fail(("arch_prctl " + std::to_string(code)).c_str(),
                  syscall(SYS_arch_prctl, code, code == 0x1022 ? 18 : 0));
    }
    for (const uint64_t base : {0x800000000000ul, 0x8000000000000000ul, ~0ul}) {
        refuses("ARCH_SET_GS", SYS_arch_prctl, 0x1001, base);
        refuses("ARCH_SET_FS", SYS_arch_prctl, 0x1002, base);
    }
}

// `RESOLVE_*` are the caller's; none may lead past the policy.
void try_openat2() {
    for (uint64_t resolve = 0; resolve < 64; resolve++) {
        open_how how{};
        how.resolve = resolve;
        for (const char* const path :
             {"/etc/shadow", "/tmp/../etc/shadow", "/proc/1/root/etc/shadow",
              "/proc/self/root/etc/shadow", "/proc/self/mem"}) {
            if (syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how)) >= 0) {
                escaped(path, resolve);
            }
        }
    }
}

void try_files() {
    const std::string parent = "/proc/" + std::to_string(getppid());
    const std::string self = "/proc/self/task/" + std::to_string(gettid());
    for (const std::string& path : {std::string("/dev/mem"),
                                    std::string("/dev/kvm"),
                                    std::string("/dev/dune"),
                                    std::string("/dev/kmsg"),
                                    std::string("/proc/kcore"),
                                    std::string("/proc/kmsg"),
                                    std::string("/proc/self/map_files"),
                                    self + "/mem",
                                    self + "/pagemap",
                                    self + "/root/etc/shadow",
                                    self + "/cwd/../etc/shadow",
                                    parent + "/mem",
                                    parent + "/maps",
                                    parent + "/environ",
                                    parent + "/auxv",
                                    parent + "/root/etc/shadow",
                                    parent + "/fd/1",
                                    parent + "/task/" + std::to_string(getppid()) + "/mem",
                                    parent + "/syscall",
                                    parent + "/stack",
                                    std::string("/proc/1/environ"),
                                    std::string("/proc/1/mem")}) {
        for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
            if (const int fd = open(path.c_str(), flags | O_NONBLOCK); fd >= 0) {
                escaped(path.c_str(), static_cast<unsigned long>(flags));
                close(fd);
            }
        }
    }
    must_fail("oom_score_adj of the parent", open((parent + "/oom_score_adj").c_str(), O_WRONLY));
    must_fail("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    must_fail("TIOCLINUX", ioctl(0, TIOCLINUX, "\3"));
    must_fail("TIOCCONS", ioctl(0, TIOCCONS, 0));
}

// Signals and limits of who is outside.
void try_others() {
    const pid_t parent = getppid();
    int ends[2];
    if (pipe(ends) != 0) {
        return;
    }
    must_fail("F_SETOWN", fcntl(ends[0], F_SETOWN, parent));
    must_fail("F_SETOWN group", fcntl(ends[0], F_SETOWN, -getpgrp()));
    must_fail("F_SETSIG", fcntl(ends[0], 10, SIGKILL));
    const struct {
        int type;
        pid_t pid;
    } owner = {1, parent};
    must_fail("F_SETOWN_EX", fcntl(ends[0], 15, &owner));
    must_fail("FIOSETOWN", ioctl(ends[0], 0x8901, &parent));
    siginfo_t info{};
    info.si_code = SI_QUEUE;
    for (const pid_t pid : {parent, 1}) {
        must_fail("kill", kill(pid, SIGCONT));
        refuses("tgkill", SYS_tgkill, pid, pid, SIGCONT);
        refuses("tkill", SYS_tkill, pid, SIGCONT);
        refuses("rt_sigqueueinfo", SYS_rt_sigqueueinfo, pid, SIGCONT, &info);
        refuses("rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, pid, pid, SIGCONT, &info);
        refuses("pidfd_open", SYS_pidfd_open, pid, 0);
        rlimit limit = {1 << 20, 1 << 20};
        must_fail("prlimit", prlimit(static_cast<__pid_t>(pid), RLIMIT_CORE, &limit, nullptr));
        const struct {
            uint32_t size, policy;
            uint64_t flags;
            int32_t nice;
            uint32_t priority;
            uint64_t rest[3];
        } attributes = {48, 0, 0, 1, 0, {}};
        refuses("sched_setattr", SYS_sched_setattr, pid, &attributes, 0);
    }
}

sigjmp_buf back;

void must_fault(const char* what, unsigned long at, void (*attempt)(volatile char*)) {
    if (sigsetjmp(back, 1) == 0) {
        attempt(reinterpret_cast<volatile char*>(at));
        escaped(what, at);
    }
}

// The vDSO is shared with the runtime: it can be read, and nothing else.
void try_vdso() {
    for (const int signal : {SIGSEGV, SIGBUS}) {
        struct sigaction action {};
        action.sa_handler = [](int) { siglongjmp(back, 1); };
        sigaction(signal, &action, nullptr);
    }
    const unsigned long at = getauxval(AT_SYSINFO_EHDR) & ~4095ul;
    void* const p = reinterpret_cast<void*>(at);
    constexpr int kAll = PROT_READ | PROT_WRITE | PROT_EXEC;
    timespec now;
    must_fail("mprotect of the vDSO", mprotect(p, 4096, kAll));
    must_fail("mremap of the vDSO", reinterpret_cast<long>(mremap(p, 4096, 4096, MREMAP_MAYMOVE)));
    must_fail("mmap over the vDSO",
              reinterpret_cast<long>(
                  mmap(p, 4096, kAll, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)));
    must_fault("a store to the vDSO", at, [](volatile char* byte) { *byte = 0; });
    must_fault("a store to the vvar page", at - 4096, [](volatile char* byte) { *byte = 0; });
    munmap(p, 4096);  // there is nothing, as far as Linux can tell
    must_fail("mprotect then", mprotect(p, 4096, kAll));
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0 || memcmp(p, "\177ELF", 4) != 0) {
        escaped("the vDSO is gone", at);
    }
}

// Signals that look like the kernel's own, to itself, with addresses of the runtime.
void forge_faults() {
    for (const int signal : {SIGSEGV, SIGBUS, SIGTRAP, SIGSYS, SIGILL, SIGFPE}) {
        const pid_t pid = fork();
        if (pid == 0) {
            struct sigaction action {};
            action.sa_sigaction = [](int, siginfo_t* info, void*) {
                _exit(info->si_code == 1 ? 40 : 41);
            };
            action.sa_flags = SA_SIGINFO;
            sigaction(signal, &action, nullptr);
            siginfo_t info{};
            info.si_signo = signal;
            info.si_code = 1;  // SEGV_MAPERR and the like
            info.si_addr = reinterpret_cast<void*>(runtime_memory()[0].at);
            syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, &info);
            _exit(42);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        if (status != 40 << 8) {
            escaped("a forged fault", static_cast<unsigned long>(status));
        }
    }
}

// A program without a name is sandboxed like any other.
void execute_memory() {
    const int fd = static_cast<int>(syscall(SYS_memfd_create, "x", 0));
    const int self = open("/proc/self/exe", O_RDONLY);
    std::array<char, 65536> room;
    for (ssize_t n; (n = read(self, room.data(), room.size())) > 0;) {
        if (write(fd, room.data(), static_cast<size_t>(n)) != n) {
            return;
        }
    }
    const pid_t pid = fork();
    if (pid == 0) {
        char name[] = "attacker";
        char what[] = "instructions";
        char* const argv[] = {name, what, nullptr};
        char* const envp[] = {nullptr};
        dup3(fd, 3, O_CLOEXEC);
        close_range(4, ~0u, 0);
        syscall(SYS_execveat, 3, "", argv, envp, AT_EMPTY_PATH);
        _exit(3);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 0) {
        escaped("a program in memory", static_cast<unsigned long>(status));
    }
}

}  // namespace

void attack_kernel(const char*) {
    static_cast<void>(runtime_memory());
    try_rights();
    try_introspection();
    try_openat2();
    try_files();
    try_others();
    try_vdso();
    forge_faults();
    execute_memory();
}

}  // namespace dune::sandbox_test
