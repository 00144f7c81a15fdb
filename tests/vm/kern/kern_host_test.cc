// SPDX-License-Identifier: MIT
//
// The host around the guest: CPUs that come and go, migration, NMIs, what its user mode has of the
// CPU, PCIDs, counters, and the time that the process is charged for.

#include <asm/ldt.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cpu.h"
#include "guest.h"
#include "support.h"
#include "traps.h"
#include "workers.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;
using support::now;
using support::pin_to;

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
    EXPECT_TRUE(workers.go_on());
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
        const pid_t pid = support::fork_or_end();
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

// --- NMIs ---

// What the kernel's log says from now on.
class KernelLog {
  public:
    KernelLog() : fd_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
        lseek(fd_, 0, SEEK_END);
    }
    ~KernelLog() { close(fd_); }
    KernelLog(const KernelLog&) = delete;
    KernelLog& operator=(const KernelLog&) = delete;

    // Adds what came since, and returns all.
    const std::string& text() {
        char record[8192];
        for (ssize_t n; (n = read(fd_, record, sizeof(record))) > 0 || errno == EPIPE;) {
            text_.append(record, n > 0 ? static_cast<size_t>(n) : 0);
        }
        return text_;
    }

  private:
    int fd_;
    std::string text_;
};

TEST(Nmi, FindsTheHostInASpinningGuest) {
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        GTEST_SKIP() << "one CPU";
    }
    std::atomic<bool> stop = false;
    std::atomic<uint64_t> rounds = 0;
    End end;
    std::thread spinner([&] {
        pin_to(1);
        end = guest::enter([&] {
            asm volatile("cli");
            while (!stop) {
                rounds++;
            }
        });
    });
    while (rounds == 0) {
        usleep(1000);
    }
    pin_to(0);
    KernelLog log;
    const uint64_t before = Machine::get().stats().exits[0];
    for (int i = 0; i < 5; i++) {
        // All CPUs are asked by NMI what they do.
        ASSERT_TRUE(support::write_file("/proc/sysrq-trigger", "l"));
        const uint64_t then = rounds;
        const double start = now();
        while (rounds == then && now() - start < 5) {
            usleep(1000);
        }
        EXPECT_NE(rounds, then) << "the guest goes on";
    }
    // Not each finds it in the guest: the timer's tick takes a part of the emulator's time.
    EXPECT_GT(Machine::get().stats().exits[0], before) << "exits by NMI";
    EXPECT_NE(log.text().find("NMI backtrace for cpu 1"), std::string::npos) << log.text();
    EXPECT_NE(log.text().find("vmx_turn"), std::string::npos) << log.text();
    EXPECT_EQ(log.text().find("Uhhuh"), std::string::npos) << "an NMI that nobody sent";
    stop = true;
    spinner.join();
    EXPECT_TRUE(end.left()) << end;
}

// --- what the host's user mode has of the CPU ---

TEST(HostState, PortsThatWereGranted) {
    // VM exit cuts the TSS short, and the I/O bitmap with it.
    const int status = support::status_of([] {
        if (ioperm(0x80, 1, 1) != 0) {
            _exit(77);
        }
        for (int i = 0; i < 20; i++) {
            guest::enter([] {
                call(SYS_getpid);
                guest::slow_call(SYS_getpid);
            });
            asm volatile("outb %0, $0x80" : : "a"('\0'));
        }
        _exit(0);
    });
    if (WEXITSTATUS(status) == 77) {
        GTEST_SKIP() << "no ioperm()";
    }
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST(HostState, LdtOfTheProcess) {
    const int status = support::status_of([] {
        user_desc entry = {};
        entry.entry_number = 3;
        entry.base_addr = 0x1000;
        entry.limit = 0xfffff;
        entry.seg_32bit = 1;
        entry.useable = 1;
        if (syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)) != 0) {
            _exit(77);
        }
        for (int i = 0; i < 20; i++) {
            guest::enter([] { call(SYS_getpid); });
            // #GP, if VM exit left no table to look in.
            asm volatile("mov %0, %%es\n mov %1, %%es" : : "r"(3 << 3 | 7), "r"(0));
        }
        _exit(0);
    });
    if (WEXITSTATUS(status) == 77) {
        GTEST_SKIP() << "no modify_ldt()";
    }
    EXPECT_EQ(status, 0) << std::hex << status;
}

