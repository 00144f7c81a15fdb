// SPDX-License-Identifier: MIT
//
// The host around the guest: KVM guests on the same CPUs, CPUs that come and go, migration,
// FPU state, and the time that the process is charged for.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
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
#include <vector>

#include "guest.h"
#include "traps.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

bool host_has(const char* flag) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("flags")) {
            return (line + " ").find(std::string(" ") + flag + " ") != std::string::npos;
        }
    }
    return false;
}

// Threads that make system calls, spin and fault in the guest until told to stop.
class Workers {
  public:
    explicit Workers(int count) {
        for (int i = 0; i < count; i++) {
            threads_.emplace_back([this] { work(); });
        }
        while (ready_ < count) {
            usleep(1000);
        }
    }
    ~Workers() { stop(); }

    void stop() {
        stop_ = true;
        for (std::thread& thread : threads_) {
            thread.join();
        }
        threads_.clear();
    }
    uint64_t rounds() const { return rounds_; }
    uint64_t wrong() const { return wrong_; }

  private:
    void work() {
        char* page = guest::map(4096);
        const long pid = getpid();
        const End end = guest::enter([&] {
            ready_++;
            while (!stop_.load(std::memory_order_relaxed)) {
                wrong_ += call(SYS_getpid) != pid;
                *page = 1;
                wrong_ += call(SYS_madvise, reinterpret_cast<long>(page), 4096, MADV_DONTNEED) != 0;
                wrong_ += *const_cast<volatile char*>(page) != 0;
                for (int i = 0; i < 5000; i++) {
                    asm volatile("");
                }
                rounds_++;
            }
        });
        wrong_ += !end.left();
        munmap(page, 4096);
    }

    std::vector<std::thread> threads_;
    std::atomic<bool> stop_ = false;
    std::atomic<int> ready_ = 0;
    std::atomic<uint64_t> rounds_ = 0, wrong_ = 0;
};

