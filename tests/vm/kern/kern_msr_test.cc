// SPDX-License-Identifier: MIT
//
// System-call instructions, MSRs, CPUID and XCR0 in the guest: the part of the table in
// docs/kernel.md that kern_cpu_test.cc does not have.

#include <asm/prctl.h>
#include <cpuid.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "cpu.h"
#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using namespace cpu;
using guest::End;
using support::host_has;

// --- system-call instructions ---

extern "C" const char guest_lstar[], ring3_syscall[];
asm(R"(
ring3_syscall:
    mov $5, %eax
    syscall
    int $0x81
guest_lstar:
    lea syscall_count(%rip), %rax
    incq (%rax)
    mov $88, %eax
    sysretq
    .bss
    .globl syscall_count
    .balign 8
syscall_count:
    .quad 0
    .text
)");
extern "C" volatile uint64_t syscall_count;

TEST(Native, SyscallAndSysret) {
    Trap trap;
    syscall_count = 0;
    guest::enter(
        [&] {
            wrmsr(kLstar, reinterpret_cast<uint64_t>(guest_lstar));
            trap = guest::ring3(ring3_syscall);
        },
        kWithTraps);
    EXPECT_EQ(trap.vector, guest::kBackVector);
    EXPECT_EQ(trap.frame.rax, 88U);
    EXPECT_EQ(syscall_count, 1U);
    EXPECT_EQ(exits_of([&] {
                  wrmsr(kLstar, reinterpret_cast<uint64_t>(guest_lstar));
                  for (int i = 0; i < 50; i++) {
                      trap = guest::ring3(ring3_syscall);
                  }
              }),
              (std::map<int, uint64_t>{{32, 1}}))
        << "one exit for the WRMSR, none for the calls";
    EXPECT_EQ(syscall_count, 51U);
}

TEST(Native, LstarByThePage) {
    guest::Vcpu& vcpu = guest::Vcpu::get();
    Trap trap;
    auto code = [&] { trap = guest::ring3(ring3_syscall); };
    vcpu.prepare([](void* f) { (*static_cast<decltype(code)*>(f))(); }, &code, kWithTraps);
    vcpu.page().lstar = reinterpret_cast<uint64_t>(guest_lstar);
    vcpu.page().set |= DUNE_SET_LSTAR;
    ASSERT_TRUE(vcpu.run({}).left());
    EXPECT_EQ(trap.vector, guest::kBackVector);
    EXPECT_EQ(getppid(), guest::host_call(SYS_getppid)) << "and the host's is back";
}

TEST(Native, LstarSurvivesSlowCallsAndOtherProcesses) {
    Trap trap;
    syscall_count = 0;
    long wrong = 0;
    guest::enter(
        [&] {
            wrmsr(kLstar, reinterpret_cast<uint64_t>(guest_lstar));
            for (int i = 0; i < 200; i++) {
                trap = guest::ring3(ring3_syscall);
                wrong += trap.vector != guest::kBackVector;
                guest::slow_call(SYS_sched_yield);
                trap = guest::ring3(ring3_syscall);
                wrong += trap.vector != guest::kBackVector;
                guest::call(SYS_sched_yield);
            }
        },
        kWithTraps);
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(syscall_count, 400U);
}

TEST(Secret, HostLstarIsNotRead) {
    uint64_t lstar = 1, cstar = 1;
    guest::enter([&] {
        lstar = rdmsr(kLstar);
        cstar = rdmsr(kCstar);
    });
    EXPECT_EQ(lstar, 0U);
    EXPECT_EQ(cstar, 0U);
}

TEST(Secret, HostLstarIsNotJumpedTo) {
    // A guest that never set LSTAR executes SYSCALL: where it lands must not tell where the
    // kernel is.
    for (const bool ring3 : {false, true}) {
        Trap trap;
        guest::enter(
            [&] {
                trap = ring3 ? guest::ring3(ring3_syscall) : probe([] {
                    asm volatile("syscall" : : : "rcx", "r11", "memory");
                });
            },
            kWithTraps);
        EXPECT_NE(trap.vector, guest::kNoTrap);
        EXPECT_EQ(trap.frame.rip >> 47, 0U) << std::hex << trap.frame.rip;
        if (trap.vector == kPf) {
            EXPECT_EQ(trap.cr2 >> 47, 0U) << std::hex << trap.cr2;
        }
    }
}

