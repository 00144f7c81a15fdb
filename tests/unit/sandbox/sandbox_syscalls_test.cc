// SPDX-License-Identifier: MIT

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <set>

#include "policy/syscalls.h"

namespace dune::sandbox {
namespace {

TEST(Syscalls, NumbersAgreeWithTheHeaders) {
    EXPECT_EQ(syscall_number("read"), SYS_read);
    EXPECT_EQ(syscall_number("rt_sigreturn"), SYS_rt_sigreturn);
    EXPECT_EQ(syscall_number("openat"), SYS_openat);
    EXPECT_EQ(syscall_number("clone3"), SYS_clone3);
    EXPECT_EQ(syscall_number("futex_waitv"), SYS_futex_waitv);
    EXPECT_EQ(syscall_number("no_such_call"), std::nullopt);
    EXPECT_EQ(syscall_number(""), std::nullopt);
}

TEST(Syscalls, NamesAreUniqueAndFound) {
    std::set<std::string_view> seen;
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        if (info != nullptr) {
            EXPECT_TRUE(seen.insert(info->name).second) << info->name;
            EXPECT_EQ(syscall_number(info->name), number);
        }
    }
    EXPECT_GT(seen.size(), 370u);
}

TEST(Syscalls, ArgumentsAreWellFormed) {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        if (info == nullptr) {
            continue;
        }
        EXPECT_LE(info->args.size(), 6u) << info->name;
        EXPECT_EQ(info->args.find_first_not_of("fdpsbBPqiuxogza"), info->args.npos) << info->name;
        for (size_t i = 0; i < info->args.size(); i++) {
            if (info->args[i] == 'b' || info->args[i] == 'B') {
                ASSERT_LT(i + 1, info->args.size()) << info->name;
                EXPECT_EQ(info->args[i + 1], 'z') << info->name;
            }
        }
    }
}

// A call that is passed to the kernel as it is must not name files, nor take structures with
// pointers in them: the letters for those are left to other kinds.
TEST(Syscalls, PlainCallsTakeNoPaths) {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        if (info != nullptr && info->kind == Kind::Pass) {
            EXPECT_EQ(info->args.find_first_of("pd"), info->args.npos) << info->name;
        }
    }
}

TEST(Syscalls, DangerousCallsAreRefused) {
    for (const char* name : {"ptrace",
                             "process_vm_readv",
                             "process_vm_writev",
                             "userfaultfd",
                             "bpf",
                             "kexec_load",
                             "init_module",
                             "finit_module",
                             "mount",
                             "move_mount",
                             "setns",
                             "unshare",
                             "chroot",
                             "pivot_root",
                             "perf_event_open",
                             "pidfd_getfd",
                             "keyctl",
                             "iopl",
                             "open_by_handle_at",
                             "process_madvise",
                             "io_uring_setup",
                             "io_uring_enter",
                             "modify_ldt",
                             "seccomp",
                             "io_submit",
                             "remap_file_pages"}) {
        const auto number = syscall_number(name);
        ASSERT_TRUE(number) << name;
        const Kind kind = syscall_info(*number)->kind;
        EXPECT_TRUE(kind == Kind::Never || kind == Kind::Absent) << name;
    }
}

TEST(Syscalls, UnknownNumbers) {
    EXPECT_EQ(syscall_info(335), nullptr);
    EXPECT_EQ(syscall_info(kSyscallCount), nullptr);
    EXPECT_EQ(syscall_info(~0ull), nullptr);
    EXPECT_EQ(syscall_info(0x40000000), nullptr);  // x32
}

TEST(Syscalls, ClassNames) {
    EXPECT_EQ(class_from_name("net"), Class::Net);
    EXPECT_EQ(class_from_name("admin"), Class::Admin);
    EXPECT_EQ(class_from_name("nothing"), std::nullopt);
    EXPECT_EQ(class_name(Class::Memory), "memory");
}

}  // namespace
}  // namespace dune::sandbox
