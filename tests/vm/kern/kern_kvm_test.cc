// SPDX-License-Identifier: MIT
//
// KVM beside dune.ko: its virtual machines on the same CPUs, run, made and unmade by guests of
// ours, and loaded while they run.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#include "cpu.h"
#include "guest.h"
#include "support.h"
#include "workers.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;
using support::now;
using support::pin_to;

// A real-mode guest of KVM's that counts in AX and says so at a port.
class KvmGuest {
  public:
    KvmGuest() {
        kvm_ = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        vm_ = kvm_ < 0 ? -1 : ioctl(kvm_, KVM_CREATE_VM, 0);
        if (vm_ < 0) {
            return;
        }
        memory_ = static_cast<uint8_t*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        // inc %ax; mov $500, %cx; loop; out %ax, $0x10; jmp back
        static const uint8_t kCode[] = {0x40, 0xb9, 0xf4, 0x01, 0xe2, 0xfe, 0xe7, 0x10, 0xeb, 0xf6};
        std::memcpy(memory_, kCode, sizeof(kCode));
        kvm_userspace_memory_region region = {0, 0, 0x1000, 4096,
                                              reinterpret_cast<uint64_t>(memory_)};
        ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region);
        vcpu_ = ioctl(vm_, KVM_CREATE_VCPU, 0);
        size_ = static_cast<size_t>(ioctl(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0));
        run_ = static_cast<kvm_run*>(
            mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_, 0));
        kvm_sregs sregs;
        ioctl(vcpu_, KVM_GET_SREGS, &sregs);
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        ioctl(vcpu_, KVM_SET_SREGS, &sregs);
        kvm_regs regs = {};
        regs.rip = 0x1000;
        regs.rflags = 2;
        ioctl(vcpu_, KVM_SET_REGS, &regs);
    }
    ~KvmGuest() {
        if (run_ != nullptr) {
            munmap(run_, size_);
            munmap(memory_, 4096);
        }
        close(vcpu_);
        close(vm_);
        close(kvm_);
    }
    bool ok() const { return vm_ >= 0; }

    // What RDTSCP says in the guest; false if KVM gives it none.
    bool set_tsc_aux(uint64_t value) {
        // As Linux has them: in C++ those of <linux/kvm.h> with an array at the end are larger.
        struct {
            uint32_t count, padding;
            kvm_cpuid_entry2 entries[100];
        } cpuid = {100, 0, {}};
        const struct {
            uint32_t count, padding;
            kvm_msr_entry entry;
        } msrs = {1, 0, {0xc0000103, 0, value}};
        return ioctl(kvm_, _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8), &cpuid) == 0 &&
               ioctl(vcpu_, _IOC(_IOC_WRITE, KVMIO, 0x90, 8), &cpuid) == 0 &&
               ioctl(vcpu_, _IOC(_IOC_WRITE, KVMIO, 0x89, 8), &msrs) == 1;
    }

    // One more turn: true if the guest counted on by one.
    bool turn() { return turn(guest::host_call); }

    // By one of guest::host_call and guest::call.
    template <typename Call>
    bool turn(Call&& call_by) {
        if (const long error = call_by(SYS_ioctl, vcpu_, KVM_RUN, 0, 0, 0, 0); error != 0) {
            return error == -EINTR;
        }
        if (run_ == nullptr || run_->exit_reason != KVM_EXIT_IO) {
            return false;
        }
        uint16_t value;
        std::memcpy(&value, reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset, 2);
        const bool right = value == static_cast<uint16_t>(last_ + 1);
        last_ = value;
        return right;
    }

  private:
    int kvm_ = -1, vm_ = -1, vcpu_ = -1;
    uint8_t* memory_ = nullptr;
    kvm_run* run_ = nullptr;
    size_t size_ = 0;
    uint16_t last_ = 0;
};

