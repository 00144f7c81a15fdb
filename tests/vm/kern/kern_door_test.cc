// SPDX-License-Identifier: MIT
//
// The door: a page whose read by its vCPU's thread enters the guest, and by nobody else.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csetjmp>
#include <thread>

#include "guest.h"
#include "support.h"

namespace {

using guest::End;
using guest::Vcpu;

sigjmp_buf jump;
siginfo_t last_signal;

void jump_back(int, siginfo_t* info, void*) {
    last_signal = *info;
    siglongjmp(jump, 1);
}

// The signal that an access to the door by the calling thread raises, or 0.
int door_signal(volatile char* door, bool write) {
    struct sigaction action = {}, old;
    action.sa_sigaction = jump_back;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGBUS, &action, &old);
    struct sigaction old_segv;
    sigaction(SIGSEGV, &action, &old_segv);
    last_signal = {};
    if (sigsetjmp(jump, 1) == 0) {
        if (write) {
            *door = 1;
        } else {
            asm volatile(".byte 0x8a, 0x00" : : "a"(door) : "memory");
        }
    }
    sigaction(SIGBUS, &old, nullptr);
    sigaction(SIGSEGV, &old_segv, nullptr);
    return last_signal.si_signo;
}

TEST(Door, IsOneThreads) {
    volatile char* door = Vcpu::get().door();
    int signal = 0;
    std::thread([&] { signal = door_signal(door, false); }).join();
    EXPECT_EQ(signal, SIGBUS);
    EXPECT_EQ(door_signal(door, true), SIGSEGV) << "it is read-only";
    EXPECT_NE(mprotect(const_cast<char*>(door), 4096, PROT_READ | PROT_WRITE), 0);
}

TEST(Door, IsShutToTheKernel) {
    volatile char* door = Vcpu::get().door();
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    EXPECT_EQ(guest::host_call(SYS_write, pipe_fds[1],
                               reinterpret_cast<long>(const_cast<char*>(door)), 1),
              -EFAULT);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

TEST(Door, IsShutToTheGuest) {
    // A read by the guest is a fault that Linux would answer with SIGBUS, be it the door of the
    // vCPU that runs or of another of the same thread's.
    Vcpu other;
    guest::Options options;
    options.traps = true;
    for (volatile char* door : {Vcpu::get().door(), other.door()}) {
        Vcpu::get().page().fault_signal = 0;
        const End end = guest::enter([&] { static_cast<void>(*door); }, options);
        EXPECT_EQ(end.argument, 0xdead000eU) << end;
        EXPECT_EQ(Vcpu::get().page().fault_signal, static_cast<uint32_t>(SIGBUS));
    }
}

TEST(Door, TellsThatARunWasRefused) {
    Vcpu& vcpu = Vcpu::get();
    vcpu.prepare([](void*) {}, nullptr, {});
    vcpu.page().rip = 1ULL << 47;
    // A bounce is no answer: the kernel had something else to do first.
    int tries = 0;
    do {
        auto door = vcpu.door();
        asm volatile(".byte 0x8a, 0x00" : "+a"(door) : : "memory");
    } while (vcpu.page().exit == DUNE_EXIT_BOUNCE && ++tries < 100);
    EXPECT_EQ(vcpu.page().exit, 0U);
    EXPECT_EQ(vcpu.page().progress, 0U);
}

TEST(Door, TellsThatAThreadMayNotRun) {
    // Not what the run before it ended in.
    const auto refused = [] {
        guest::enter([] {});
        Vcpu& vcpu = Vcpu::get();
        vcpu.prepare([](void*) {}, nullptr, {});
        if (vcpu.page().exit != DUNE_EXIT_LEAVE || prctl(PR_SET_TSC, PR_TSC_SIGSEGV) != 0)
            _exit(1);
        auto door = vcpu.door();
        asm volatile(".byte 0x8a, 0x00" : "+a"(door) : : "memory");
        _exit(vcpu.page().exit == 0 ? 0 : 2);
    };
    const int status = support::status_of(refused);
    EXPECT_EQ(WEXITSTATUS(status), 0) << status;
}

}  // namespace
