// SPDX-License-Identifier: MIT
//
// The module with fast_syscalls=0: each call of the guest's goes through user mode, and is no
// different otherwise.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest.h"
#include "support.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;
using support::arg;

TEST(WithoutFastCalls, NoneIsDoneInTheModule) {
    Machine& machine = Machine::get();
    EXPECT_FALSE(machine.has(DUNE_FEAT_FAST_SYSCALLS));
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    const dune_stats before = machine.stats();
    long pid = 0, none = 0, error = 0, waiting = -1, waits = -1;
    char byte = 0;
    const End end = guest::enter([&] {
        for (int i = 0; i < 100; i++) {
            pid = call(SYS_getpid);
        }
        none = call(4000);
        error = call(SYS_close, -1);
        call(SYS_write, pipes[1], arg("x"), 1);
        waits = call(SYS_ioctl, pipes[0], FIONREAD, arg(&waiting));
        call(SYS_read, pipes[0], arg(&byte), 1);
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(pid, getpid());
    EXPECT_EQ(none, -ENOSYS);
    EXPECT_EQ(error, -EBADF);
    EXPECT_EQ(waits, 0);
    EXPECT_EQ(waiting & 0xffffffff, 1);
    EXPECT_EQ(byte, 'x');
    const dune_stats after = machine.stats();
    EXPECT_EQ(after.fast_calls, before.fast_calls);
    EXPECT_EQ(after.slow_calls - before.slow_calls, 104U) << "all but the one that is none";
    EXPECT_EQ(support::read_file("/sys/module/dune/parameters/fast_syscalls"), "N\n");
}

}  // namespace
