// SPDX-License-Identifier: MIT
//
// The interface of /dev/dune: everything that a caller passes is checked before use.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "guest.h"
#include "support.h"

namespace {

using guest::End;
using guest::Machine;
using guest::Vcpu;

int ioctl_error(int fd, unsigned long command, const void* argument) {
    return ioctl(fd, command, argument) < 0 ? errno : 0;
}

int device() {
    return Machine::get().fd();
}

// Runs a check in a child process: its exit status.
template <typename F>
int in_child(F&& check) {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        _exit(check());
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Abi, InfoTellsVersionAndFeatures) {
    const dune_info& info = Machine::get().info();
    EXPECT_EQ(info.abi_version, static_cast<uint32_t>(DUNE_ABI_VERSION));
    EXPECT_GE(info.gpa_bits, 36U);
    EXPECT_EQ(info.nr_slots, 1U << (info.gpa_bits - DUNE_SLOT_SHIFT));
    EXPECT_EQ(info.vcpu_page_size, 4096U);
    EXPECT_EQ(info.door_offset, static_cast<uint32_t>(DUNE_DOOR_OFFSET));
    EXPECT_EQ(info.cr0_initial & 0x80010001, 0x80010001U) << "PG, WP, PE";
    EXPECT_FALSE(info.cr4_guest_bits & (1 << 13)) << "VMXE is not the guest's";
    EXPECT_FALSE(info.cr4_guest_bits & (1 << 23)) << "CET stays off";
    for (const uint64_t reserved : info.reserved) {
        EXPECT_EQ(reserved, 0U);
    }
}

TEST(Abi, UnknownIoctlsAreEnotty) {
    char buffer[4096] = {};
    for (unsigned nr = 5; nr < 256; nr++) {
        EXPECT_EQ(ioctl_error(device(), _IO(DUNE_IOC, nr), buffer), ENOTTY) << nr;
        if (nr != 0x10 && nr != 0x11) {
            EXPECT_EQ(ioctl_error(Vcpu::get().fd(), _IO(DUNE_IOC, nr), buffer), ENOTTY) << nr;
        }
    }
    EXPECT_EQ(ioctl_error(device(), _IOWR('K', 0, dune_info), buffer), ENOTTY);
    EXPECT_EQ(ioctl_error(device(), TCGETS, buffer), ENOTTY);
    EXPECT_EQ(ioctl_error(Vcpu::get().fd(), TCGETS, buffer), ENOTTY);
    EXPECT_EQ(ioctl_error(Vcpu::get().fd(), DUNE_GET_STATS, buffer), ENOTTY);
    EXPECT_EQ(ioctl_error(device(), DUNE_RUN, nullptr), ENOTTY);
}

template <typename T>
void expect_size_checked(unsigned long command) {
    for (const uint32_t size : {0U, 4U, static_cast<uint32_t>(sizeof(T)) - 8,
                                static_cast<uint32_t>(sizeof(T)) + 8, 0xffffffffU}) {
        T argument = {};
        argument.size = size;
        EXPECT_EQ(ioctl_error(device(), command, &argument), EINVAL)
            << "command " << std::hex << command << " size " << size;
    }
}

TEST(Abi, WrongSizesAreEinval) {
    expect_size_checked<dune_info>(DUNE_GET_INFO);
    expect_size_checked<dune_vcpu_create>(DUNE_CREATE_VCPU);
    expect_size_checked<dune_slots>(DUNE_SET_SLOTS);
    expect_size_checked<dune_slots>(DUNE_GET_SLOTS);
    expect_size_checked<dune_stats>(DUNE_GET_STATS);
    char buffer[8192] = {};
    for (unsigned nr = 0; nr < 5; nr++) {
        EXPECT_EQ(ioctl_error(device(), _IOC(_IOC_READ | _IOC_WRITE, DUNE_IOC, nr, 24), buffer),
                  EINVAL)
            << "the command's own size, " << nr;
    }
}

TEST(Abi, ReservedFieldsMustBeZero) {
    for (int i = 0; i < 7; i++) {
        dune_info info = {};
        info.size = sizeof(info);
        info.reserved[i] = 1ULL << (8 * i);
        EXPECT_EQ(ioctl_error(device(), DUNE_GET_INFO, &info), EINVAL) << i;
    }
    for (int i = 0; i < 2; i++) {
        dune_vcpu_create create = {};
        create.size = sizeof(create);
        create.reserved[i] = 1;
        EXPECT_EQ(ioctl_error(device(), DUNE_CREATE_VCPU, &create), EINVAL) << i;
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        dune_vcpu_create create = {};
        create.size = sizeof(create);
        create.flags = 1U << bit;
        EXPECT_EQ(ioctl_error(device(), DUNE_CREATE_VCPU, &create), EINVAL) << bit;
    }
    for (int i = 0; i < 8; i++) {
        dune_stats stats = {};
        stats.size = sizeof(stats);
        stats.reserved[i] = 1;
        EXPECT_EQ(ioctl_error(device(), DUNE_GET_STATS, &stats), EINVAL) << i;
    }
    uint32_t va = 7;
    dune_slots slots = {sizeof(slots), 900, 1, 1, reinterpret_cast<uint64_t>(&va)};
    EXPECT_EQ(ioctl_error(device(), DUNE_SET_SLOTS, &slots), EINVAL);
    EXPECT_EQ(ioctl_error(device(), DUNE_GET_SLOTS, &slots), EINVAL);
}

TEST(Abi, BadPointersAreEfault) {
    const auto* bad = reinterpret_cast<void*>(0x10);
    const auto* kernel = reinterpret_cast<void*>(0xffffffff81000000);
    for (const void* pointer : {bad, kernel}) {
        EXPECT_EQ(ioctl_error(device(), DUNE_GET_INFO, pointer), EFAULT);
        EXPECT_EQ(ioctl_error(device(), DUNE_CREATE_VCPU, pointer), EFAULT);
        EXPECT_EQ(ioctl_error(device(), DUNE_SET_SLOTS, pointer), EFAULT);
        EXPECT_EQ(ioctl_error(device(), DUNE_GET_STATS, pointer), EFAULT);
        EXPECT_EQ(ioctl_error(Vcpu::get().fd(), DUNE_INTERRUPT, pointer), EFAULT);
        dune_slots slots = {sizeof(slots), 900, 1, 0, reinterpret_cast<uint64_t>(pointer)};
        EXPECT_EQ(ioctl_error(device(), DUNE_SET_SLOTS, &slots), EFAULT);
        EXPECT_EQ(ioctl_error(device(), DUNE_GET_SLOTS, &slots), EFAULT);
    }
}

int set_slot(uint32_t slot, uint32_t va, uint32_t count = 1) {
    dune_slots slots = {sizeof(slots), slot, count, 0, reinterpret_cast<uint64_t>(&va)};
    return ioctl_error(device(), DUNE_SET_SLOTS, &slots);
}

TEST(Abi, SlotsAreChecked) {
    const uint32_t nr = Machine::get().info().nr_slots;
    EXPECT_EQ(set_slot(0, 7), EINVAL) << "slot 0 shows nothing";
    EXPECT_EQ(set_slot(nr, 7), EINVAL);
    EXPECT_EQ(set_slot(nr - 1, 7, 2), EINVAL);
    EXPECT_EQ(set_slot(0xffffffff, 7), EINVAL);
    EXPECT_EQ(set_slot(2, 7, 0), EINVAL);
    EXPECT_EQ(set_slot(2, 7, 0xffffffff), EINVAL);
    EXPECT_EQ(set_slot(nr - 1, 1 << 17), EINVAL) << "beyond user space";
    EXPECT_EQ(set_slot(nr - 1, 0xfffffffe), EINVAL);
    EXPECT_EQ(set_slot(nr - 1, 7), 0);
    EXPECT_EQ(set_slot(nr - 1, 7), 0) << "again";
    EXPECT_EQ(set_slot(nr - 2, 7), EEXIST) << "shown elsewhere";
    EXPECT_EQ(set_slot(nr - 1, 8), 0) << "moved";
    EXPECT_EQ(set_slot(nr - 2, 7), 0);
    EXPECT_EQ(set_slot(nr - 2, DUNE_SLOT_NONE), 0);
    EXPECT_EQ(set_slot(nr - 1, DUNE_SLOT_NONE), 0);
}

TEST(Abi, SlotsReadBack) {
    const uint32_t nr = Machine::get().info().nr_slots;
    std::vector<uint32_t> all(nr, 1);
    dune_slots slots = {sizeof(slots), 0, nr, 0, reinterpret_cast<uint64_t>(all.data())};
    // Far from where Linux puts anything, the stack at the top above all.
    ASSERT_EQ(set_slot(nr - 1, 0x12345), 0);
    ASSERT_EQ(ioctl_error(device(), DUNE_GET_SLOTS, &slots), 0);
    EXPECT_EQ(all[0], DUNE_SLOT_NONE);
    EXPECT_EQ(all[1], reinterpret_cast<uint64_t>(device) >> DUNE_SLOT_SHIFT) << "the program";
    EXPECT_EQ(all[nr - 1], 0x12345U);
    EXPECT_EQ(all[nr - 2], DUNE_SLOT_NONE);
    EXPECT_EQ(set_slot(nr - 1, 0x1ffff), 0) << "the highest of 47 bits";
    EXPECT_EQ(set_slot(nr - 1, DUNE_SLOT_NONE), 0);
}

TEST(Abi, AnotherProcessIsRefused) {
    const int fd = device();
    const int vcpu = Vcpu::get().fd();
    ASSERT_EQ(
        in_child([&] {
            dune_stats stats = {};
            stats.size = sizeof(stats);
            dune_vcpu_create create = {};
            create.size = sizeof(create);
            uint32_t va = 7;
            uint32_t vector = 40;
            dune_slots slots = {sizeof(slots), 900, 1, 0, reinterpret_cast<uint64_t>(&va)};
            if (ioctl_error(fd, DUNE_GET_STATS, &stats) != EPERM)
                return 1;
            if (ioctl_error(fd, DUNE_CREATE_VCPU, &create) != EPERM)
                return 2;
            if (ioctl_error(fd, DUNE_SET_SLOTS, &slots) != EPERM)
                return 3;
            if (ioctl_error(fd, DUNE_GET_SLOTS, &slots) != EPERM)
                return 4;
            if (ioctl_error(vcpu, DUNE_RUN, nullptr) != EPERM)
                return 5;
            if (ioctl_error(vcpu, DUNE_INTERRUPT, &vector) != EPERM)
                return 6;
            if (mmap(nullptr, 4096, PROT_READ, MAP_SHARED, vcpu, 0) != MAP_FAILED || errno != EPERM)
                return 7;
            return 0;
        }),
        0);
}

TEST(Abi, ChildHasItsOwn) {
    Vcpu::get();
    EXPECT_EQ(in_child([] { return guest::enter([] {}).left() ? 0 : 1; }), 0);
    EXPECT_TRUE(guest::enter([] {}).left());
}

TEST(Abi, OpenGoesOnAfterASignal) {
    // Linux registers no notifier while a signal waits, and looks often while it does.
    EXPECT_EQ(in_child([] {
                  static volatile int handled;
                  struct sigaction action = {};
                  action.sa_handler = [](int) { handled = handled + 1; };
                  sigaction(SIGALRM, &action, nullptr);
                  const itimerval often = {{0, 7000}, {0, 7000}};
                  setitimer(ITIMER_REAL, &often, nullptr);
                  for (int i = 0; i < 1000 && handled < 50; i++) {
                      const int fd = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
                      if (fd < 0)
                          return errno;
                      close(fd);
                  }
                  return 0;
              }),
              0);
}

TEST(Run, BeginsWithoutTheFaultOfWhatItLeft) {
    // After a bounce, user space may have the guest go on elsewhere, where the access that Linux
    // has just refused is not made. It refuses one for which it slept, and so there is a bounce.
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api = {UFFD_API, 0, 0};
    ASSERT_EQ(ioctl(fd, UFFDIO_API, &api), 0);
    char* page = guest::map(4096);
    uffdio_register area = {};
    area.range = {reinterpret_cast<uint64_t>(page), 4096};
    area.mode = UFFDIO_REGISTER_MODE_MISSING;
    ASSERT_EQ(ioctl(fd, UFFDIO_REGISTER, &area), 0);
    std::thread handler([&] {
        uffd_msg message;
        if (read(fd, &message, sizeof(message)) > 0) {
            munmap(page, 4096);
            ioctl(fd, UFFDIO_WAKE, &area.range);
        }
    });
    Vcpu& vcpu = Vcpu::get();
    vcpu.prepare([](void* p) { *static_cast<volatile char*>(p) = 1; }, page, {});
    bool by_door = false;
    do {
        EXPECT_EQ(vcpu.run_once(by_door), 0);
        by_door = true;
    } while (vcpu.page().exit == DUNE_EXIT_BOUNCE && vcpu.page().fault_signal == 0);
    handler.join();
    close(fd);
    ASSERT_EQ(vcpu.page().exit, static_cast<uint32_t>(DUNE_EXIT_BOUNCE));
    vcpu.page().rip = reinterpret_cast<uint64_t>(+[] { guest::leave(1); });
    vcpu.page().set = DUNE_SET_RIP;
    const End end = vcpu.run({});
    EXPECT_TRUE(end.left()) << end;
}

TEST(Abi, AnotherThreadMayNotRun) {
    const int vcpu = Vcpu::get().fd();
    int error = 0;
    std::thread([&] { error = ioctl_error(vcpu, DUNE_RUN, nullptr); }).join();
    EXPECT_EQ(error, EPERM);
}

TEST(Run, IsRefusedToAThreadThatMayNotReadTheClock) {
    // What prctl() keeps from a thread, its guest would have.
    const auto tsc = [](int how) { return prctl(PR_SET_TSC, how); };
    guest::Vcpu::get();
    int status = support::status_of([&] {
        if (tsc(PR_TSC_SIGSEGV) != 0)
            _exit(77);
        const End refused = guest::enter([] {});
        if (tsc(PR_TSC_ENABLE) != 0 || refused.error != -EPERM)
            _exit(1);
        _exit(guest::enter([] {}).left() ? 0 : 2);
    });
    EXPECT_EQ(WEXITSTATUS(status), 0) << status;
    // A guest that asks for it itself, too, by a call that does not leave the kernel.
    static volatile bool went_on;
    status = support::status_of([&] {
        const End refused = guest::enter([] {
            guest::call(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
            went_on = true;
        });
        _exit(refused.error == -EPERM && !went_on ? 0 : 1);
    });
    EXPECT_EQ(WEXITSTATUS(status), 0) << status;
}

// A system call of 32-bit code, which 64-bit code can make as well.
long compat_call(long nr, long a, long b, long c) {
    asm volatile("int $0x80"
                 : "+a"(nr)
                 : "b"(a), "c"(b), "d"(c)
                 : "r8", "r9", "r10", "r11", "memory");
    return static_cast<int>(nr);
}

TEST(Abi, NoRunByA32BitCall) {
    constexpr long kLseek = 19;
    constexpr long kGetpid = 20;
    constexpr long kIoctl = 54;
    if (in_child([] { return compat_call(kGetpid, 0, 0, 0) == getpid() ? 0 : 1; }) != 0) {
        GTEST_SKIP() << "this kernel has no 32-bit calls";
    }
    // Its fast calls would be 64-bit ones that Linux takes for 32-bit ones.
    Vcpu& vcpu = Vcpu::get();
    bool ran = false;
    const auto guest = [](void* flag) { *static_cast<bool*>(flag) = true; };
    vcpu.prepare(guest, &ran, {});
    EXPECT_EQ(compat_call(kLseek, vcpu.fd(), DUNE_RUN, SEEK_DATA), -EPERM);
    EXPECT_EQ(compat_call(kIoctl, vcpu.fd(), DUNE_RUN, 0), -ENOTTY);
    EXPECT_EQ(compat_call(kIoctl, device(), DUNE_GET_STATS, 0), -ENOTTY);
    EXPECT_FALSE(ran);
    EXPECT_TRUE(vcpu.run({}).left());
    EXPECT_TRUE(ran);
}

TEST(Abi, AVcpuDoesNotRunInItself) {
    const int vcpu = Vcpu::get().fd();
    long result = 0;
    EXPECT_TRUE(guest::enter([&] { result = guest::call(SYS_ioctl, vcpu, DUNE_RUN); }).left());
    EXPECT_EQ(result, -EBUSY);
}

TEST(Abi, AVcpuDoesNotRunInAnother) {
    // One thread, two vCPUs: the CPU and the thread's registers can have the state of one of them.
    Vcpu other;
    for (const bool by_lseek : {false, true}) {
        bool ran = false;
        auto code = [&] { ran = true; };
        other.prepare([](void* f) { (*static_cast<decltype(code)*>(f))(); }, &code, {});
        long result = 0, parent = 0;
        const End end = guest::enter([&] {
            result = by_lseek ? guest::call(SYS_lseek, other.fd(), DUNE_RUN, SEEK_DATA)
                              : guest::call(SYS_ioctl, other.fd(), DUNE_RUN);
            parent = guest::call(SYS_getppid);
        });
        EXPECT_TRUE(end.left()) << end;
        EXPECT_EQ(result, -EBUSY);
        EXPECT_EQ(parent, getppid());
        EXPECT_FALSE(ran);
        EXPECT_TRUE(other.run({}).left()) << "by itself, it runs";
        EXPECT_TRUE(ran);
    }
}

TEST(Abi, ARunOutlivesItsFile) {
    // A thread alone in its process holds no reference to the file of the call that it is in: its
    // guest's close() must not be the vCPU's end.
    int status = -1;
    for (int i = 0; i < 20 && status != 0; i++) {
        status = in_child([] {
            Vcpu& vcpu = Vcpu::get();
            const int device_fd = device();
            const auto page = reinterpret_cast<long>(&vcpu.page());
            const auto door = reinterpret_cast<long>(const_cast<char*>(vcpu.door()));
            volatile bool closed = false;
            dune_stats stats = {};
            stats.size = sizeof(stats);
            auto code = [&] {
                guest::call(SYS_munmap, page, 4096);
                guest::call(SYS_munmap, door, 4096);
                closed = guest::call(SYS_close, vcpu.fd()) == 0;
                guest::call(SYS_ioctl, device_fd, DUNE_GET_STATS, reinterpret_cast<long>(&stats));
            };
            vcpu.prepare([](void* f) { (*static_cast<decltype(code)*>(f))(); }, &code, {});
            guest::host_call(SYS_ioctl, vcpu.fd(), DUNE_RUN);
            // A signal or the scheduler may have come between: there is no way back then.
            return closed && stats.vcpus == 1 ? 0 : 1;
        });
    }
    EXPECT_EQ(status, 0) << "the vCPU is there while it runs";
}

void* map_vcpu(int protection, int flags, size_t size, off_t offset) {
    return mmap(nullptr, size, protection, flags, Vcpu::get().fd(), offset);
}

TEST(Abi, MmapMisuseIsRefused) {
    const off_t door = DUNE_DOOR_OFFSET;
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_PRIVATE, 4096, 0), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_SHARED, 8192, 0), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_SHARED, 4096, 4096), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ | PROT_EXEC, MAP_SHARED, 4096, 0), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ | PROT_WRITE, MAP_SHARED, 4096, door), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_PRIVATE, 4096, door), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_SHARED, 8192, door), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_SHARED, 4096, door + 4096), MAP_FAILED);
    EXPECT_EQ(map_vcpu(PROT_READ, MAP_SHARED, 4096, 1L << 40), MAP_FAILED);
    EXPECT_EQ(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, device(), 0), MAP_FAILED);
}