TEST(Secret, NothingOfTheHostInRegisters) {
    uint64_t values[4] = {1, 1, 1, 1};
    guest::enter([&] {
        asm volatile("sgdt -16(%%rsp)\n mov -14(%%rsp), %0\n sidt -16(%%rsp)\n mov -14(%%rsp), %1"
                     : "=r"(values[0]), "=r"(values[1])
                     :
                     : "memory");
        values[2] = rdmsr(0x175);
        values[3] = rdmsr(0x176);
    });
    for (const uint64_t value : values) {
        EXPECT_EQ(value, 0U);
    }
}

TEST(Native, Sysenter) {
    // Its MSRs are the guest's own; SYSENTER lands where they say.
    Trap trap;
    static volatile uint64_t landed;
    landed = 0;
    EXPECT_EQ(exits_of([&] {
                  wrmsr(0x174, guest::kCodeSelector);
                  uint64_t rsp, target;
                  asm volatile(
                      "mov %%rsp, %0\n lea 1f(%%rip), %1\n jmp 2f\n"
                      "1: ud2\n 2:"
                      : "=r"(rsp), "=r"(target));
                  wrmsr(0x175, rsp);
                  wrmsr(0x176, target);
                  trap = probe([] { asm volatile("sysenter"); });
                  landed = target;
              }),
              kNone);
    EXPECT_EQ(trap.vector, kUd);
    EXPECT_EQ(trap.frame.rip, landed);
}

// --- bases and MSRs ---

TEST(Native, BaseMsrs) {
    bool ok = false;
    EXPECT_EQ(exits_of([&] {
                  const uint64_t fs = rdmsr(kFsBase);
                  const uint64_t kernel_gs = rdmsr(kKernelGsBase);
                  wrmsr(kGsBase, 0x1234000);
                  wrmsr(kKernelGsBase, 0x5678000);
                  asm volatile("swapgs");
                  ok = rdmsr(kGsBase) == 0x5678000 && rdmsr(kKernelGsBase) == 0x1234000 && fs != 0;
                  wrmsr(kKernelGsBase, kernel_gs);
              }),
              kNone);
    EXPECT_TRUE(ok);
}

TEST(Native, KernelGsBaseSurvivesPreemption) {
    uint64_t seen = 0;
    guest::enter([&] {
        const uint64_t old = rdmsr(kKernelGsBase);
        wrmsr(kKernelGsBase, 0x7000123000);
        for (int i = 0; i < 100; i++) {
            guest::call(SYS_sched_yield);
            guest::slow_call(SYS_sched_yield);
        }
        const timespec pause = {0, 10'000'000};
        guest::call(SYS_nanosleep, reinterpret_cast<long>(&pause), 0);
        seen = rdmsr(kKernelGsBase);
        wrmsr(kKernelGsBase, old);
    });
    EXPECT_EQ(seen, 0x7000123000U);
}

TEST(Native, ANegativeGsBaseIsTheGuestsAlone) {
    // Where there is no FSGSBASE, Linux tells its own GS base by the sign.
    constexpr uint64_t kNegative = 0xffff888000001000;
    const bool by_the_sign = !(Machine::get().info().cr4_initial & 1 << 16);
    for (const bool swapped : {false, true}) {
        uint64_t of_user_mode[3] = {}, seen[3] = {};
        const End end = guest::enter([&] {
            const uint64_t old = rdmsr(kKernelGsBase);
            if (swapped) {
                wrmsr(kGsBase, kNegative);
                asm volatile("swapgs");
            } else {
                wrmsr(kKernelGsBase, kNegative);
            }
            const timespec pause = {0, 10'000'000};
            for (int i = 0; i < 3; i++) {
                guest::slow_call(SYS_arch_prctl, ARCH_GET_GS, support::arg(&of_user_mode[i]));
                guest::slow_call(SYS_nanosleep, support::arg(&pause), 0);
                guest::call(SYS_nanosleep, support::arg(&pause), 0);
                seen[i] = rdmsr(kKernelGsBase);
            }
            if (swapped) {
                asm volatile("swapgs");
            } else {
                wrmsr(kKernelGsBase, old);
            }
        });
        ASSERT_TRUE(end.left()) << end;
        for (int i = 0; i < 3; i++) {
            EXPECT_EQ(of_user_mode[i] >> 47 != 0, !by_the_sign) << std::hex << of_user_mode[i];
            EXPECT_EQ(seen[i], kNegative) << std::hex << seen[i];
        }
    }
    // Nor does one that is left behind reach user mode, a child of it included.
    const End end = guest::enter([] { wrmsr(kKernelGsBase, kNegative); });
    ASSERT_TRUE(end.left()) << end;
    const auto negative = [] {
        uint64_t base = 0;
        guest::host_call(SYS_arch_prctl, ARCH_GET_GS, support::arg(&base));
        return base >> 47 != 0;
    };
    EXPECT_EQ(negative(), !by_the_sign);
    EXPECT_EQ(WEXITSTATUS(support::status_of([&] { _exit(negative()); })), !by_the_sign);
    guest::enter([] { wrmsr(kKernelGsBase, 0); });
}

