// SPDX-License-Identifier: MIT
//
// Machine checks: memory that goes bad under a guest is what it is under user mode. What Linux does
// then is taken from a process without a guest, to which the same happens.

#include <gtest/gtest.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <atomic>
#include <cstring>
#include <iostream>
#include <thread>
#include "bad_memory.h"
#include "cpu.h"
#include "events.h"
#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using dune::vmtest::frame_of;
using dune::vmtest::read_on;
using dune::vmtest::Where;
using guest::call;
using guest::End;
using guest::Machine;
using guest::Trap;
using support::kPage;
using support::pin_to;

constexpr Where kRing0 = Where::kGuestRing0, kRing3 = Where::kGuestRing3,
                kProcess = Where::kProcess, kVmEntry = Where::kVmEntry;

// A read of bad memory has Linux send this much about it.
struct Signal {
    int number, code, lsb;
    uint64_t address;

    bool operator==(const Signal&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Signal& signal) {
    return out << "signal " << signal.number << ", code " << signal.code << ", lsb " << signal.lsb
               << ", address " << std::hex << signal.address << std::dec;
}

// What a child says of itself, in memory that it shares with its parent.
struct Report {
    uint64_t page;
    volatile sig_atomic_t count;
    Signal signals[4];
    Trap trap;             // of the guest's reads
    Signal in_the_guest;   // what the trap's handler is to send
    bool neighbors, anew;  // are as they were, and can be used
};

Report* report;
sigjmp_buf back;
bool jumps;

void on_signal(int number, siginfo_t* info, void*) {
    guest::note_handler(true);
    if (report->count < 4) {
        report->signals[report->count] = {number, info->si_code, info->si_addr_lsb,
                                          reinterpret_cast<uint64_t>(info->si_addr)};
    }
    report->count = report->count + 1;
    if (jumps) {
        siglongjmp(back, 1);
    }
}

void handle_sigbus() {
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(SIGBUS, &action, nullptr);
}

// From now on a load that the calling thread does there may meet bad memory.
void go_bad(const char* page, Where where) {
    const uint32_t frame = frame_of(page);
    const int cpu = sched_getcpu();
    if (frame == 0 || cpu < 0 || !pin_to(cpu)) {
        _exit(77);
    }
    dune::vmtest::go_bad(frame, where, cpu);
}

// As read_on().
asm(R"(
    .text
ring3_read_on:
    mov $20000000, %ecx
1:  mov (%rdi), %al
    dec %ecx
    jnz 1b
    int $0x81
)");
extern "C" const char ring3_read_on[];

// The middle one of some pages that hold 42. No child may have them in common with its parent, who
// would lose them, too.
char* some_page() {
    char* pages = guest::map(3 * kPage);
    std::memset(pages, 42, 3 * kPage);
    return pages + kPage;
}

// One in a huge page, if there is one to be had.
char* part_of_a_huge_page() {
    constexpr size_t kHuge = 2UL << 20;
    char* memory = guest::map(2 * kHuge);
    char* huge = memory + (kHuge - reinterpret_cast<uint64_t>(memory) % kHuge) % kHuge;
    support::write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    madvise(huge, kHuge, MADV_HUGEPAGE);
    std::memset(huge, 42, kHuge);
    if (frame_of(huge) % 512 != 0 || frame_of(huge + kHuge - kPage) != frame_of(huge) + 511) {
        return nullptr;
    }
    return huge + 5 * kPage;
}

// What the child of a test is to do.
struct Plan {
    Where where = kProcess;
    bool door = false;
    bool in_the_mirror = false;  // the guest has used the page before
    void (*before)() = handle_sigbus;
    char* (*page)() = some_page;
};

// Reads bad memory until it knows it, and once again, and fills in the report. In a child.
void meet_bad_memory(const Plan& plan) {
    char* page = plan.page();
    if (page == nullptr) {
        _exit(78);
    }
    report->page = reinterpret_cast<uint64_t>(page);
    guest::Options options = guest::kWithTraps;
    options.door = plan.door;
    if (plan.where != kProcess || plan.in_the_mirror) {
        guest::enter([&] { page[1] = 1; });
    }
    plan.before();
    if (plan.where != kProcess) {
        go_bad(page, plan.where);
    } else {
        jumps = true;
        if (sigsetjmp(back, 1) == 0) {
            go_bad(page, plan.where);
            read_on(page);
        }
        if (sigsetjmp(back, 1) == 0) {
            read_on(page);
        }
        jumps = false;
    }
    if (plan.where != kProcess || plan.in_the_mirror) {
        guest::enter(
            [&] {
                report->trap = plan.where == kRing3
                                   ? guest::ring3(ring3_read_on, support::arg(page))
                                   : guest::probe([&] { read_on(page); });
            },
            options);
        const dune_vcpu_page& told = guest::Vcpu::get().page();
        report->in_the_guest = {static_cast<int>(told.fault_signal), told.fault_si_code, 12,
                                report->trap.cr2};
    }
    // Nothing of it stays at the address, and the memory around it is fine.
    report->neighbors = guest::enter([&] {
                            page[-1] = page[-static_cast<long>(kPage)];
                            page[kPage] = page[kPage + 1];
                        }).left() &&
                        page[-1] == 42 && page[kPage] == 42;
    report->anew = mmap(page, kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page &&
                   guest::enter([&] { page[2] = static_cast<char>(page[2] + 3); }).left() &&
                   page[2] == 3;
}

class MachineChecks : public testing::Test {
  protected:
    void SetUp() override {
        if (const char* why = dune::vmtest::open_bad_memory(); why != nullptr) {
            GTEST_SKIP() << why;
        }
        report = static_cast<Report*>(mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE,
                                           MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(report, MAP_FAILED);
    }
    // Nothing waits for a machine check any more, and guests run.
    void TearDown() override {
        if (report == nullptr) {
            return;
        }
        EXPECT_FALSE(dune::vmtest::is_still_to_be_met());
        dune::vmtest::go_bad(0, Where::kNowhere, 0);
        const pid_t pid = getpid();
        long seen = 0;
        const End end = guest::enter([&] { seen = call(SYS_getpid); });
        EXPECT_TRUE(end.left()) << end;
        EXPECT_EQ(seen, pid);
    }

    // How a child ends that does what the plan says.
    static int status_of(const Plan& plan) {
        *report = {};
        return support::status_of([&] {
            meet_bad_memory(plan);
            _exit(0);
        });
    }

    static void expect_as_native(const Plan& plan) {
        const int native = status_of({.page = plan.page});
        if (WEXITSTATUS(native) == 78) {
            GTEST_SKIP() << "no huge page";
        }
        Signal bus = {SIGBUS, BUS_MCEERR_AR, 12, report->page};
        EXPECT_EQ(native, 0) << std::hex << native;
        ASSERT_EQ(report->count, 2) << "natively";
        EXPECT_EQ(report->signals[0], bus);
        EXPECT_EQ(report->signals[1], bus);
        EXPECT_TRUE(report->neighbors && report->anew);

        EXPECT_EQ(status_of(plan), 0);
        bus.address = report->page;
        EXPECT_EQ(report->count, plan.where == kProcess ? 2 : 1);
        EXPECT_EQ(report->signals[0], bus);
        EXPECT_EQ(report->trap.vector, cpu::kPf) << "read again";
        EXPECT_TRUE(report->trap.error & DUNE_PF_FROM_HOST);
        EXPECT_EQ(report->trap.frame.cs & 3, plan.where == kRing3 ? 3U : 0U);
        EXPECT_EQ(report->in_the_guest, bus);
        EXPECT_TRUE(report->neighbors);
        EXPECT_TRUE(report->anew);
    }
};

TEST_F(MachineChecks, InRing0) {
    expect_as_native({.where = kRing0});
}

TEST_F(MachineChecks, InRing0ByTheDoor) {
    expect_as_native({.where = kRing0, .door = true});
}

TEST_F(MachineChecks, InRing3) {
    expect_as_native({.where = kRing3});
}

TEST_F(MachineChecks, InUserModeOfAProcessWithAGuest) {
    expect_as_native({.where = kProcess, .in_the_mirror = true});
}

TEST_F(MachineChecks, InAHugePage) {
    expect_as_native({.where = kRing0, .page = part_of_a_huge_page});
}

TEST_F(MachineChecks, AtAnEntry) {
    expect_as_native({.where = kVmEntry});
}

TEST_F(MachineChecks, AtAnEntryThatDeliversAnInterrupt) {
    // It was not delivered, and another one waits.
    *report = {};
    const int status = support::status_of([] {
        char* page = some_page();
        guest::Vcpu& vcpu = guest::Vcpu::get();
        handle_sigbus();
        const End end = guest::enter(
            [] {
                guest::this_cpu().handler = [](guest::TrapFrame& frame, guest::Cpu& cpu) {
                    cpu.seen[cpu.count % 4] = frame.vector;
                    cpu.count = cpu.count + 1;
                    return true;
                };
                asm volatile("sti\n nop\n vmcall"
                             :
                             : "a"(static_cast<long>(DUNE_HC_LEAVE)), "D"(1L)
                             : "memory");
                events::spin(1000);
                asm volatile("cli");
            },
            guest::kWithTraps);
        if (!end.left() || end.argument != 1) {
            _exit(1);
        }
        events::interrupt(vcpu, 0x50);
        events::interrupt(vcpu, 0x60);
        go_bad(page, kVmEntry);
        const End after = vcpu.run(guest::kWithTraps);
        const guest::Cpu& cpu = *vcpu.cpu();
        const bool both = cpu.count == 2 && cpu.seen[0] == 0x60 && cpu.seen[1] == 0x50;
        if (!both) {
            std::cerr << after << ", " << cpu.count << " interrupts: " << cpu.seen[0] << ", "
                      << cpu.seen[1] << "\n";
        }
        _exit(after.left() && both ? 0 : 2);
    });
    EXPECT_EQ(status, 0) << std::hex << status;
    EXPECT_EQ(report->count, 1);
}

// --- the end of a process ---

TEST_F(MachineChecks, KillWhoHasNoHandler) {
    for (const Where where : {kProcess, kRing0, kRing3}) {
        const int status = status_of({.where = where, .before = [] {}});
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
    }
}

TEST_F(MachineChecks, KillWhoBlocksTheSignal) {
    const auto block = [] {
        handle_sigbus();
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGBUS);
        sigprocmask(SIG_BLOCK, &set, nullptr);
    };
    for (const Where where : {kProcess, kRing0}) {
        const int status = status_of({.where = where, .before = block});
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
        EXPECT_EQ(report->count, 0);
    }
}

// --- others ---

TEST_F(MachineChecks, OfMemoryThatAnotherGuestHas) {
    // It is taken away from all; who else has it is told when it looks.
    static char* pages;
    pages = static_cast<char*>(
        mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    std::memset(pages, 42, 3 * kPage);
    char* page = pages + kPage;
    guest::enter([&] { *page = 41; });
    EXPECT_EQ(status_of({.where = kRing0, .page = [] { return pages + kPage; }}), 0);
    EXPECT_EQ(report->count, 1);

    handle_sigbus();
    *report = {};
    Trap trap;
    const End end =
        guest::enter([&] { trap = guest::probe([&] { read_on(page); }); }, guest::kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, cpu::kPf);
    EXPECT_EQ(report->count, 0) << "it did not meet the error itself";
    const dune_vcpu_page& told = guest::Vcpu::get().page();
    const Signal in_the_guest = {static_cast<int>(told.fault_signal), told.fault_si_code, 12,
                                 trap.cr2};
    jumps = true;
    if (sigsetjmp(back, 1) == 0) {
        read_on(page);
    }
    jumps = false;
    ASSERT_EQ(report->count, 1);
    EXPECT_EQ(in_the_guest, report->signals[0]);
    signal(SIGBUS, SIG_DFL);
    EXPECT_EQ(pages[0], 42);
    EXPECT_EQ(pages[2 * kPage], 42);
}

// Without local machine checks all CPUs get each one, and Linux waits for all of them.
class MachineChecksWithOtherCpus : public MachineChecks {
  protected:
    // Another CPU's guest does nothing but `turn` meanwhile.
    template <typename F>
    static void expect_that_it_goes_on(F&& turn) {
        if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
            GTEST_SKIP() << "one CPU";
        }
        std::atomic<bool> stop = false;
        std::atomic<uint64_t> rounds = 0;
        End end;
        std::thread other([&] {
            pin_to(1);
            end = guest::enter([&] {
                while (!stop) {
                    turn();
                    rounds++;
                }
            });
        });
        while (rounds == 0) {
            usleep(1000);
        }
        pin_to(0);
        for (const Where where : {kProcess, kRing0, kVmEntry, kProcess, kRing0}) {
            EXPECT_EQ(status_of({.where = where}), 0);
            EXPECT_EQ(report->count, where == kProcess ? 2 : 1);
            const uint64_t then = rounds;
            const double start = support::now();
            while (rounds == then && support::now() - start < 5) {
                usleep(1000);
            }
            EXPECT_NE(rounds, then);
        }
        stop = true;
        other.join();
        EXPECT_TRUE(end.left()) << end;
    }
};

TEST_F(MachineChecksWithOtherCpus, InTheGuest) {
    const uint64_t before = Machine::get().stats().exits[0];
    expect_that_it_goes_on([] { asm volatile("cli"); });
    if (!IsSkipped()) {
        EXPECT_GT(Machine::get().stats().exits[0], before) << "exits by NMI or exception";
    }
}

TEST_F(MachineChecksWithOtherCpus, MostlyInTheModule) {
    expect_that_it_goes_on([] { call(SYS_getpid); });
}

TEST_F(MachineChecksWithOtherCpus, MostlyInTheKernel) {
    expect_that_it_goes_on([] { guest::slow_call(SYS_sched_yield); });
}

}  // namespace
