// SPDX-License-Identifier: MIT
//
// The mirror: what the guest sees is what the process sees, after every change of it, and with the
// rights that Linux gives. (Kinds of memory: kern_mapping_test.)

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "guest.h"
#include "memory_support.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::Machine;
using guest::map;
using guest::Options;
using guest::Trap;
using memory::fault_of;
using memory::kPf;
using memory::kWithTraps;
using memory::map_what_traps_need;
using memory::peek;
using memory::poke;
using memory::read_byte;
using support::kPage;

// --- the same contents ---

TEST(Memory, BothSeeTheSame) {
    char* p = map(16 * kPage);
    for (size_t i = 0; i < 16; i++) {
        p[i * kPage] = static_cast<char>(i + 1);
        EXPECT_EQ(peek(p + i * kPage), static_cast<int>(i + 1));
        poke(p + i * kPage + 1, static_cast<char>(i + 40));
        EXPECT_EQ(p[i * kPage + 1], static_cast<char>(i + 40));
    }
}

TEST(Memory, MunmapAndMmapAtTheSamePlace) {
    char* p = map(kPage);
    for (int i = 0; i < 50; i++) {
        poke(p, 42);
        ASSERT_EQ(munmap(p, kPage), 0);
        ASSERT_EQ(
            mmap(p, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
            p);
        EXPECT_EQ(peek(p), 0) << "new memory is zero";
    }
}

TEST(Memory, MapFixedOverOldMemory) {
    char* p = map(kPage);
    poke(p, 42);
    const int fd = memfd_create("over", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, kPage), 0);
    ASSERT_EQ(pwrite(fd, "F", 1, 0), 1);
    ASSERT_EQ(mmap(p, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0), p);
    EXPECT_EQ(peek(p), 'F');
    close(fd);
}

TEST(Memory, ChangesMadeByTheGuestItself) {
    char* p = map(kPage);
    int before = -1, after = -1;
    for (const bool fast : {false, true}) {
        Options options;
        options.fast = fast;
        guest::enter(
            [&] {
                *p = 42;
                before = static_cast<unsigned char>(*p);
                guest::call(SYS_madvise, reinterpret_cast<long>(p), kPage, MADV_DONTNEED);
                after = *reinterpret_cast<volatile unsigned char*>(p);
            },
            options);
        EXPECT_EQ(before, 42);
        EXPECT_EQ(after, 0);
    }
}

TEST(Memory, Mremap) {
    char* p = map(4 * kPage);
    poke(p, 1);
    poke(p + kPage, 2);
    char* target = map(4 * kPage);
    ASSERT_EQ(mremap(p, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target), target);
    EXPECT_EQ(peek(target), 1);
    EXPECT_EQ(peek(target + kPage), 2);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_MAPERR, p);
}

TEST(Memory, MadviseFreeAndDontneed) {
    char* p = map(kPage);
    poke(p, 42);
    ASSERT_EQ(madvise(p, kPage, MADV_FREE), 0);
    poke(p, 43);
    EXPECT_EQ(*p, 43) << "written after MADV_FREE";
    ASSERT_EQ(madvise(p, kPage, MADV_DONTNEED), 0);
    EXPECT_EQ(peek(p), 0);
}

TEST(Memory, ZeroPageIsNotWritable) {
    char* p = map(2 * kPage);
    EXPECT_EQ(peek(p), 0) << "read first: the zero page";
    poke(p, 1);
    EXPECT_EQ(*p, 1);
    EXPECT_EQ(p[kPage], 0) << "and the zero page is still zero";
}

TEST(Memory, CopyOnWriteAfterFork) {
    char* p = map(kPage);
    poke(p, 1);
    int pipes[2][2];
    ASSERT_EQ(pipe(pipes[0]) | pipe(pipes[1]), 0);
    const pid_t pid = support::fork_or_end();
    char byte = 0;
    if (pid == 0) {
        int ok = peek(p) == 1;
        poke(p, 2);
        ok = ok && *p == 2;
        static_cast<void>(!write(pipes[0][1], "x", 1));
        static_cast<void>(!read(pipes[1][0], &byte, 1));
        ok = ok && peek(p) == 2;
        _exit(ok ? 0 : 1);
    }
    EXPECT_EQ(read(pipes[0][0], &byte, 1), 1);
    EXPECT_EQ(peek(p), 1) << "the child's write is the child's";
    poke(p, 3);
    EXPECT_EQ(write(pipes[1][1], "x", 1), 1);
    int status;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(*p, 3);
}