TEST(Native, FsGsBaseInstructions) {
    if (!(Machine::get().info().cr4_initial & 1 << 16)) {
        EXPECT_UD(uint64_t v; asm volatile("rdgsbase %0" : "=r"(v)));
        return;
    }
    bool ok = false;
    EXPECT_EQ(exits_of([&] {
                  uint64_t fs, gs;
                  asm volatile("rdfsbase %0" : "=r"(fs));
                  asm volatile("wrgsbase %0" : : "r"(0xabcd000L));
                  asm volatile("rdgsbase %0" : "=r"(gs));
                  asm volatile("wrfsbase %0" : : "r"(fs));
                  ok = gs == 0xabcd000;
              }),
              kNone);
    EXPECT_TRUE(ok);
}

TEST(Emulated, SystemCallMsrs) {
    bool ok = true;
    guest::enter([&] {
        wrmsr(kLstar, 0x123456000);
        ok = ok && rdmsr(kLstar) == 0x123456000;
        wrmsr(kCstar, 0x223456000);
        ok = ok && rdmsr(kCstar) == 0x223456000;
        wrmsr(kFmask, 0x700);
        ok = ok && rdmsr(kFmask) == 0x700;
        wrmsr(kStar, 0x0023001000000000);
        ok = ok && rdmsr(kStar) == 0x0023001000000000;
    });
    EXPECT_TRUE(ok);
    EXPECT_EQ(getppid(), guest::host_call(SYS_getppid)) << "the host's are back";
    EXPECT_GP(wrmsr(kLstar, 1ULL << 47));
    EXPECT_GP(wrmsr(kFmask, 1ULL << 32));
}

TEST(Emulated, Efer) {
    uint64_t efer = 0;
    guest::enter([&] {
        efer = rdmsr(kEfer);
        wrmsr(kEfer, efer);
    });
    EXPECT_EQ(efer & 0xd01, 0xd01U) << "SCE, LME, LMA, NXE";
    EXPECT_GP(wrmsr(kEfer, rdmsr(kEfer) & ~0x100ULL));
    EXPECT_GP(wrmsr(kEfer, rdmsr(kEfer) ^ 0x800));
}

TEST(Refused, OtherMsrs) {
    // SPEC_CTRL, PRED_CMD, FLUSH_CMD, APIC_BASE, FEAT_CTL, DEBUGCTL, MISC_ENABLE, PERF, MTRR,
    // X2APIC, VMX capabilities, TSC deadline, machine checks, XSS, U_CET, and none at all.
    for (const uint32_t msr :
         {0x48U,  0x49U,  0x10bU,  0x1bU,       0x3aU,       0x1d9U,      0x1a0U,
          0xc1U,  0x186U, 0x200U,  0x2ffU,      0x802U,      0x830U,      0x480U,
          0x48bU, 0x6e0U, 0x400U,  0x17aU,      0xda0U,      0x6a0U,      0x8bU,
          0x79U,  0xceU,  0x1fffU, 0xc0001fffU, 0x40000000U, 0x80000000U, 0xffffffffU}) {
        EXPECT_GP(rdmsr(msr));
        EXPECT_GP(wrmsr(msr, 0));
    }
}

