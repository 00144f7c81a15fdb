// SPDX-License-Identifier: MIT
// Print each system call of a program, as strace does: example-trace PROGRAM [ARGUMENT]...
// It is for programs of one thread: handlers of signals are not called, and programs that it
// executes are not followed. Nothing is kept from it either: dune-sandbox is the one for that.
#include <dune/process.h>
#include <dune/user.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iterator>

#include "program.h"

namespace {

FILE* output;  // not stderr, which programs close
const char* names[512];

void name_calls() {
#define NAME(call) names[SYS_##call] = #call
    NAME(read), NAME(write), NAME(close), NAME(mmap), NAME(mprotect), NAME(munmap), NAME(brk);
    NAME(pread64), NAME(access), NAME(newfstatat), NAME(openat), NAME(execve), NAME(wait4);
    NAME(arch_prctl), NAME(set_tid_address), NAME(set_robust_list), NAME(rseq), NAME(prlimit64);
    NAME(rt_sigaction), NAME(rt_sigprocmask), NAME(ioctl), NAME(clone), NAME(exit_group);
}

void print_call(std::uint64_t number, const std::uint64_t (&args)[6]) {
    const char* const name = number < std::size(names) ? names[number] : nullptr;
    name != nullptr ? std::fprintf(output, "%s(", name) : std::fprintf(output, "%lu(", number);
    const bool at = number == SYS_openat || number == SYS_newfstatat;
    char path[41];
    for (unsigned i = 0; i < 3; ++i)
        if (at ? i == 1 : i == 0 && (number == SYS_access || number == SYS_execve))
            std::fprintf(output, "\"%s\", ", copy_text(args[i], path));
        else
            std::fprintf(output, "%#lx%s", args[i], i < 2 ? ", " : ")");
}

/** Has Linux do the call, or does what it means for ring 3. */
long do_call(std::uint64_t number, const std::uint64_t (&args)[6]) {
    switch (number) {
        case SYS_exit_group:
            std::fprintf(output, " = ?\n");
            dune::user::finish(static_cast<int>(args[0]));
        case SYS_arch_prctl:
            return dune::user::set_fs_base(args[1]) ? 0 : -EPERM;
        case SYS_rt_sigaction:
            return 0;
        case SYS_clone3:  // the C library takes clone() instead
            return -ENOSYS;
        case SYS_vfork:
            return dune::user::fork();
        case SYS_clone:  // fork(3) of the C library, with CLONE_CHILD_SETTID
            if ((args[0] & CLONE_VM) != 0)
                return -EAGAIN;
            if (const long pid = dune::user::fork(); pid != 0)
                return pid;
            return *reinterpret_cast<int*>(args[3]) = getpid(), 0;
        default:
            return dune::user::call(static_cast<long>(number), args);
    }
}

void on_system_call(dune_tf& frame) {
    const std::uint64_t args[6] = {frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9};
    print_call(frame.rax, args);
    const long result = do_call(frame.rax, args);
    frame.rax = static_cast<std::uint64_t>(result);
    if (result < 0 && result > -4096)
        std::fprintf(output, " = -1 %s\n", strerrorname_np(static_cast<int>(-result)));
    else
        std::fprintf(output, " = %#lx\n", result);
}

void on_fault(dune_tf&, const siginfo_t& info, unsigned vector) {
    if (vector == T_PGFLT && show_to_ring3(reinterpret_cast<std::uint64_t>(info.si_addr)))
        return;
    std::fprintf(output, "+++ killed by SIG%s +++\n", sigabbrev_np(info.si_signo));
    dune::user::finish(128 + info.si_signo);
}

}  // namespace

int main(int argc, char** argv) {
    dune_tf frame;
    if (argc < 2 || !load_program(argv + 1, frame))
        return std::fprintf(stderr, "usage: %s /path/of/a/program [argument]...\n", argv[0]), 2;
    output = fdopen(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100), "w");
    setvbuf(output, nullptr, _IONBF, 0);
    name_calls();
    dune::user::set_monitor({on_system_call, on_fault, nullptr, nullptr});  // no signals
    const auto process = dune::Process::enter();
    return process ? dune::user::run(frame) : 1;
}