void run_beside(double seconds) {
    if (!KvmGuest().ok()) {
        GTEST_SKIP() << "no KVM";
    }
    Workers workers(2);
    std::atomic<uint64_t> turns = 0, wrong = 0;
    const double end = now() + seconds;
    std::vector<std::thread> guests;
    for (int i = 0; i < 2; i++) {
        guests.emplace_back([&] {
            while (now() < end) {
                KvmGuest guest;  // made and unmade, too
                for (int turn = 0; turn < 200 && now() < end; turn++) {
                    wrong += !guest.turn();
                    turns++;
                }
            }
        });
    }
    for (std::thread& thread : guests) {
        thread.join();
    }
    const uint64_t rounds = workers.rounds();
    workers.stop();
    const dune_stats stats = Machine::get().stats();
    std::printf("%llu turns of KVM guests, %llu rounds in Dune, %llu entries with KVM's VMCS\n",
                static_cast<unsigned long long>(turns.load()),
                static_cast<unsigned long long>(rounds),
                static_cast<unsigned long long>(stats.foreign));
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(workers.wrong(), 0U);
    EXPECT_GT(turns, 20U);
    EXPECT_GT(rounds, 20U);
}

TEST(Kvm, GuestsBesideDune) {
    run_beside(3);
}

TEST(Kvm, RunByTheGuestItself) {
    // Its ioctl leaves KVM's own state on the CPU, though the thread never left that.
    KvmGuest kvm;
    if (!kvm.ok()) {
        GTEST_SKIP() << "no kvm";
    }
    for (const bool fast : {true, false}) {
        // The end of the one that ran last leaves none of KVM's on the CPU.
        KvmGuest().turn();
        int right = 0;
        uint64_t lstar = 0;
        bool same = true;
        const long pid = getpid();
        const End end = guest::enter(
            [&] {
                cpu::wrmsr(cpu::kLstar, 0x123456000);
                for (int i = 0; i < 200; i++) {
                    right += kvm.turn(call);
                    same = same && call(SYS_getpid) == pid;
                }
                lstar = cpu::rdmsr(cpu::kLstar);
            },
            {.fast = fast});
        EXPECT_TRUE(end.left()) << end;
        EXPECT_EQ(right, 200);
        EXPECT_TRUE(same);
        EXPECT_EQ(lstar, 0x123456000U);
    }
    EXPECT_TRUE(kvm.turn()) << "and by the host";
}