TEST(Abi, MappingsDoNotGrowAndStayAliveWithoutTheFile) {
    Vcpu vcpu;
    EXPECT_EQ(mremap(&vcpu.page(), 4096, 8192, MREMAP_MAYMOVE), MAP_FAILED);
    EXPECT_NE(mprotect(const_cast<char*>(vcpu.door()), 4096, PROT_WRITE), 0);
    close(dup(vcpu.fd()));
    vcpu.page().rip = 1;  // still there
    EXPECT_EQ(vcpu.page().rip, 1U);
}

TEST(Abi, MappingsAreNotInherited) {
    auto* page = &Vcpu::get().page();
    EXPECT_EQ(in_child([&] {
                  unsigned char vec;
                  return mincore(page, 4096, &vec) != 0 && errno == ENOMEM ? 0 : 1;
              }),
              0);
}

TEST(Abi, AFileGivenAwayIsOfNoUse) {
    // After the thread that made it has gone, nobody runs it.
    int fd = -1;
    std::thread([&] {
        dune_vcpu_create create = {};
        create.size = sizeof(create);
        fd = ioctl(device(), DUNE_CREATE_VCPU, &create);
    }).join();
    ASSERT_GE(fd, 0);
    uint32_t vector = 40;
    EXPECT_EQ(ioctl_error(fd, DUNE_RUN, nullptr), EPERM);
    EXPECT_EQ(ioctl_error(fd, DUNE_INTERRUPT, &vector), 0) << "of no effect";
    close(fd);
}

