// SPDX-License-Identifier: MIT
//
// What the guest may touch: natively (no VM exit), emulated, or refused and with which
// exception. A test a row of the table in docs/kernel.md.

#include <cpuid.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <map>
#include <string>

#include "guest.h"
#include "traps.h"

namespace {

using guest::End;
using guest::Machine;
using guest::Options;
using guest::probe;
using guest::Trap;

constexpr int kUd = 6;
constexpr int kGp = 13;
constexpr int kPf = 14;

constexpr uint32_t kEfer = 0xc0000080, kStar = 0xc0000081, kLstar = 0xc0000082, kCstar = 0xc0000083,
                   kFmask = 0xc0000084, kFsBase = 0xc0000100, kGsBase = 0xc0000101,
                   kKernelGsBase = 0xc0000102, kTscAux = 0xc0000103;

const Options kWithTraps = [] {
    Options options;
    options.traps = true;
    return options;
}();

// VM exits that a piece of guest code caused by itself, by basic exit reason.
template <typename F>
std::map<int, uint64_t> exits_of(F&& code) {
    const dune_stats before = Machine::get().stats();
    const End end = guest::enter(code, kWithTraps);
    EXPECT_TRUE(end.left() && end.argument == 0) << end;
    const dune_stats after = Machine::get().stats();
    std::map<int, uint64_t> exits;
    for (int reason = 0; reason < DUNE_NR_EXITS; reason++) {
        // Not interrupts, the hypercall that leaves, and memory that is new.
        if (reason != 1 && reason != 18 && reason != 48 &&
            after.exits[reason] != before.exits[reason]) {
            exits[reason] = after.exits[reason] - before.exits[reason];
        }
    }
    return exits;
}

const std::map<int, uint64_t> kNone;

// The exception that a piece of ring-0 code raises.
template <typename F>
Trap trap_of(F&& code) {
    Trap trap;
    const End end = guest::enter([&] { trap = probe(code); }, kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    return trap;
}

#define EXPECT_GP(...)                                    \
    do {                                                  \
        const Trap trap_ = trap_of([&] { __VA_ARGS__; }); \
        EXPECT_EQ(trap_.vector, kGp) << #__VA_ARGS__;     \
        EXPECT_EQ(trap_.error, 0U) << #__VA_ARGS__;       \
    } while (0)
#define EXPECT_UD(...) EXPECT_EQ(trap_of([&] { __VA_ARGS__; }).vector, kUd) << #__VA_ARGS__

template <int N>
uint64_t read_cr() {
    uint64_t value;
    if constexpr (N == 0)
        asm volatile("mov %%cr0, %0" : "=r"(value));
    if constexpr (N == 2)
        asm volatile("mov %%cr2, %0" : "=r"(value));
    if constexpr (N == 3)
        asm volatile("mov %%cr3, %0" : "=r"(value));
    if constexpr (N == 4)
        asm volatile("mov %%cr4, %0" : "=r"(value));
    if constexpr (N == 8)
        asm volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}

template <int N>
void write_cr(uint64_t value) {
    if constexpr (N == 0)
        asm volatile("mov %0, %%cr0" : : "r"(value) : "memory");
    if constexpr (N == 2)
        asm volatile("mov %0, %%cr2" : : "r"(value) : "memory");
    if constexpr (N == 3)
        asm volatile("mov %0, %%cr3" : : "r"(value) : "memory");
    if constexpr (N == 4)
        asm volatile("mov %0, %%cr4" : : "r"(value) : "memory");
    if constexpr (N == 8)
        asm volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

uint64_t rdmsr(uint32_t msr) {
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return static_cast<uint64_t>(high) << 32 | low;
}

void wrmsr(uint32_t msr, uint64_t value) {
    asm volatile("wrmsr"
                 :
                 : "c"(msr), "a"(static_cast<uint32_t>(value)),
                   "d"(static_cast<uint32_t>(value >> 32))
                 : "memory");
}

struct CpuidResult {
    uint32_t eax, ebx, ecx, edx;
};

CpuidResult cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    CpuidResult r;
    __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
    return r;
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

// --- control registers ---

TEST(Native, Cr0Bits) {
    const uint64_t bits = Machine::get().info().cr0_guest_bits;
    EXPECT_EQ(bits & 0x10000, 0x10000U) << "WP";
    bool ok = true;
    EXPECT_EQ(exits_of([&] {
                  const uint64_t cr0 = read_cr<0>();
                  for (int bit = 0; bit < 32; bit++) {
                      if (bits >> bit & 1) {
                          write_cr<0>(cr0 ^ 1ULL << bit);
                          ok = ok && read_cr<0>() == (cr0 ^ 1ULL << bit);
                          write_cr<0>(cr0);
                      }
                  }
                  asm volatile("clts");
                  asm volatile("lmsw %w0" : : "r"(cr0));
              }),
              kNone);
    EXPECT_TRUE(ok);
}

TEST(Native, Cr4Bits) {
    const uint64_t bits = Machine::get().info().cr4_guest_bits;
    EXPECT_EQ(bits & 0x80, 0x80U) << "PGE";
    bool ok = true;
    EXPECT_EQ(exits_of([&] {
                  const uint64_t cr4 = read_cr<4>();
                  for (int bit = 0; bit < 32; bit++) {
                      // SMEP and SMAP would stop this code, which is in pages of ring 3.
                      if (bits >> bit & 1 && bit != 20 && bit != 21) {
                          write_cr<4>(cr4 ^ 1ULL << bit);
                          ok = ok && read_cr<4>() == (cr4 ^ 1ULL << bit);
                          write_cr<4>(cr4);
                      }
                  }
              }),
              kNone);
    EXPECT_TRUE(ok);
}

TEST(Native, SmapGuardsRing3Memory) {
    if (!(Machine::get().info().cr4_guest_bits & 1 << 21)) {
        GTEST_SKIP() << "no SMAP";
    }
    // This code's own stack is in a page of ring 3: AC keeps it usable until one load.
    Trap trap;
    static volatile int target;
    const End end = guest::enter(
        [&] {
            const uint64_t cr4 = read_cr<4>();
            trap = probe([&] {
                asm volatile("stac\n mov %0, %%cr4\n clac\n mov (%1), %%eax"
                             :
                             : "r"(cr4 | 1 << 21), "r"(&target)
                             : "eax", "memory");
            });
            write_cr<4>(cr4);
        },
        kWithTraps);
    // The trap's own delivery is a supervisor write to a ring-3 page: SMAP ends it in a
    // triple fault, or, where the CPU lets stacks pass, in a #PF.
    EXPECT_TRUE(end.died() || trap.vector == kPf) << end;
}

TEST(Native, Cr3AndInvlpg) {
    EXPECT_EQ(exits_of([&] {
                  for (int i = 0; i < 100; i++) {
                      write_cr<3>(read_cr<3>());
                      asm volatile("invlpg (%0)" : : "r"(&i) : "memory");
                  }
              }),
              kNone);
}

TEST(Native, Cr2) {
    uint64_t seen = 0;
    EXPECT_EQ(exits_of([&] {
                  write_cr<2>(0x123456789abcdef);
                  seen = read_cr<2>();
              }),
              kNone);
    EXPECT_EQ(seen, 0x123456789abcdefU);
}

TEST(Native, Cr2SurvivesCallsAndFaults) {
    uint64_t seen = 0;
    char* fresh = guest::map(1 << 20);
    guest::enter([&] {
        write_cr<2>(0x5555aaaa);
        for (int i = 0; i < 256; i++) {
            fresh[i << 12] = 1;
            guest::call(SYS_getpid);
            guest::slow_call(SYS_getpid);
        }
        seen = read_cr<2>();
    });
    EXPECT_EQ(seen, 0x5555aaaaU);
}

TEST(Native, Pcid) {
    if (!(Machine::get().info().cr4_guest_bits & 1 << 17)) {
        GTEST_SKIP() << "no PCID";
    }
    uint64_t seen = 0;
    EXPECT_EQ(exits_of([&] {
                  const uint64_t cr3 = read_cr<3>();
                  write_cr<4>(read_cr<4>() | 1 << 17);
                  write_cr<3>(cr3 | 5);
                  write_cr<3>(cr3 | 6 | 1ULL << 63);
                  seen = read_cr<3>() & 0xfff;
                  write_cr<3>(cr3);
                  write_cr<4>(read_cr<4>() & ~(1ULL << 17));
              }),
              kNone);
    EXPECT_EQ(seen, 6U);
}

TEST(Native, Invpcid) {
    struct {
        uint64_t pcid, address;
    } descriptor = {};
    const auto invpcid = [&] {
        asm volatile("invpcid %0, %1" : : "m"(descriptor), "r"(2L) : "memory");
    };
    if (!Machine::get().has(DUNE_FEAT_INVPCID)) {
        EXPECT_UD(invpcid());
        return;
    }
    EXPECT_EQ(exits_of(invpcid), kNone);
}

TEST(Refused, Cr0HostBits) {
    for (const int bit : {0, 4, 5, 31, 29, 30}) {
        const Trap trap = trap_of([&] { write_cr<0>(read_cr<0>() ^ 1ULL << bit); });
        EXPECT_EQ(trap.vector, kGp) << "CR0 bit " << bit;
    }
    EXPECT_GP(write_cr<0>(read_cr<0>() | 1ULL << 32));
}

TEST(Refused, Cr4HostBits) {
    const uint64_t bits = Machine::get().info().cr4_guest_bits;
    for (int bit = 0; bit < 64; bit++) {
        if (!(bits >> bit & 1)) {
            const Trap trap = trap_of([&] { write_cr<4>(read_cr<4>() ^ 1ULL << bit); });
            EXPECT_EQ(trap.vector, kGp) << "CR4 bit " << bit;
        }
    }
}

TEST(Emulated, Cr4DoesNotShowVmx) {
    uint64_t cr4 = ~0ULL;
    guest::enter([&] { cr4 = read_cr<4>(); });
    EXPECT_EQ(cr4, Machine::get().info().cr4_initial);
    EXPECT_EQ(cr4 >> 13 & 1, 0U);
}

TEST(Emulated, Cr0Initial) {
    uint64_t cr0 = 0;
    guest::enter([&] { cr0 = read_cr<0>(); });
    EXPECT_EQ(cr0, Machine::get().info().cr0_initial);
}

TEST(Emulated, Cr8) {
    uint64_t seen = 99;
    guest::enter([&] {
        write_cr<8>(11);
        seen = read_cr<8>();
    });
    EXPECT_EQ(seen, 11U);
    EXPECT_GP(write_cr<8>(16));
}

// --- tables and segments ---

TEST(Native, DescriptorTables) {
    struct __attribute__((packed)) Descriptor {
        uint16_t limit;
        uint64_t base;
    };
    bool same = false;
    EXPECT_EQ(exits_of([&] {
                  Descriptor gdt, idt, again;
                  uint16_t tr, ldt;
                  asm volatile("sgdt %0\n sidt %1" : "=m"(gdt), "=m"(idt));
                  asm volatile("lgdt %0\n lidt %1" : : "m"(gdt), "m"(idt));
                  asm volatile("sgdt %0" : "=m"(again));
                  asm volatile("str %0" : "=r"(tr));
                  asm volatile("lldt %w0" : : "r"(0));
                  asm volatile("sldt %0" : "=r"(ldt));
                  same = gdt.base == again.base && gdt.limit == again.limit &&
                         tr == guest::kTssSelector && ldt == 0;
              }),
              kNone);
    EXPECT_TRUE(same);
}

TEST(Native, LdtWithADescriptor) {
    alignas(8) static uint64_t ldt[1] = {0x00cff3000000ffff};
    uint16_t seen = 0;
    EXPECT_EQ(exits_of([&] {
                  guest::Cpu& cpu = guest::this_cpu();
                  const auto base = reinterpret_cast<uint64_t>(ldt);
                  const uint64_t save[2] = {cpu.gdt[8], cpu.gdt[9]};
                  cpu.gdt[8] =
                      7 | (base & 0xffffff) << 16 | 0x82ULL << 40 | (base >> 24 & 0xff) << 56;
                  cpu.gdt[9] = base >> 32;
                  asm volatile("lldt %w1\n mov %w2, %%es\n mov %%es, %0\n mov %w3, %%es\n lldt %w3"
                               : "=&r"(seen)
                               : "r"(0x40), "r"(7), "r"(0)
                               : "memory");
                  cpu.gdt[8] = save[0];
                  cpu.gdt[9] = save[1];
              }),
              kNone);
    EXPECT_EQ(seen, 7U);
}

TEST(Native, HostTablesAreTheHostsAfterwards) {
    // With limits of its own: a 0xffff left by a VM exit would show.
    struct __attribute__((packed)) Descriptor {
        uint16_t limit;
        uint64_t base;
    };
    Descriptor gdt[2], idt[2];
    const auto store = [&](int i) {
        asm volatile("sgdt %0\n sidt %1" : "=m"(gdt[i]), "=m"(idt[i]));
    };
    Machine::get();
    store(0);
    if (gdt[0].base >> 63 == 0) {
        GTEST_SKIP() << "UMIP hides them";
    }
    guest::enter([] { guest::call(SYS_getpid); }, kWithTraps);
    store(1);
    EXPECT_EQ(gdt[1].limit, gdt[0].limit);
    EXPECT_EQ(idt[1].limit, idt[0].limit);
    EXPECT_EQ(idt[1].base, idt[0].base);
}

extern "C" const char ring3_back[], ring3_hlt[], ring3_cli[], ring3_syscall[], ring3_cr[];
asm(R"(
ring3_back:
    mov $77, %eax
    int $0x81
ring3_hlt:
    hlt
ring3_cli:
    cli
ring3_cr:
    mov %cr0, %rax
ring3_syscall:
    mov $5, %eax
    syscall
    int $0x81
)");

TEST(Native, IretToRing3AndBack) {
    Trap trap;
    EXPECT_EQ(exits_of([&] { trap = guest::ring3(ring3_back); }), kNone);
    EXPECT_EQ(trap.vector, guest::kBackVector);
    EXPECT_EQ(trap.frame.rax, 77U);
    EXPECT_EQ(trap.frame.cs, guest::kUserCode);
    EXPECT_EQ(trap.frame.ss, guest::kUserData);
}

TEST(Native, Ring3IsRing3) {
    for (const char* code : {ring3_hlt, ring3_cli, ring3_cr}) {
        Trap trap;
        EXPECT_EQ(exits_of([&] { trap = guest::ring3(code); }), kNone);
        EXPECT_EQ(trap.vector, kGp);
    }
}

TEST(Native, StiAndCli) {
    uint64_t on = 0, off = 0;
    const auto exits = exits_of([&] {
        asm volatile("sti\n nop\n pushfq\n pop %0\n cli\n pushfq\n pop %1" : "=r"(on), "=r"(off));
    });
    EXPECT_EQ(exits, kNone);
    EXPECT_TRUE(on & 0x200);
    EXPECT_FALSE(off & 0x200);
}

// --- system-call instructions ---

extern "C" const char guest_lstar[];
asm(R"(
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

TEST(Native, Rdtscp) {
    if (!host_has("rdtscp")) {
        GTEST_SKIP() << "no RDTSCP";
    }
    unsigned aux;
    EXPECT_EQ(exits_of([&] { __builtin_ia32_rdtscp(&aux); }), kNone);
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

// --- instructions that are refused ---

TEST(Refused, Ports) {
    EXPECT_GP(uint8_t v; asm volatile("inb $0x80, %0" : "=a"(v)));
    EXPECT_GP(asm volatile("outb %0, $0x80" : : "a"(static_cast<uint8_t>(0))));
    EXPECT_GP(asm volatile("outl %0, %w1" : : "a"(0), "d"(0xcf8)));
    char buffer[8];
    EXPECT_GP(void* p = buffer; asm volatile("insb" : "+D"(p) : "d"(0x60) : "memory"));
    EXPECT_GP(const void* p = buffer; asm volatile("outsb" : "+S"(p) : "d"(0x60)));
}

TEST(Refused, Rdpmc) {
    EXPECT_GP(asm volatile("rdpmc" : : "c"(0) : "eax", "edx"));
}

TEST(Refused, CacheFlushes) {
    EXPECT_GP(asm volatile("wbinvd" : : : "memory"));
    EXPECT_GP(asm volatile("invd" : : : "memory"));
}

TEST(Refused, VmxInstructions) {
    uint64_t region = 0;
    struct {
        uint64_t a, b;
    } descriptor = {};
    EXPECT_UD(asm volatile("vmxon %0" : : "m"(region) : "cc"));
    EXPECT_UD(asm volatile("vmxoff" : : : "cc"));
    EXPECT_UD(asm volatile("vmclear %0" : : "m"(region) : "cc"));
    EXPECT_UD(asm volatile("vmptrld %0" : : "m"(region) : "cc"));
    EXPECT_UD(asm volatile("vmptrst %0" : "=m"(region) : : "cc"));
    EXPECT_UD(asm volatile("vmread %0, %0" : "+r"(region) : : "cc"));
    EXPECT_UD(asm volatile("vmwrite %0, %0" : "+r"(region) : : "cc"));
    EXPECT_UD(asm volatile("vmlaunch" : : : "cc", "memory"));
    EXPECT_UD(asm volatile("vmresume" : : : "cc", "memory"));
    EXPECT_UD(asm volatile("invept %0, %1" : : "m"(descriptor), "r"(2L) : "cc", "memory"));
    EXPECT_UD(asm volatile("invvpid %0, %1" : : "m"(descriptor), "r"(2L) : "cc", "memory"));
    EXPECT_UD(asm volatile("vmfunc" : : "a"(0), "c"(0)));
}

TEST(Refused, WhatTheCpuIsNotToldToAllow) {
    alignas(64) static char area[4096];
    EXPECT_UD(asm volatile("xsaves %0" : "+m"(area) : "a"(0), "d"(0)));
    EXPECT_UD(asm volatile(".byte 0xf2, 0x0f, 0xae, 0xf0 # umwait %%eax"
                           :
                           : "a"(0), "d"(0)
                           : "cc"));
    EXPECT_UD(asm volatile(".byte 0x66, 0x0f, 0xae, 0xf0 # tpause %%eax"
                           :
                           : "a"(0), "d"(0)
                           : "cc"));
    EXPECT_UD(asm volatile(".byte 0x0f, 0x01, 0xcf # encls" : : "a"(0)));
}

TEST(Refused, Getsec) {
    const Trap trap = trap_of([] { asm volatile("getsec" : : "a"(0) : "memory"); });
    EXPECT_EQ(trap.vector, kUd);
}

TEST(Emulated, DebugRegisters) {
    uint64_t dr[4] = {}, dr6 = 0, dr7 = 0;
    const End end = guest::enter([&] {
        asm volatile("mov %0, %%db0\n mov %1, %%db3" : : "r"(0x1111L), "r"(0x3333L));
        asm volatile("mov %%db0, %0\n mov %%db3, %1" : "=r"(dr[0]), "=r"(dr[3]));
        asm volatile("mov %%db6, %0\n mov %%db7, %1" : "=r"(dr6), "=r"(dr7));
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(dr[0], 0x1111U);
    EXPECT_EQ(dr[3], 0x3333U);
    EXPECT_EQ(dr6, 0xffff0ff0U);
    EXPECT_EQ(dr7, 0x400U);
    EXPECT_GP(asm volatile("mov %0, %%db7" : : "r"(0x403L)));
    EXPECT_GP(asm volatile("mov %0, %%db7" : : "r"(1L << 32)));
}

// --- pages the guest's own tables refuse ---

TEST(Native, PageFaultsAreTheGuestsOwn) {
    Trap trap;
    EXPECT_EQ(exits_of([&] {
                  trap = probe([] { *reinterpret_cast<volatile char*>(0x7654321000) = 1; });
              }),
              kNone)
        << "not one exit for a fault";
    EXPECT_EQ(trap.vector, kPf);
    EXPECT_EQ(trap.cr2, 0x7654321000U);
    EXPECT_EQ(trap.error, 2U);
}

TEST(Native, EveryExceptionOfTheGuestsOwn) {
    EXPECT_EQ(trap_of([] { asm volatile("ud2"); }).vector, kUd);
    EXPECT_EQ(trap_of([] { asm volatile("int3"); }).vector, 3);
    EXPECT_EQ(trap_of([] {
                  asm volatile("xor %%edx, %%edx\n div %%edx" : : : "eax", "edx");
              }).vector,
              0);
    EXPECT_EQ(trap_of([] { asm volatile("mov %w0, %%es" : : "r"(0x1ff8)); }).vector, kGp);
    EXPECT_EQ(exits_of([] { probe([] { asm volatile("int3"); }); }), kNone);
    EXPECT_EQ(exits_of([] { probe([] { asm volatile("ud2"); }); }), kNone);
}

}  // namespace