TEST(Refused, TscIsReadOnly) {
    EXPECT_EQ(exits_of([] { rdmsr(0x10); }), kNone);
    EXPECT_GP(wrmsr(0x10, 0));
    if (host_has("rdtscp")) {
        EXPECT_EQ(exits_of([] { rdmsr(kTscAux); }), kNone);
        EXPECT_GP(wrmsr(kTscAux, 0));
    }
}

TEST(Native, Rdtsc) {
    uint64_t first = 0, second = 0;
    EXPECT_EQ(exits_of([&] {
                  first = __builtin_ia32_rdtsc();
                  second = __builtin_ia32_rdtsc();
              }),
              kNone);
    EXPECT_GT(second, first);
}

// Calls a function on each CPU that this process may use, in turn.
template <typename F>
void on_each_cpu(F&& function) {
    cpu_set_t all;
    sched_getaffinity(0, sizeof(all), &all);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            ASSERT_TRUE(support::pin_to(cpu));
            function(cpu);
        }
    }
    sched_setaffinity(0, sizeof(all), &all);
}

constexpr uint32_t kPat = 0x277;

TEST(Emulated, PatIsTheHosts) {
    on_each_cpu([](int cpu) {
        const auto before = support::host_msr(kPat, cpu);
        ASSERT_TRUE(before) << "no /dev/cpu/" << cpu << "/msr";
        uint64_t seen = 0;
        const auto exits = exits_of([&] {
            seen = rdmsr(kPat);
            wrmsr(kPat, seen);  // what it is
        });
        EXPECT_EQ(exits, (std::map<int, uint64_t>{{31, 1}, {32, 1}}));
        EXPECT_EQ(seen, *before);
        EXPECT_EQ(support::host_msr(kPat, cpu), before);
    });
}

TEST(Refused, PatOfTheGuestsOwn) {
    on_each_cpu([](int cpu) {
        const auto before = support::host_msr(kPat, cpu);
        ASSERT_TRUE(before) << "no /dev/cpu/" << cpu << "/msr";
        // Each entry with each type in turn, also those that there are not (2, 3, 8), and all at
        // once.
        for (int entry = 0; entry < 8; entry++) {
            for (uint64_t type = 0; type < 9; type++) {
                const uint64_t value = (*before & ~(0xffULL << 8 * entry)) | type << 8 * entry;
                if (value != *before) {
                    const Trap trap = trap_of([&] { wrmsr(kPat, value); });
                    EXPECT_EQ(trap.vector, kGp) << std::hex << value;
                    EXPECT_EQ(trap.error, 0U);
                }
            }
        }
        EXPECT_GP(wrmsr(kPat, 0));
        EXPECT_GP(wrmsr(kPat, 0x0606060606060606));
        EXPECT_EQ(support::host_msr(kPat, cpu), before) << "and the host's is as it was";
    });
}

TEST(Native, RdtscpTellsTheCpu) {
    if (!host_has("rdtscp")) {
        EXPECT_UD(unsigned aux; __builtin_ia32_rdtscp(&aux));
        GTEST_SKIP() << "no RDTSCP";
    }
    on_each_cpu([](int cpu) {
        unsigned host = ~0U, by_rdtscp = ~0U;
        uint64_t by_rdmsr = ~0ULL, before = 0, tsc = 0, after = 0;
        __builtin_ia32_rdtscp(&host);
        EXPECT_EQ(host & 0xfff, static_cast<unsigned>(cpu)) << "as Linux sets it";
        EXPECT_EQ(exits_of([&] {
                      before = __builtin_ia32_rdtsc();
                      tsc = __builtin_ia32_rdtscp(&by_rdtscp);
                      after = __builtin_ia32_rdtsc();
                      by_rdmsr = rdmsr(kTscAux);
                  }),
                  kNone);
        EXPECT_EQ(by_rdtscp, host);
        EXPECT_EQ(by_rdmsr, host);
        // What was asked later is later, within what the emulator rounds (docs/machine.md).
        EXPECT_LE(before, tsc + 32);
        EXPECT_LE(tsc, after + 32);
        EXPECT_GP(wrmsr(kTscAux, 77));
        unsigned now = ~0U;
        __builtin_ia32_rdtscp(&now);
        EXPECT_EQ(now, host);
    });
}