TEST(HostState, Watchpoints) {
    // VM exit disarms the host's breakpoints.
    static volatile uint64_t watched;
    perf_event_attr attr = {};
    attr.type = PERF_TYPE_BREAKPOINT;
    attr.size = sizeof(attr);
    attr.bp_type = HW_BREAKPOINT_W;
    attr.bp_addr = reinterpret_cast<uint64_t>(&watched);
    attr.bp_len = HW_BREAKPOINT_LEN_8;
    const int event = static_cast<int>(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
    if (event < 0) {
        GTEST_SKIP() << "no hardware breakpoints: " << std::strerror(errno);
    }
    const auto seen = [&] {
        uint64_t count = 0;
        EXPECT_EQ(read(event, &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
        return count;
    };
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    watched = 1;
    EXPECT_EQ(seen(), 1U);
    // Where REP MOVSB is fast, Linux writes there byte by byte.
    ASSERT_EQ(write(pipes[1], "12345678", 8), 8);
    ASSERT_EQ(read(pipes[0], const_cast<uint64_t*>(&watched), 8), 8);
    const uint64_t before = seen();
    const uint64_t copy = before - 1;
    EXPECT_GE(copy, 1U);
    const End end = guest::enter([&] {
        watched = 2;  // the guest's own is not the host's to see
        call(SYS_getpid);
        // Linux writes there, in a call that does not leave the kernel.
        call(SYS_write, pipes[1], support::arg("12345678"), 8);
        call(SYS_read, pipes[0], reinterpret_cast<long>(&watched), 8);
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(seen(), before + copy) << "in the call";
    watched = 3;
    EXPECT_EQ(seen(), before + copy + 1) << "afterwards";
    close(event);
    close(pipes[0]);
    close(pipes[1]);
}

// --- the VMCS ---

TEST(Vmcs, AfterAFirstEntryThatWasRefusedComesAnother) {
    // A VMCS is launched once on each CPU, and one that was refused is not launched.
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        GTEST_SKIP() << "one CPU";
    }
    pin_to(0);
    guest::Vcpu& vcpu = guest::Vcpu::get();
    // mov $DUNE_HC_LEAVE, %eax; vmcall
    auto* const code = static_cast<uint8_t*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    ASSERT_NE(code, MAP_FAILED);
    static const uint8_t kLeave[] = {0xb8, 0x00, 0x00, 0x55, 0x44, 0x0f, 0x01, 0xc1};
    std::memcpy(code, kLeave, sizeof(kLeave));
    guest::Machine::get().show(code, 4096);
    const End end = guest::enter(
        [&] {
            uint64_t& spare = guest::this_cpu().gdt[7];
            spare = 0x00cf9b000000ffff;  // ring 0, 32 bits
            asm volatile("push $0x38\n push %0\n lretq" : : "r"(code) : "memory");
        },
        guest::kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    pin_to(1);
    // SDM 27.3.1.4: in code of 32 bits RIP has 32 bits.
    vcpu.page().rip = 0x100000000;
    vcpu.page().set = DUNE_SET_RIP;
    const End refused = vcpu.run({});
    EXPECT_TRUE(refused.died()) << refused;
    EXPECT_NE(refused.text.find("RIP of more than 32 bits"), std::string::npos) << refused.text;
    for (int i = 0; i < 3; i++) {
        const End again = guest::enter([] { call(SYS_getpid); });
        EXPECT_TRUE(again.left()) << again;
    }
    munmap(code, 4096);
}

// --- PCIDs ---

// What Linux thinks of a CPU's TLB: the first fields of struct tlb_state.
struct TlbState {
    uint64_t loaded_mm, last_user_mm;
    uint16_t loaded_asid, next_asid;
};
constexpr unsigned kAsids = 6;  // TLB_NR_DYN_ASIDS

std::optional<TlbState> tlb_state(unsigned cpu) {
    static const auto symbols = support::kernel_symbols({"cpu_tlbstate", "__per_cpu_offset"});
    uint64_t offset = 0;
    TlbState state = {};
    if (!support::read_kernel(symbols[1] + cpu * sizeof(offset), &offset, sizeof(offset)) ||
        !support::read_kernel(symbols[0] + offset, &state, sizeof(state))) {
        return std::nullopt;
    }
    return state;
}

// On CPU 1, ahead of Linux' own threads there.
void have_cpu1(int priority) {
    const sched_param param = {priority};
    sched_setscheduler(0, SCHED_FIFO, &param);
    pin_to(1);
}

// A new address space on CPU 1 for a moment. It ends elsewhere: there, Linux would load its own in
// the place of one that ends, and take a place for that as well.
void visit_cpu1() {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        have_cpu1(2);
        pin_to(0);
        _exit(0);
    }
    support::wait_status(pid);
}

TEST(Pcid, ThatChangesInACallIsTheOneToComeBackWith) {
    // Linux patches its code through another address space, in the thread that makes it do so (any
    // may, by socket options; here by a sysctl). There is room for six: if that one takes the place
    // of ours, ours gets another, under which Linux flushes the TLB from then on.
    const int patches = open("/proc/sys/kernel/sched_schedstats", O_RDWR | O_CLOEXEC);
    ASSERT_GE(patches, 0);
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2 || !support::host_has("pcid")) {
        GTEST_SKIP() << "one CPU, or no PCIDs";
    }
    struct Shared {
        std::atomic<int> wanted, done;
        std::atomic<bool> stop;
    };
    auto* shared = static_cast<Shared*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pin_to(0);
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        have_cpu1(1);
        const End end = guest::enter([&] {
            while (!shared->stop) {
                if (shared->wanted > shared->done) {
                    call(SYS_pwrite64, patches, support::arg(shared->wanted & 1 ? "1" : "0"), 1, 0);
                    shared->done++;
                }
            }
        });
        _exit(end.left() ? 0 : 1);
    }
    KernelLog log;
    int changes = 0, visits = 0, same = 0, others = 0, unseen = 0;
    std::optional<TlbState> before, after;
    for (int i = 0; i < 1000 && changes == 0; i++) {
        before = tlb_state(1);
        ASSERT_TRUE(before) << "no /proc/kcore";
        // One after the other, so that the next place comes to be ours.
        if (before->next_asid % kAsids != before->loaded_asid) {
            visits++;
            visit_cpu1();
            continue;
        }
        shared->wanted = shared->done + 1;
        for (int ms = 0; ms < 5000 && shared->done < shared->wanted; ms++) {
            usleep(1000);
        }
        after = tlb_state(1);
        if (after->loaded_mm != before->loaded_mm || after->loaded_asid == before->loaded_asid) {
            (after->loaded_mm != before->loaded_mm ? others : same)++;
            visit_cpu1();  // the patches' has a place yet: others are to take it
            continue;
        }
        // It is in the guest meanwhile: the NMI's exit loads what Linux is to go on with.
        const size_t seen = log.text().size();
        ASSERT_TRUE(support::write_file("/proc/sysrq-trigger", "l"));
        const std::optional<TlbState> at_end = tlb_state(1);
        const size_t backtrace = log.text().find("NMI backtrace for cpu 1", seen);
        const size_t cr3 = log.text().find(" CR3: ", backtrace);
        if (backtrace == std::string::npos || cr3 == std::string::npos ||
            at_end->loaded_mm != after->loaded_mm || at_end->loaded_asid != after->loaded_asid) {
            unseen++;
            continue;
        }
        changes++;
        EXPECT_EQ(std::stoull(log.text().substr(cr3 + 6, 16), nullptr, 16) & 0xfff,
                  after->loaded_asid + 1U);
    }
    EXPECT_EQ(changes, 1) << visits << " visits; patches that changed nothing: " << same
                          << ", another process' turn: " << others << ", no backtrace: " << unseen;
    shared->stop = true;
    EXPECT_EQ(support::wait_status(pid), 0);
    EXPECT_EQ(pwrite(patches, "0", 1, 0), 1);
    close(patches);
}

// --- counters ---

TEST(Counters, AreCompleteWhenRead) {
    // Each entry that was not put off by a bounce is an exit, the last one included.
    guest::Vcpu& vcpu = guest::Vcpu::get();
    guest::Options gate;
    gate.gate = true;
    ASSERT_TRUE(guest::enter([] {}, gate).left());
    dune_vcpu_page& page = vcpu.page();
    const uint64_t leave = page.rip - 3;
    const dune_stats before = Machine::get().stats();
    uint64_t left = 0, bounced = 0;
    for (int i = 0; i < 20'000; i++) {
        page.regs.rax = DUNE_HC_LEAVE;
        page.rip = leave;
        page.set = DUNE_SET_RIP;
        ASSERT_EQ(vcpu.run_once(i & 1), 0);
        left += page.exit == DUNE_EXIT_LEAVE;
        bounced += page.exit == DUNE_EXIT_BOUNCE;
    }
    const dune_stats after = Machine::get().stats();
    EXPECT_EQ(left + bounced, 20'000U);
    EXPECT_EQ(after.exits[18] - before.exits[18], left) << "VMCALL";
    EXPECT_EQ(after.bounces - before.bounces, bounced);
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
