// SPDX-License-Identifier: MIT
//
// The mirror with every kind of memory: large pages, the vDSO's, userfaultfd's, addresses at the
// ends, slots that are taken away.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "guest.h"
#include "memory_support.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::End;
using guest::Machine;
using guest::map;
using memory::fault_of;
using memory::kHuge;
using memory::peek;
using memory::poke;
using memory::read_byte;
using support::kPage;

// --- large pages ---

// Faults of a test besides those that it counts: its code, data and stack, as ASLR has them lie.
constexpr uint64_t kOthers = 16;

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
    EXPECT_LE(ept_faults() - before, 16U + kOthers) << "one exit for 2 MiB";
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
        EXPECT_LE(ept_faults() - before, 2U + kOthers);
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

// Memory of Linux' large pages, of which Linux has so many there; nullptr if it has none.
char* large_pages(size_t count, int protection) {
    std::ofstream("/sys/kernel/mm/transparent_hugepage/enabled") << "madvise";
    const auto area = reinterpret_cast<uint64_t>(map((count + 1) * kHuge, protection));
    auto* p = reinterpret_cast<char*>((area + kHuge - 1) & ~(kHuge - 1));
    if (madvise(p, count * kHuge, MADV_HUGEPAGE) != 0) {
        return nullptr;
    }
    for (size_t i = 0; i < count; i++) {
        p[i * kHuge] = 1;
    }
    return p;
}

TEST(Large, CodeWhereTheCpuConfusesItsSizes) {
    // ITLB_MULTIHIT: no large page of ours is executable, for the guest could make it a small one
    // of its own tables as well. Data stays large.
    const std::string bug =
        support::read_file("/sys/devices/system/cpu/vulnerabilities/itlb_multihit");
    const bool small =
        bug.find("Not affected") == std::string::npos &&
        support::read_file("/proc/cmdline").find("mitigations=off") == std::string::npos;
    constexpr size_t kCode = 64;
    for (const bool code : {true, false}) {
        char* p = large_pages(1, PROT_READ | PROT_WRITE | (code ? PROT_EXEC : 0));
        if (!p || !Machine::get().has(DUNE_FEAT_EPT_2M)) {
            GTEST_SKIP() << "no large pages";
        }
        for (size_t i = 0; i < kCode; i++) {
            p[i * kPage] = static_cast<char>(0xc3);  // ret
        }
        guest::enter([] {});
        const uint64_t before = ept_faults();
        const End end = guest::enter([&] {
            for (size_t i = 0; i < kCode; i++) {
                if (code) {
                    reinterpret_cast<void (*)()>(p + i * kPage)();
                } else {
                    read_byte(p + i * kPage);
                }
            }
        });
        ASSERT_TRUE(end.left()) << end;
        if (code && small) {
            EXPECT_GE(ept_faults() - before, kCode) << bug;
        } else {
            EXPECT_LE(ept_faults() - before, 1U + kOthers) << bug;
        }
    }
}

