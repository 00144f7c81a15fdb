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
#include <set>
#include <string>

#include "cpu.h"
#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using namespace cpu;
using support::host_has;

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

extern "C" const char ring3_back[], ring3_hlt[], ring3_cli[], ring3_cr[], ring3_write_dr0[],
    ring3_read_dr0[];
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
ring3_write_dr0:
    mov %rdi, %db0
    int $0x81
ring3_read_dr0:
    mov %db0, %rax
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

// --- random numbers ---

// Whether a number was given within 100 tries (SDM volume 1, 7.3.17). In the guest.
template <bool kSeed, typename T>
bool draw(T& value) {
    for (int i = 0; i < 100; i++) {
        bool given;
        if constexpr (kSeed) {
            asm volatile("rdseed %0" : "=r"(value), "=@ccc"(given));
        } else {
            asm volatile("rdrand %0" : "=r"(value), "=@ccc"(given));
        }
        if (given) {
            return true;
        }
    }
    return false;
}

template <bool kSeed>
void draw_numbers(const char* flag) {
    uint64_t wide[4] = {};
    uint32_t half = 0;
    uint16_t quarter = 0;
    if (!host_has(flag)) {
        EXPECT_UD(draw<kSeed>(wide[0]));
        GTEST_SKIP() << "no " << flag;
    }
    bool given = true;
    EXPECT_EQ(exits_of([&] {
                  for (uint64_t& value : wide) {
                      given = draw<kSeed>(value) && given;
                  }
                  given = draw<kSeed>(half) && given;
                  given = draw<kSeed>(quarter) && given;
              }),
              kNone);
    EXPECT_TRUE(given);
    EXPECT_EQ(std::set<uint64_t>(wide, wide + 4).size(), 4U) << "the same number twice";
}

TEST(Native, Rdrand) {
    draw_numbers<false>("rdrand");
}

TEST(Native, Rdseed) {
    draw_numbers<true>("rdseed");
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
    // Of CPUs that the emulator does not know: there each has an exit of its own.
    EXPECT_UD(asm volatile(".byte 0x66, 0x0f, 0x01, 0xcf # seamcall" : : "a"(0)));
    EXPECT_UD(asm volatile(".byte 0x66, 0x0f, 0x01, 0xcc # tdcall" : : "a"(0)));
    EXPECT_UD(asm volatile(
        ".byte 0xc4, 0xe7, 0x7b, 0xf6, 0xc0, 0x80, 0, 0, 0xc0 # rdmsr $0xc0000080, %%rax"
        :
        :
        : "rax"));
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

// The exit takes priority over the #GP of ring 3 (SDM 26.1.3), so the module has to look.
TEST(Refused, DebugRegistersInRing3) {
    uint64_t dr0 = 0;
    Trap write, read;
    const End end = guest::enter(
        [&] {
            asm volatile("mov %0, %%db0" : : "r"(0x1111L));
            write = guest::ring3(ring3_write_dr0, 0x2222);
            read = guest::ring3(ring3_read_dr0);
            asm volatile("mov %%db0, %0" : "=r"(dr0));
        },
        guest::kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(write.vector, kGp);
    EXPECT_EQ(read.vector, kGp);
    EXPECT_EQ(dr0, 0x1111U);
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