TEST(Memory, SharedWithAChild) {
    auto* p = static_cast<char*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    poke(p, 1);
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        poke(p, 7);
        _exit(0);
    }
    waitpid(pid, nullptr, 0);
    EXPECT_EQ(peek(p), 7);
}

TEST(Memory, SharedFile) {
    char path[] = "/tmp/memory-XXXXXX";
    const int fd = mkstemp(path);
    unlink(path);
    ASSERT_EQ(ftruncate(fd, 3 * kPage), 0);
    auto* p =
        static_cast<char*>(mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    poke(p, 'a');
    char byte = 0;
    EXPECT_EQ(pread(fd, &byte, 1, 0), 1);
    EXPECT_EQ(byte, 'a');
    EXPECT_EQ(pwrite(fd, "b", 1, 0), 1);
    EXPECT_EQ(peek(p), 'b');
    ASSERT_EQ(msync(p, kPage, MS_SYNC), 0);
    poke(p, 'c');
    EXPECT_EQ(pread(fd, &byte, 1, 0), 1);
    EXPECT_EQ(byte, 'c') << "a write after the page was cleaned";
    poke(p + kPage, 1);
    ASSERT_EQ(ftruncate(fd, kPage), 0);
    EXPECT_REFUSED(read_byte(p + kPage), SIGBUS, BUS_ADRERR, p + kPage);
    EXPECT_EQ(peek(p), 'c');
    close(fd);
}

TEST(Memory, PrivateFile) {
    const int fd = memfd_create("private", MFD_CLOEXEC);
    ASSERT_EQ(pwrite(fd, "file", 4, 0), 4);
    auto* p = static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    EXPECT_EQ(peek(p), 'f');
    EXPECT_EQ(pwrite(fd, "F", 1, 0), 1);
    EXPECT_EQ(peek(p), 'F');
    poke(p, 'x');
    char byte = 0;
    EXPECT_EQ(pread(fd, &byte, 1, 0), 1);
    EXPECT_EQ(byte, 'F') << "the file is not the guest's to change";
    EXPECT_EQ(*p, 'x');
    close(fd);
}

TEST(Memory, PunchedHole) {
    const int fd = memfd_create("hole", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, 4 * kPage), 0);
    auto* p =
        static_cast<char*>(mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    poke(p + kPage, 9);
    ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPage, kPage), 0);
    EXPECT_EQ(peek(p + kPage), 0);
    close(fd);
}

// --- rights ---

TEST(Rights, ReadOnlyMemory) {
    char* p = map(kPage);
    poke(p, 1);
    ASSERT_EQ(mprotect(p, kPage, PROT_READ), 0);
    EXPECT_EQ(peek(p), 1);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 2, SIGSEGV, SEGV_ACCERR, p);
    EXPECT_EQ(*p, 1);
    ASSERT_EQ(mprotect(p, kPage, PROT_READ | PROT_WRITE), 0);
    poke(p, 3);
    EXPECT_EQ(*p, 3);
}

TEST(Rights, NoMemory) {
    char* p = map(kPage);
    poke(p, 1);
    ASSERT_EQ(mprotect(p, kPage, PROT_NONE), 0);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_ACCERR, p);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 2, SIGSEGV, SEGV_ACCERR, p);
    ASSERT_EQ(mprotect(p, kPage, PROT_READ), 0);
    EXPECT_EQ(peek(p), 1);
    ASSERT_EQ(munmap(p, kPage), 0);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_MAPERR, p);
}

TEST(Rights, ErrorCodeTellsTheAccess) {
    map_what_traps_need();
    char* p = map(kPage);
    ASSERT_EQ(munmap(p, kPage), 0);
    EXPECT_FALSE(fault_of([&] { read_byte(p); }).trap.error & 2);
    EXPECT_TRUE(fault_of([&] { *const_cast<volatile char*>(p) = 1; }).trap.error & 2);
    EXPECT_TRUE(fault_of([&] { reinterpret_cast<void (*)()>(p)(); }).trap.error & 16);
}

void write_ret(char* p) {
    *p = static_cast<char>(0xc3);
}

TEST(Rights, Execution) {
    char* p = map(kPage, PROT_READ | PROT_WRITE);
    write_ret(p);
    const auto call = [&] { reinterpret_cast<void (*)()>(p)(); };
    EXPECT_REFUSED(call(), SIGSEGV, SEGV_ACCERR, p);
    ASSERT_EQ(mprotect(p, kPage, PROT_READ | PROT_EXEC), 0);
    EXPECT_EQ(fault_of(call).trap.vector, guest::kNoTrap);
    ASSERT_EQ(mprotect(p, kPage, PROT_READ), 0);
    EXPECT_REFUSED(call(), SIGSEGV, SEGV_ACCERR, p);
    ASSERT_EQ(mprotect(p, kPage, PROT_EXEC), 0);
    EXPECT_EQ(fault_of(call).trap.vector, guest::kNoTrap);
}