TEST(Abi, InterruptVectorsAreChecked) {
    for (const uint32_t vector : {0U, 3U, 31U, 256U, 0x10000U, 0xffffffffU}) {
        EXPECT_EQ(ioctl_error(Vcpu::get().fd(), DUNE_INTERRUPT, &vector), EINVAL) << vector;
    }
    const uint32_t vector = 255;
    EXPECT_EQ(ioctl_error(Vcpu::get().fd(), DUNE_INTERRUPT, &vector), 0);
    EXPECT_EQ(Vcpu::get().page().pending[3], 1ULL << 63);
}

// --- what DUNE_RUN takes from the page ---

class PageValue : public testing::Test {
  protected:
    void SetUp() override {
        vcpu_.prepare([](void*) {}, nullptr, {});
    }

    void expect_refused(const char* what) {
        const End end = vcpu_.run({});
        EXPECT_EQ(end.error, -EINVAL) << what << ": " << end;
        EXPECT_EQ(vcpu_.page().progress, 0U) << what;
        EXPECT_TRUE(guest::enter([] {}).left()) << "and it runs again after " << what;
        vcpu_.prepare([](void*) {}, nullptr, {});
    }

    Vcpu& vcpu_ = Vcpu::get();
};

TEST_F(PageValue, RipMustBeCanonical) {
    for (const uint64_t rip : {1ULL << 47, 1ULL << 63, 0x7fffULL << 48, 0xffff7fffffffffffULL}) {
        vcpu_.page().rip = rip;
        expect_refused("RIP");
    }
}