TEST(Large, LargeDataThatBecomesCode) {
    char* p = large_pages(1, PROT_READ | PROT_WRITE);
    if (!p) {
        GTEST_SKIP() << "no large pages";
    }
    p[5 * kPage] = static_cast<char>(0xc3);  // ret
    poke(p + 4 * kPage, 7);
    ASSERT_EQ(mprotect(p, kHuge, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    const auto call = [&] { reinterpret_cast<void (*)()>(p + 5 * kPage)(); };
    EXPECT_EQ(fault_of(call).trap.vector, guest::kNoTrap);
    EXPECT_EQ(peek(p + 4 * kPage), 7);
    ASSERT_EQ(mprotect(p, kHuge, PROT_READ | PROT_WRITE), 0);
    EXPECT_REFUSED(call(), SIGSEGV, SEGV_ACCERR, p + 5 * kPage);
    poke(p + 5 * kPage, 8);
    EXPECT_EQ(p[5 * kPage], 8);
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
    EXPECT_LE(ept_faults() - before, 64U + kOthers);
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

TEST(Special, DeviceMemory) {
    // The screen's memory. The first write to a page of a device is the guest's alone: the host
    // does not try it by a touch of its own, which the device would see.
    constexpr size_t kPages = 32;
    constexpr size_t kText = 24 * kPage;  // at 0xb8000
    const int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0) << strerror(errno);
    void* const mapped =
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xa0000);
    close(fd);
    ASSERT_NE(mapped, MAP_FAILED) << strerror(errno);
    auto* const p = static_cast<volatile char*>(mapped);
    Machine::get().show_everything();
    unsigned sum = 0;
    guest::enter([&] {
        for (size_t i = 0; i < kPages; i++) {
            sum += static_cast<unsigned char>(p[i * kPage]);
        }
    });
    const uint64_t before = ept_faults();
    const End end = guest::enter([&] {
        for (size_t i = 0; i < kPages; i++) {
            p[i * kPage] = static_cast<char>('A' + i);
        }
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_LE(ept_faults() - before, kOthers);
    for (size_t i = kText / kPage; i < kPages; i++) {
        EXPECT_EQ(p[i * kPage], static_cast<char>('A' + i)) << i;
    }
    munmap(mapped, kPages * kPage);
}

class Userfault : public testing::Test {
  protected:
    // The area is at `where`, if that is not null.
    void open(int flags, void* where = nullptr) {
        fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags));
        if (fd_ < 0) {
            GTEST_SKIP() << "no userfaultfd: " << strerror(errno);
        }
        uffdio_api api = {UFFD_API, 0, 0};
        ASSERT_EQ(ioctl(fd_, UFFDIO_API, &api), 0);
        area_ = map(8 * kPage);
        if (where) {
            area_ = static_cast<char*>(mmap(where, 8 * kPage, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
            ASSERT_EQ(area_, where);
            Machine::get().show(where, 8 * kPage);
        }
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
            if (before_serving_) {
                before_serving_();
            }
            uffdio_copy copy = {page, reinterpret_cast<uint64_t>(source), kPage, 0, 0};
            served_++;  // first: who faulted goes on, and looks, while this still copies
            ioctl(fd_, UFFDIO_COPY, &copy);
        }
    }

    int fd_ = -1;
    char* area_ = nullptr;
    std::thread handler_;
    std::function<void()> before_serving_;
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
    // The guest's are user mode's, also if it was entered by the door, which is a fault itself.
    open(1 /* UFFD_USER_MODE_ONLY */);
    if (IsSkipped()) {
        return;
    }
    for (const bool door : {false, true}) {
        const memory::Options options = {.door = door, .traps = true};
        const char* page = area_ + (2 + door) * kPage;
        EXPECT_EQ(fault_of([&] { read_byte(page); }, options).trap.vector, guest::kNoTrap);
        EXPECT_EQ(*page, 'C' + door);
    }
}

TEST(UserfaultWriteProtect, TakesTheGuestsWrites) {
    // A write to a page that is write-protected waits until somebody allows it; reads go on.
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    if (fd < 0) {
        GTEST_SKIP() << "no userfaultfd: " << strerror(errno);
    }
    uffdio_api api = {UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, 0};
    char* p = map(kPage);
    madvise(p, kPage, MADV_NOHUGEPAGE);
    poke(p, 1);
    uffdio_register reg = {};
    reg.range = {reinterpret_cast<uint64_t>(p), kPage};
    reg.mode = UFFDIO_REGISTER_MODE_WP;
    if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &reg) != 0) {
        close(fd);
        GTEST_SKIP() << "no write protection";
    }
    int faults = 0;
    std::atomic<bool> stop = false;
    std::thread handler([&] {
        while (!stop) {
            pollfd poll_fd = {fd, POLLIN, 0};
            uffd_msg message;
            if (poll(&poll_fd, 1, 20) == 1 &&
                read(fd, &message, sizeof(message)) == sizeof(message)) {
                faults += (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
                uffdio_writeprotect allow = {reg.range, 0};
                ioctl(fd, UFFDIO_WRITEPROTECT, &allow);
            }
        }
    });
    for (int i = 0; i < 4; i++) {
        uffdio_writeprotect forbid = {reg.range, UFFDIO_WRITEPROTECT_MODE_WP};
        EXPECT_EQ(ioctl(fd, UFFDIO_WRITEPROTECT, &forbid), 0);
        EXPECT_EQ(peek(p), i + 1);
        EXPECT_EQ(faults, i) << "a read is none";
        poke(p, static_cast<char>(i + 2));
        EXPECT_EQ(faults, i + 1);
        poke(p + 1, 'x');
        EXPECT_EQ(faults, i + 1) << "allowed";
    }
    stop = true;
    handler.join();
    close(fd);
}

TEST_F(Userfault, ASlotHiddenWhileTheFaultWaits) {
    // Nobody would take that page out of the mirror any more: it must not get there.
    uint32_t va = 0x280000000000 >> DUNE_SLOT_SHIFT;
    open(0, reinterpret_cast<void*>(0x280000000000));
    if (IsSkipped()) {
        return;
    }
    memory::map_what_traps_need();
    const Machine& machine = Machine::get();
    const auto set_slot = [&](uint32_t shows) {
        dune_slots slots = {sizeof(slots),
                            static_cast<uint32_t>(machine.gpa(area_) >> DUNE_SLOT_SHIFT), 1, 0,
                            reinterpret_cast<uint64_t>(&shows)};
        return ioctl(machine.fd(), DUNE_SET_SLOTS, &slots);
    };
    before_serving_ = [&] { EXPECT_EQ(set_slot(DUNE_SLOT_NONE), 0); };
    for (const bool write : {false, true}) {
        const char* page = area_ + write * kPage;
        const auto touch = [&] {
            if (write) {
                *const_cast<volatile char*>(page) = 1;
            } else {
                read_byte(page);
            }
        };
        EXPECT_REFUSED(touch(), SIGSEGV, SEGV_MAPERR, page);
        EXPECT_EQ(set_slot(va), 0);
        EXPECT_EQ(peek(page), 'A' + write);
    }
    EXPECT_EQ(served_, 2);
}

TEST_F(Userfault, ASignalEndsTheWait) {
    // What the guest waits for comes from a signal handler of the same thread.
    open(0);
    if (IsSkipped()) {
        return;
    }
    stop_ = true;
    handler_.join();
    static uffdio_copy copy;
    static char source[kPage];
    static int uffd;
    std::memset(source, 'S', kPage);
    copy = {reinterpret_cast<uint64_t>(area_), reinterpret_cast<uint64_t>(source), kPage, 0, 0};
    uffd = fd_;
    struct sigaction action = {}, before;
    action.sa_handler = [](int) {
        guest::note_handler(false);
        ioctl(uffd, UFFDIO_COPY, &copy);
    };
    sigaction(SIGALRM, &action, &before);
    const itimerval soon = {{0, 0}, {0, 100'000}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    EXPECT_EQ(peek(area_), 'S');
    EXPECT_EQ(copy.copy, static_cast<int64_t>(kPage));
    sigaction(SIGALRM, &before, nullptr);
    close(fd_);
}

TEST_F(Userfault, AKilledWaiterGoes) {
    open(0);
    if (IsSkipped()) {
        return;
    }
    stop_ = true;
    handler_.join();
    // UFFD_FEATURE_EVENT_FORK is off: the child has no handler at all.
    const pid_t pid = support::fork_or_end();
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

TEST(Special, TablesGoWithTheLastPage) {
    // Unmapped in pieces of less than a table shows, whether the pages are still there or not.
    constexpr size_t kAreas = 64;
    char* p = map(kAreas * kHuge);
    munmap(p, kAreas * kHuge);
    const auto area = [&](size_t i) { return p + i * kHuge + i * kPage; };
    guest::enter([] {});
    const uint64_t before = Machine::get().stats().ept_bytes;
    for (size_t i = 0; i < kAreas; i++) {
        ASSERT_EQ(mmap(area(i), 2 * kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
                  area(i));
    }
    guest::enter([&] {
        for (size_t i = 0; i < kAreas; i++) {
            *area(i) = 1;
            read_byte(area(i) + kPage);
        }
    });
    EXPECT_GE(Machine::get().stats().ept_bytes, before + (kAreas - 2) * kPage);
    for (size_t i = 0; i < kAreas; i++) {
        ASSERT_EQ(munmap(area(i), kPage), 0);
        EXPECT_EQ(peek(area(i) + kPage), 0);
        if (i % 2) {
            ASSERT_EQ(madvise(area(i) + kPage, kPage, MADV_DONTNEED), 0);
        }
    }
    EXPECT_GE(Machine::get().stats().ept_bytes, before + (kAreas - 2) * kPage);
    for (size_t i = 0; i < kAreas; i++) {
        ASSERT_EQ(munmap(area(i) + kPage, kPage), 0);
    }
    // One may have been there before, for what else lies beside.
    EXPECT_LE(Machine::get().stats().ept_bytes, before + 4 * kPage);
}

TEST(Special, AWaitLeavesTheCpuToWhomItWaitsFor) {
    // A thread of real-time priority is woken while another of the same CPU takes memory away, and
    // wants some of that. It is not to keep the CPU until the end of what cannot end without it.
    constexpr size_t kSize = 4 * kHuge;
    constexpr long kEnough = 100'000'000;
    char* memory = map(kSize);
    madvise(memory, kSize, MADV_NOHUGEPAGE);
    std::atomic<bool> stop = false;
    std::thread other([&] {
        support::pin_to(0);
        while (!stop) {
            std::memset(memory, 1, kSize);
            madvise(memory, kSize, MADV_DONTNEED);
        }
    });
    long longest = 0;
    bool first = false;
    std::thread([&] {
        support::pin_to(0);
        const sched_param priority = {1};
        first = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
        const End end = guest::enter([&] {
            timespec nap = {0, 1'500'000}, before, after;
            for (size_t i = 0; i < 300 && longest < kEnough; i++) {
                guest::call(SYS_nanosleep, support::arg(&nap));
                guest::call(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, support::arg(&before));
                for (size_t j = 0; j < 4; j++) {
                    read_byte(memory + (i * 7 + j * 512) % (kSize / kPage) * kPage);
                }
                guest::call(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, support::arg(&after));
                longest = std::max(longest, (after.tv_sec - before.tv_sec) * 1'000'000'000 +
                                                after.tv_nsec - before.tv_nsec);
            }
        });
        EXPECT_TRUE(end.left()) << end;
    }).join();
    stop = true;
    other.join();
    EXPECT_TRUE(first);
    EXPECT_LT(longest, kEnough) << "ns on the CPU for four reads";
    munmap(memory, kSize);
}

}  // namespace