TEST(Rights, Ring3FaultsSayUser) {
    map_what_traps_need();
    char* code = map(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
    const unsigned char kLoad[] = {0x8a, 0x07};  // mov (%rdi), %al
    std::memcpy(code, kLoad, sizeof(kLoad));
    char* gone = map(kPage);
    munmap(gone, kPage);
    Trap trap;
    guest::enter([&] { trap = guest::ring3(code, reinterpret_cast<uint64_t>(gone)); }, kWithTraps);
    EXPECT_EQ(trap.vector, kPf);
    EXPECT_TRUE(trap.error & 4);
    EXPECT_EQ(trap.cr2, reinterpret_cast<uint64_t>(gone));
}

TEST(Rights, KernelMemoryIsNowhere) {
    // No slot shows it, and the guest's own tables cannot name it.
    uint32_t va = 0x3fffffff;
    dune_slots slots = {sizeof(slots), 900, 1, 0, reinterpret_cast<uint64_t>(&va)};
    EXPECT_NE(ioctl(Machine::get().fd(), DUNE_SET_SLOTS, &slots), 0);
}

TEST(Rights, ProtectionKeys) {
    const long key = syscall(SYS_pkey_alloc, 0, 0);
    if (key < 0) {
        GTEST_SKIP() << "no protection keys";
    }
    // CR4.PKE is off in the guest until it sets it: ring 0 reads what the process mapped.
    char* p = map(kPage);
    *p = 5;
    ASSERT_EQ(syscall(SYS_pkey_mprotect, p, kPage, PROT_READ | PROT_WRITE, key), 0);
    EXPECT_EQ(peek(p), 5);
    poke(p, 6);
    EXPECT_EQ(*p, 6);
    syscall(SYS_pkey_free, key);
}

TEST(Rights, ProtectionKeysThatRefuse) {
    // A page that is not there yet, which Linux would not map for the process either.
    map_what_traps_need();
    const long key = syscall(SYS_pkey_alloc, 0, PKEY_DISABLE_ACCESS);
    if (key < 0) {
        GTEST_SKIP() << "no protection keys";
    }
    char* p = map(kPage);
    ASSERT_EQ(syscall(SYS_pkey_mprotect, p, kPage, PROT_READ | PROT_WRITE, key), 0);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_PKUERR, p);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 1, SIGSEGV, SEGV_PKUERR, p);
    syscall(SYS_pkey_free, key);
}

TEST(Rights, ShadowStack) {
    // Its VMA is writable, for calls. A plain write is refused, and must not be tried for ever.
    constexpr long kMapShadowStack = 453;
    map_what_traps_need();
    const long address = syscall(kMapShadowStack, 0, 2 * kPage, 0);
    if (address == -1) {
        GTEST_SKIP() << "no shadow stacks";
    }
    auto* p = reinterpret_cast<char*>(address);
    Machine::get().show(p, 2 * kPage);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 1, SIGSEGV, SEGV_ACCERR, p);
    EXPECT_EQ(peek(p), 0);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 1, SIGSEGV, SEGV_ACCERR, p);
    munmap(p, 2 * kPage);
}

TEST(Rights, GuardRegions) {
    // In the midst of a mapping, and Linux says that there is none.
    constexpr int kInstall = 102, kRemove = 103;  // MADV_GUARD_INSTALL, _REMOVE
    char* p = map(4 * kPage);
    poke(p, 1);
    if (madvise(p, kPage, kInstall) != 0) {
        GTEST_SKIP() << "no guard regions";
    }
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_MAPERR, p);
    EXPECT_REFUSED(*const_cast<volatile char*>(p) = 1, SIGSEGV, SEGV_MAPERR, p);
    ASSERT_EQ(madvise(p, kPage, kRemove), 0);
    EXPECT_EQ(peek(p), 0);
}

TEST(Rights, StackGrows) {
    map_what_traps_need();
    // MAP_GROWSDOWN memory grows by the guest's touch, as by the process'.
    char* p = map(64 * kPage);
    ASSERT_EQ(munmap(p, 64 * kPage), 0);
    ASSERT_EQ(mmap(p + 63 * kPage, kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0),
              p + 63 * kPage);
    poke(p + 63 * kPage, 1);
    poke(p + 62 * kPage, 2);
    EXPECT_EQ(p[62 * kPage], 2);
}

}  // namespace