TEST_F(PageValue, RflagsReservedBits) {
    for (int bit = 0; bit < 64; bit++) {
        const bool known = 0x3d7fd7ULL >> bit & 1 && bit != 17 && bit != 19 && bit != 20;
        if (!known && bit != 1) {
            vcpu_.page().rflags = 2 | 1ULL << bit;
            expect_refused(("RFLAGS bit " + std::to_string(bit)).c_str());
        }
    }
}

TEST_F(PageValue, Cr3Width) {
    for (int bit = 52; bit < 64; bit++) {
        vcpu_.page().cr3 = Machine::get().cr3() | 1ULL << bit;
        expect_refused("CR3");
    }
}

TEST_F(PageValue, Bases) {
    vcpu_.page().fs_base = 1ULL << 47;
    expect_refused("FS base");
    vcpu_.page().gs_base = 1ULL << 47;
    vcpu_.page().set |= DUNE_SET_GS_BASE;
    expect_refused("GS base");
    vcpu_.page().lstar = 1ULL << 47;
    vcpu_.page().set |= DUNE_SET_LSTAR;
    expect_refused("LSTAR");
}

TEST_F(PageValue, Cr0AndCr4TakeOnlyTheGuestsBits) {
    const dune_info& info = Machine::get().info();
    for (int bit = 0; bit < 64; bit++) {
        const uint64_t mask = 1ULL << bit;
        for (const bool is_cr4 : {false, true}) {
            if ((is_cr4 ? info.cr4_guest_bits : info.cr0_guest_bits) & mask) {
                continue;
            }
            vcpu_.page().cr0 = info.cr0_initial ^ (is_cr4 ? 0 : mask);
            vcpu_.page().cr4 = info.cr4_initial ^ (is_cr4 ? mask : 0);
            vcpu_.page().set |= DUNE_SET_CR;
            expect_refused((std::string(is_cr4 ? "CR4" : "CR0") + std::to_string(bit)).c_str());
        }
    }
}