TEST(Kvm, RunByTheGuestItselfLeavesNoneOfItsMsrs) {
    // Some of the virtual machine's MSRs stay on the CPU until its thread is in user mode again.
    KvmGuest kvm;
    if (!kvm.ok() || !kvm.set_tsc_aux(0x5a5)) {
        GTEST_SKIP() << "no kvm, or no RDTSCP in it";
    }
    pin_to(0);
    const auto tsc_aux = [] {
        uint32_t aux;
        asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
        return aux;
    };
    const uint32_t before = tsc_aux();
    int right = 0, same = 0;
    const End end = guest::enter([&] {
        for (int i = 0; i < 100; i++) {
            right += kvm.turn(call);
            same += tsc_aux() == before;
        }
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(right, 100);
    EXPECT_EQ(same, 100);
}

// Ten virtual machines, one after the other; without KVM the test is skipped.
void for_each_vm(const std::function<void(int vm, int n)>& function) {
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        GTEST_SKIP() << "no kvm";
    }
    for (int n = 0; n < 10; n++) {
        const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
        ASSERT_GE(vm, 0);
        function(vm, n);
    }
    close(kvm);
}

TEST(Kvm, MadeByTheGuestItself) {
    // The first of KVM's state on this CPU comes while the guest is in a call.
    const long pid = getpid();
    for_each_vm([&](int vm, int) {
        long vcpu = -1, seen = 0;
        const End end = guest::enter([&] {
            vcpu = call(SYS_ioctl, vm, KVM_CREATE_VCPU, 0);
            seen = call(SYS_getpid);
        });
        EXPECT_TRUE(end.left()) << end;
        EXPECT_GE(vcpu, 0);
        EXPECT_EQ(seen, pid);
        close(static_cast<int>(vcpu));
        close(vm);
    });
}

TEST(Kvm, UnmadeByTheGuestItself) {
    // The end of a virtual machine loads its VMCSs once more, in the call that closes its last
    // file.
    const long pid = getpid();
    for_each_vm([&](int vm, int n) {
        const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
        ASSERT_GE(vcpu, 0);
        // The end of the one that ran last leaves none of KVM's on the CPU.
        KvmGuest().turn();
        long seen[3] = {}, closed = 0;
        const End end = guest::enter([&] {
            seen[0] = call(SYS_getpid);
            closed = call(SYS_close, n & 1 ? vm : vcpu);
            seen[1] = call(SYS_getpid);
            closed |= call(SYS_close, n & 1 ? vcpu : vm);
            seen[2] = call(SYS_getpid);
        });
        ASSERT_TRUE(end.left()) << end;
        EXPECT_EQ(closed, 0);
        for (const long each : seen) {
            EXPECT_EQ(each, pid);
        }
    });
}

TEST(Kvm, LoadedWhileDuneRuns) {
    if (access("/dev/kvm", F_OK) == 0) {
        GTEST_SKIP() << "KVM is loaded already";
    }
    Workers workers(2);
    const double loading = now();
    // Ahead of the workers, not alone: linking KVM is seconds of a small machine's whole time.
    setpriority(PRIO_PROCESS, 0, -20);
    const int load = system("modprobe kvm_intel");
    setpriority(PRIO_PROCESS, 0, 0);
    if (load != 0) {
        GTEST_SKIP() << "no kvm_intel here";
    }
    std::printf("kvm_intel loaded in %.1f s\n", now() - loading);
    run_beside(2);
    std::printf("after %.1f s\n", now() - loading);
    EXPECT_EQ(workers.wrong(), 0U);
    EXPECT_EQ(system("rmmod kvm_intel"), 0);
    usleep(100'000);
    EXPECT_TRUE(workers.go_on());
    workers.stop();
    EXPECT_EQ(workers.wrong(), 0U);
}

TEST(Kvm, LoadedLaterSeesTheHostsMsrs) {
    // It notes each CPU's LSTAR in an interrupt, and will put that back: it must not be the
    // guest's.
    if (access("/dev/kvm", F_OK) == 0 || sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        GTEST_SKIP() << "KVM is loaded already, or one CPU";
    }
    std::atomic<bool> end = false, inside = false;
    std::thread guest([&] {
        pin_to(1);
        guest::enter([&] {
            cpu::wrmsr(cpu::kLstar, 0x123456000);
            inside = true;
            for (uint64_t i = 0; !end; i++) {
                if (i % 1024 == 0) {
                    call(SYS_getpid);
                }
            }
        });
    });
    pin_to(0);
    while (!inside) {
        usleep(1000);
    }
    const auto of_the_host = [] {
        int times = 0;
        for (int i = 0; i < 200; i++) {
            times += support::host_msr(cpu::kLstar, 1).value_or(0) >> 63 != 0;
        }
        return times;
    };
    EXPECT_TRUE(support::host_msr(cpu::kLstar, 1)) << "no /dev/cpu/1/msr";
    const int before = of_the_host();
    const bool loaded = system("modprobe kvm_intel 2>/dev/null") == 0;
    const int after = of_the_host();
    end = true;
    guest.join();
    if (!loaded) {
        GTEST_SKIP() << "no kvm_intel here";
    }
    EXPECT_LT(before, 200) << "so that it is seen at all";
    EXPECT_EQ(after, 200);
    EXPECT_EQ(system("rmmod kvm_intel"), 0);
}

}  // namespace
