// SPDX-License-Identifier: MIT
//
// The mirror: what the guest sees is what the process sees, with every kind of memory
// and after every change of it.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "guest.h"
#include "traps.h"

namespace {

using guest::End;
using guest::Machine;
using guest::map;
using guest::Options;
using guest::probe;
using guest::Trap;
using guest::Vcpu;

constexpr size_t kPage = 4096;
constexpr size_t kHuge = 2 << 20;
constexpr int kPf = 14;

const Options kWithTraps = [] {
    Options options;
    options.traps = true;
    return options;
}();

// One byte, as the guest sees it.
int peek(const volatile char* p) {
    int value = -1;
    const End end = guest::enter([&] { value = *p; });
    EXPECT_TRUE(end.left()) << end;
    return value;
}

void poke(volatile char* p, char value) {
    const End end = guest::enter([&] { *p = value; });
    EXPECT_TRUE(end.left()) << end;
}

struct Fault {
    Trap trap;
    uint32_t signal;
    int code;
    uint64_t address;
};

// The first trap and the first ring 3 of a process map stacks: before a test counts on a hole.
void map_what_traps_need() {
    static char code[] = {static_cast<char>(0x0f), 0x0b};  // ud2
    guest::enter([] { probe([] {}); }, kWithTraps);
    guest::enter([] { guest::ring3(code, 0); }, kWithTraps);
}

// What the guest's access ends in: no trap, or a #PF and what the page says of it.
template <typename F>
Fault fault_of(F&& access) {
    Fault fault = {};
    const End end = guest::enter([&] { fault.trap = probe(access); }, kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    const dune_vcpu_page& page = Vcpu::get().page();
    fault.signal = page.fault_signal;
    fault.code = page.fault_si_code;
    fault.address = page.fault_address;
    return fault;
}

void read_byte(const volatile char* p) {
    static_cast<void>(*p);
}

// Checks that Linux refuses an access to an address, and how.
template <typename F>
void expect_refused(F&& access, int signal, int code, const char* where) {
    const Fault fault = fault_of(access);
    EXPECT_EQ(fault.trap.vector, kPf);
    EXPECT_EQ(fault.trap.cr2, reinterpret_cast<uint64_t>(where));
    EXPECT_EQ(fault.address, reinterpret_cast<uint64_t>(where));
    EXPECT_TRUE(fault.trap.error & DUNE_PF_FROM_HOST) << std::hex << fault.trap.error;
    EXPECT_EQ(fault.signal, static_cast<uint32_t>(signal));
    EXPECT_EQ(fault.code, code);
}

#define EXPECT_REFUSED(access, signal, code, where)           \
    do {                                                      \
        SCOPED_TRACE(#access);                                \
        expect_refused([&] { access; }, signal, code, where); \
    } while (0)

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
                before = *p;
                guest::call(SYS_madvise, reinterpret_cast<long>(p), kPage, MADV_DONTNEED);
                after = *const_cast<volatile char*>(p);
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
    const pid_t pid = fork();
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
    const pid_t pid = fork();
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

// --- large pages ---

uint64_t ept_faults() {
    return Machine::get().stats().ept_faults;
}

TEST(Large, TransparentHugePages) {
    std::ofstream("/sys/kernel/mm/transparent_hugepage/enabled") << "madvise";
    char* area = map(18 * kHuge);
    auto* p =
        reinterpret_cast<char*>((reinterpret_cast<uint64_t>(area) + kHuge - 1) & ~(kHuge - 1));
    if (madvise(p, 16 * kHuge, MADV_HUGEPAGE) != 0) {
        GTEST_SKIP() << "no transparent huge pages";
    }
    guest::enter([] {});
    const uint64_t before = ept_faults();
    const End end = guest::enter([&] {
        for (size_t i = 0; i < 16 * kHuge; i += kPage) {
            p[i] = 1;
        }
    });
    ASSERT_TRUE(end.left()) << end;
    if (!Machine::get().has(DUNE_FEAT_EPT_2M)) {
        return;
    }
    EXPECT_LE(ept_faults() - before, 16U + 8) << "one exit for 2 MiB (and a few for the test)";
    // A change of a part of it splits it, and nothing is lost.
    ASSERT_EQ(madvise(p + kPage, kPage, MADV_DONTNEED), 0);
    ASSERT_EQ(mprotect(p + 5 * kPage, kPage, PROT_READ), 0);
    EXPECT_EQ(peek(p), 1);
    EXPECT_EQ(peek(p + kPage), 0);
    EXPECT_EQ(peek(p + 2 * kPage), 1);
    EXPECT_REFUSED(p[5 * kPage] = 2, SIGSEGV, SEGV_ACCERR, p + 5 * kPage);
}

TEST(Large, Hugetlbfs) {
    std::ofstream("/proc/sys/vm/nr_hugepages") << "4";
    void* memory = mmap(nullptr, 2 * kHuge, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (memory == MAP_FAILED) {
        GTEST_SKIP() << "no huge pages";
    }
    auto* p = static_cast<char*>(memory);
    guest::enter([] {});
    const uint64_t before = ept_faults();
    guest::enter([&] {
        for (size_t i = 0; i < 2 * kHuge; i += kPage) {
            p[i] = static_cast<char>(i >> 12);
        }
    });
    if (Machine::get().has(DUNE_FEAT_EPT_2M)) {
        EXPECT_LE(ept_faults() - before, 2U + 4);
    }
    for (size_t i = 0; i < 2 * kHuge; i += kPage) {
        ASSERT_EQ(p[i], static_cast<char>(i >> 12));
    }
    ASSERT_EQ(munmap(p, kHuge), 0);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_MAPERR, p);
    EXPECT_EQ(peek(p + kHuge + kPage), 1);
    munmap(p + kHuge, kHuge);
    std::ofstream("/proc/sys/vm/nr_hugepages") << "0";
}

TEST(Large, FirstTouchByTheHost) {
    char* p = map(64 * kPage);
    madvise(p, 64 * kPage, MADV_NOHUGEPAGE);
    std::memset(p, 1, 64 * kPage);
    guest::enter([] {});
    const uint64_t before = ept_faults();
    guest::enter([&] {
        for (size_t i = 0; i < 64; i++) {
            p[i * kPage] = 2;
        }
    });
    EXPECT_LE(ept_faults() - before, 64U + 4);
}

// --- memory of other kinds ---

TEST(Special, VdsoInTheGuest) {
    // vvar is a VM_PFNMAP mapping: the clock is read without an exit.
    timespec time[2] = {};
    guest::enter([&] { clock_gettime(CLOCK_MONOTONIC, &time[0]); });
    const dune_stats before = Machine::get().stats();
    guest::enter([&] {
        for (int i = 0; i < 100; i++) {
            clock_gettime(CLOCK_MONOTONIC, &time[1]);
        }
    });
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(after.fast_calls + after.slow_calls, before.fast_calls + before.slow_calls);
    EXPECT_LE(after.exits[18] - before.exits[18], 1U);
    EXPECT_TRUE(time[1].tv_sec > time[0].tv_sec ||
                (time[1].tv_sec == time[0].tv_sec && time[1].tv_nsec > time[0].tv_nsec));
}

class Userfault : public testing::Test {
  protected:
    void open(int flags) {
        fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags));
        if (fd_ < 0) {
            GTEST_SKIP() << "no userfaultfd: " << strerror(errno);
        }
        uffdio_api api = {UFFD_API, 0, 0};
        ASSERT_EQ(ioctl(fd_, UFFDIO_API, &api), 0);
        area_ = map(8 * kPage);
        madvise(area_, 8 * kPage, MADV_NOHUGEPAGE);
        uffdio_register reg = {};
        reg.range = {reinterpret_cast<uint64_t>(area_), 8 * kPage};
        reg.mode = UFFDIO_REGISTER_MODE_MISSING;
        ASSERT_EQ(ioctl(fd_, UFFDIO_REGISTER, &reg), 0);
        handler_ = std::thread([this] { handle(); });
    }

    void TearDown() override {
        if (handler_.joinable()) {
            stop_ = true;
            handler_.join();
            close(fd_);
        }
    }

    void handle() {
        static char source[kPage];
        while (!stop_) {
            pollfd poll_fd = {fd_, POLLIN, 0};
            if (poll(&poll_fd, 1, 20) != 1) {
                continue;
            }
            uffd_msg message;
            if (read(fd_, &message, sizeof(message)) != sizeof(message)) {
                continue;
            }
            const uint64_t page = message.arg.pagefault.address & ~(kPage - 1);
            std::memset(source,
                        static_cast<int>('A' + (page - reinterpret_cast<uint64_t>(area_)) / kPage),
                        kPage);
            uffdio_copy copy = {page, reinterpret_cast<uint64_t>(source), kPage, 0, 0};
            ioctl(fd_, UFFDIO_COPY, &copy);
            served_ = served_ + 1;
        }
    }

    int fd_ = -1;
    char* area_ = nullptr;
    std::thread handler_;
    volatile bool stop_ = false;
    std::atomic<int> served_ = 0;
};

TEST_F(Userfault, ServesTheGuest) {
    open(0);
    if (IsSkipped()) {
        return;
    }
    for (int i = 0; i < 8; i++) {
        if (i & 1) {
            poke(area_ + i * kPage + 1, 'z');
        }
        EXPECT_EQ(peek(area_ + i * kPage), 'A' + i);
    }
    EXPECT_EQ(served_, 8);
    ASSERT_EQ(madvise(area_, kPage, MADV_DONTNEED), 0);
    EXPECT_EQ(peek(area_), 'A');
    EXPECT_EQ(served_, 9);
}

TEST_F(Userfault, UserModeOnly) {
    // What an unprivileged process gets: faults of user mode are served, the kernel's are not.
    // The guest's are user mode's.
    open(1 /* UFFD_USER_MODE_ONLY */);
    if (IsSkipped()) {
        return;
    }
    EXPECT_EQ(fault_of([&] { read_byte(area_ + 2 * kPage); }).trap.vector, guest::kNoTrap);
    EXPECT_EQ(area_[2 * kPage], 'C');
}

TEST_F(Userfault, AKilledWaiterGoes) {
    open(0);
    if (IsSkipped()) {
        return;
    }
    stop_ = true;
    handler_.join();
    const pid_t pid = fork();  // UFFD_FEATURE_EVENT_FORK is off: the child has no handler at all
    if (pid == 0) {
        const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
        uffdio_api api = {UFFD_API, 0, 0};
        ioctl(fd, UFFDIO_API, &api);
        char* p = map(kPage);
        uffdio_register reg = {};
        reg.range = {reinterpret_cast<uint64_t>(p), kPage};
        reg.mode = UFFDIO_REGISTER_MODE_MISSING;
        ioctl(fd, UFFDIO_REGISTER, &reg);
        peek(p);
        _exit(0);
    }
    usleep(100'000);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, WNOHANG), 0) << "it waits for a handler";
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
}

TEST(Special, HighAndLowAddresses) {
    for (const uint64_t address : {0x10000UL, 0x40000000UL, 0x100000000000UL, 0x7ff000000000UL}) {
        void* p = mmap(reinterpret_cast<void*>(address), kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (p == MAP_FAILED) {
            continue;
        }
        poke(static_cast<char*>(p), 3);
        EXPECT_EQ(*static_cast<char*>(p), 3) << std::hex << address;
        munmap(p, kPage);
    }
}

TEST(Special, ASlotTakenAwayIsAFault) {
    Machine& machine = Machine::get();
    char* p = static_cast<char*>(mmap(reinterpret_cast<void*>(0x200000000000), kPage,
                                      PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    ASSERT_NE(p, MAP_FAILED);
    poke(p, 1);
    const auto slot = static_cast<uint32_t>(machine.gpa(p) >> DUNE_SLOT_SHIFT);
    uint32_t none = DUNE_SLOT_NONE, va = 0x200000000000 >> DUNE_SLOT_SHIFT;
    dune_slots slots = {sizeof(slots), slot, 1, 0, reinterpret_cast<uint64_t>(&none)};
    ASSERT_EQ(ioctl(machine.fd(), DUNE_SET_SLOTS, &slots), 0);
    EXPECT_REFUSED(read_byte(p), SIGSEGV, SEGV_MAPERR, p);
    slots.va_slots = reinterpret_cast<uint64_t>(&va);
    ASSERT_EQ(ioctl(machine.fd(), DUNE_SET_SLOTS, &slots), 0);
    EXPECT_EQ(peek(p), 1);
}

TEST(Special, TablesGoWithTheMemory) {
    // Mapping and unmapping for ever must not pile up EPT tables.
    guest::enter([] {});
    uint64_t low = 0, high = 0;
    for (int i = 0; i < 60; i++) {
        char* p = map(8 * kHuge);
        madvise(p, 8 * kHuge, MADV_NOHUGEPAGE);
        guest::enter([&] {
            for (size_t j = 0; j < 8; j++) {
                p[j * kHuge] = 1;
            }
        });
        munmap(p, 8 * kHuge);
        const uint64_t bytes = Machine::get().stats().ept_bytes;
        if (i == 10) {
            low = bytes;
        }
        high = bytes;
    }
    EXPECT_LE(high, low + 16 * kPage);
}

}  // namespace