uint64_t rdpid() {
    uint64_t value;
    asm volatile("rdpid %0" : "=r"(value));
    return value;
}

TEST(Native, Rdpid) {
    if (!(cpuid(7).ecx & 1 << 22)) {
        EXPECT_UD(rdpid());
        GTEST_SKIP() << "no RDPID";
    }
    on_each_cpu([](int) {
        uint64_t seen = ~0ULL;
        EXPECT_EQ(exits_of([&] { seen = rdpid(); }), kNone);
        EXPECT_EQ(seen, rdpid());
    });
}

// --- CPUID, XCR0 ---

TEST(Emulated, CpuidHidesWhatIsNotThere) {
    const CpuidResult host1 = cpuid(1);
    CpuidResult r1 = {}, r7 = {}, ra = {};
    uint64_t exits = exits_of([&] {
        r1 = cpuid(1);
        r7 = cpuid(7);
        ra = cpuid(0xa);
    })[10];
    EXPECT_EQ(exits, 3U);
    EXPECT_FALSE(r1.ecx & 1 << 5) << "VMX";
    EXPECT_FALSE(r1.ecx & 1 << 3) << "MONITOR";
    EXPECT_FALSE(r1.ecx & 1 << 21) << "x2APIC";
    EXPECT_EQ(r1.eax, host1.eax);
    EXPECT_EQ(r1.ecx & (1 << 0 | 1 << 9 | 1 << 19), host1.ecx & (1 << 0 | 1 << 9 | 1 << 19))
        << "SSE stays";
    EXPECT_FALSE(r7.edx & 1 << 26) << "SPEC_CTRL";
    EXPECT_FALSE(r7.ecx & 1 << 7) << "CET_SS";
    EXPECT_FALSE(r7.edx & 1 << 20) << "CET_IBT";
    EXPECT_EQ(ra.eax, 0U) << "performance monitoring";
    if (!Machine::get().has(DUNE_FEAT_INVPCID)) {
        EXPECT_FALSE(r7.ebx & 1 << 10) << "INVPCID";
    }
}

TEST(Emulated, CpuidTellsOfProtectionKeysAsCr4Does) {
    if (!(Machine::get().info().cr4_guest_bits & 1 << 22)) {
        GTEST_SKIP() << "no protection keys";
    }
    uint32_t off = 0, on = 0;
    const End end = guest::enter([&] {
        off = cpuid(7).ecx;
        const uint64_t cr4 = read_cr<4>();
        write_cr<4>(cr4 | 1 << 22);
        on = cpuid(7).ecx;
        write_cr<4>(cr4);
    });
    EXPECT_TRUE(end.left()) << end;
    // Who believes in OSPKE executes RDPKRU, which is #UD without CR4.PKE.
    EXPECT_EQ(off >> 3 & 3, 1U) << "PKU, not OSPKE";
    EXPECT_EQ(on >> 3 & 3, 3U);
}

TEST(Emulated, CpuidOfAllLeaves) {
    uint32_t max = 0;
    const End end = guest::enter([&] {
        max = cpuid(0).eax;
        for (uint32_t leaf = 0; leaf < 0x40; leaf++) {
            for (uint32_t subleaf = 0; subleaf < 4; subleaf++) {
                cpuid(leaf, subleaf);
                cpuid(0x80000000 + leaf, subleaf);
                cpuid(0x40000000 + leaf, subleaf);
            }
        }
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(max, cpuid(0).eax);
}

TEST(Refused, Xsetbv) {
    if (!host_has("xsave")) {
        EXPECT_UD(asm volatile("xsetbv" : : "a"(7), "c"(0), "d"(0)));
        return;
    }
    uint32_t low = 0, high = 0;
    const End end = guest::enter([&] {
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        asm volatile("xsetbv" : : "a"(low), "d"(high), "c"(0));  // what it is
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_GP(asm volatile("xsetbv" : : "a"(low ^ 4), "d"(high), "c"(0)));
    EXPECT_GP(asm volatile("xsetbv" : : "a"(1), "d"(0), "c"(0)));
    EXPECT_GP(asm volatile("xsetbv" : : "a"(low), "d"(high), "c"(1)));
}

}  // namespace