TEST_F(PageValue, Gate) {
    vcpu_.page().gate_start = 0x2000;
    vcpu_.page().gate_end = 0x1000;
    expect_refused("gate");
}

TEST_F(PageValue, UnknownSetBits) {
    for (int bit = 8; bit < 32; bit++) {
        vcpu_.page().set |= 1U << bit;
        expect_refused("set");
    }
}

TEST_F(PageValue, UnknownFlagsDoNoHarm) {
    vcpu_.page().flags = 0xffffffff;
    const End end = vcpu_.run({});
    EXPECT_TRUE(end.left() || end.error == -EINVAL) << end;
}

// --- death ---

TEST(Death, ADeadVcpuIsEioUntilReset) {
    Vcpu& vcpu = Vcpu::get();
    // No IDT: the first exception is a triple fault.
    const End end = guest::enter([] { asm volatile("ud2"); });
    ASSERT_TRUE(end.died()) << end;
    EXPECT_NE(end.text.find("triple fault"), std::string::npos) << end.text;
    EXPECT_EQ(vcpu.page().death.exit_reason, 2U);
    EXPECT_EQ(vcpu.page().death.cr3, Machine::get().cr3());
    EXPECT_EQ(vcpu.page().death.cs, 0x10U);
    EXPECT_EQ(vcpu.run_once(false), -EIO);
    vcpu.page().set = DUNE_SET_RIP;
    EXPECT_EQ(vcpu.run_once(false), -EIO);
    EXPECT_TRUE(guest::enter([] {}).left()) << "after a reset";
}

TEST(Death, AFreshVcpuWithoutStateDies) {
    Vcpu vcpu;
    const End end = vcpu.run({});
    EXPECT_TRUE(end.died()) << end;
}

TEST(Death, OfATripleFaultLeavesNoInterruptBehind) {
    // An interrupt cannot be delivered, for the guest's tables are gone, nor can what comes of
    // that: then no other of those that wait is the next guest's, whose RFLAGS.IF is clear.
    guest::Options options;
    options.traps = true;
    Vcpu& vcpu = Vcpu::get();
    for (int i = 0; i < 3; i++) {
        for (int vector = 100; vector < 120; vector++) {
            vcpu.page().pending[vector / 64] |= 1ULL << vector % 64;
        }
        vcpu.page().pending_any = 1;
        const End end = guest::enter(
            [] {
                asm volatile("sti\n mov %0, %%cr3" : : "r"(0x10000UL) : "memory");
            },
            options);
        EXPECT_TRUE(end.died()) << end;
        std::memset(vcpu.page().pending, 0, sizeof(vcpu.page().pending));
        vcpu.page().pending_any = 0;
        const End next = guest::enter([] {});
        EXPECT_TRUE(next.left()) << next;
    }
}

}  // namespace