// --- KVM ---

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

    // One more turn: true if the guest counted on by one.
    bool turn() {
        if (ioctl(vcpu_, KVM_RUN, 0) != 0) {
            return errno == EINTR;
        }
        if (run_->exit_reason != KVM_EXIT_IO) {
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

TEST(Kvm, LoadedWhileDuneRuns) {
    if (access("/dev/kvm", F_OK) == 0) {
        GTEST_SKIP() << "KVM is loaded already";
    }
    Workers workers(2);
    const double loading = now();
    if (system("modprobe kvm_intel 2>/dev/null") != 0) {
        GTEST_SKIP() << "no kvm_intel here";
    }
    std::printf("kvm_intel loaded in %.1f s\n", now() - loading);
    run_beside(2);
    std::printf("after %.1f s\n", now() - loading);
    EXPECT_EQ(workers.wrong(), 0U);
    EXPECT_EQ(system("rmmod kvm_intel"), 0);
    usleep(100'000);
    const uint64_t before = workers.rounds();
    usleep(200'000);
    EXPECT_GT(workers.rounds(), before);
    workers.stop();
    EXPECT_EQ(workers.wrong(), 0U);
}

// --- CPUs ---

TEST(Cpus, ComeAndGo) {
    std::ofstream online("/sys/devices/system/cpu/cpu1/online");
    if (!online) {
        GTEST_SKIP() << "one CPU";
    }
    Workers workers(3);
    for (int i = 0; i < 5; i++) {
        online << "0" << std::flush;
        EXPECT_TRUE(online) << "off";
        usleep(50'000);
        online << "1" << std::flush;
        EXPECT_TRUE(online) << "on";
        usleep(50'000);
    }
    const uint64_t before = workers.rounds();
    usleep(200'000);
    EXPECT_GT(workers.rounds(), before);
    workers.stop();
    EXPECT_EQ(workers.wrong(), 0U);
}

TEST(Cpus, ForcedMigrations) {
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        GTEST_SKIP() << "one CPU";
    }
    std::atomic<bool> stop = false;
    std::atomic<long> tid = 0;
    std::atomic<uint64_t> wrong = 0, rounds = 0;
    std::thread worker([&] {
        char* page = guest::map(4096);
        const long pid = getpid();
        tid = guest::host_call(SYS_gettid);
        const End end = guest::enter([&] {
            while (!stop) {
                wrong += call(SYS_getpid) != pid;
                *page = static_cast<char>(*page + 1);
                rounds++;
            }
        });
        wrong += !end.left();
    });
    while (rounds == 0) {
        usleep(1000);
    }
    for (int i = 0; i < 300; i++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(i & 1, &set);
        EXPECT_EQ(sched_setaffinity(static_cast<pid_t>(tid), sizeof(set), &set), 0);
        usleep(500);
    }
    stop = true;
    worker.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_GT(Machine::get().stats().migrations, 50U);
}

TEST(Cpus, SpinnersDoNotHoldUpTheKernel) {
    // RCU and stop_machine get on while a guest with interrupts off spins on each CPU.
    std::vector<pid_t> spinners;
    for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN) + 1; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            guest::enter([] {
                asm volatile("cli");
                for (;;) {
                    asm volatile("");
                }
            });
            _exit(1);
        }
        spinners.push_back(pid);
    }
    usleep(50'000);
    const double start = now();
    for (int i = 0; i < 3; i++) {
        // membarrier() waits for RCU; loading or unloading a module, for stop_machine.
        EXPECT_EQ(syscall(SYS_membarrier, 1 /* GLOBAL */, 0, 0), 0);
    }
    EXPECT_LT(now() - start, 20);
    for (const pid_t pid : spinners) {
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        EXPECT_TRUE(WIFSIGNALED(status));
    }
}

// --- FPU ---

constexpr size_t kVectors = 32;
struct alignas(64) Registers {
    uint8_t bytes[kVectors][64];
};

// Load all vector registers, spin, and store them again.
extern "C" {
void sse_loop(const Registers* in, Registers* out, uint64_t turns);
void avx_loop(const Registers* in, Registers* out, uint64_t turns);
void avx512_loop(const Registers* in, Registers* out, uint64_t turns);
}
asm(R"(
    .macro vector_loop name, move, prefix, count
\name:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \move 64*\n(%rdi), %\prefix\n
    .endr
    .if \count > 16
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \move 64*\n(%rdi), %\prefix\n
    .endr
    .endif
1:  dec %rdx
    jnz 1b
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \move %\prefix\n, 64*\n(%rsi)
    .endr
    .if \count > 16
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \move %\prefix\n, 64*\n(%rsi)
    .endr
    .endif
    ret
    .endm
    vector_loop sse_loop, movdqu, xmm, 16
    vector_loop avx_loop, vmovdqu, ymm, 16
    vector_loop avx512_loop, vmovdqu64, zmm, 32
)");

void expect_vectors_kept(void (*loop)(const Registers*, Registers*, uint64_t), size_t count,
                         size_t width) {
    // Three processes, each with values of its own, on too few CPUs.
    std::vector<pid_t> pids;
    for (int p = 0; p < 4; p++) {
        const pid_t pid = fork();
        if (pid == 0) {
            static Registers in, out;
            for (size_t i = 0; i < kVectors; i++) {
                for (size_t j = 0; j < 64; j++) {
                    in.bytes[i][j] = static_cast<uint8_t>(p * 64 + i * 7 + j);
                }
            }
            int wrong = 0;
            const double end = now() + 1;
            while (now() < end && wrong == 0) {
                const auto body = [&] {
                    loop(&in, &out, 300'000);
                    for (size_t i = 0; i < count; i++) {
                        for (size_t j = 0; j < width; j++) {
                            wrong += in.bytes[i][j] != out.bytes[i][j];
                        }
                    }
                };
                if (p == 3) {
                    body();  // one on the host
                } else if (!guest::enter(body).left()) {
                    _exit(2);
                }
            }
            _exit(wrong != 0);
        }
        pids.push_back(pid);
    }
    for (const pid_t pid : pids) {
        int status = -1;
        waitpid(pid, &status, 0);
        EXPECT_EQ(status, 0);
    }
}

TEST(Fpu, SseStateUnderPreemption) {
    expect_vectors_kept(sse_loop, 16, 16);
}

TEST(Fpu, AvxStateUnderPreemption) {
    if (!host_has("avx")) {
        GTEST_SKIP() << "no AVX";
    }
    expect_vectors_kept(avx_loop, 16, 32);
}

TEST(Fpu, Avx512StateUnderPreemption) {
    if (!host_has("avx512f")) {
        GTEST_SKIP() << "no AVX-512";
    }
    expect_vectors_kept(avx512_loop, 32, 64);
}

// --- time ---

TEST(Time, IsTheProcessOwn) {
    rusage before, after;
    guest::enter([] {});
    getrusage(RUSAGE_THREAD, &before);
    const double end = now() + 0.5;
    guest::enter([&] {
        while (now() < end) {
            for (int i = 0; i < 10'000; i++) {
                asm volatile("");
            }
        }
    });
    getrusage(RUSAGE_THREAD, &after);
    const auto seconds = [](const timeval& a, const timeval& b) {
        return static_cast<double>(b.tv_sec - a.tv_sec) +
               static_cast<double>(b.tv_usec - a.tv_usec) * 1e-6;
    };
    const double user = seconds(before.ru_utime, after.ru_utime);
    const double system = seconds(before.ru_stime, after.ru_stime);
    EXPECT_GT(user, 0.3);
    EXPECT_LT(system, user / 4);
}

}  // namespace
