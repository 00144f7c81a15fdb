// SPDX-License-Identifier: MIT
//
// Events whose delivery needs memory that is not there, or that another thread is taking.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "events.h"
#include "guest.h"
#include "traps.h"

namespace {

using events::count_it;
using events::cpu_seconds;
using events::interrupt;
using events::spin;
using guest::Cpu;
using guest::End;
using guest::kWithTraps;
using guest::probe;
using guest::this_cpu;
using guest::Trap;
using guest::TrapFrame;
using guest::Vcpu;

volatile uint64_t taken;  // interrupts

// The handler that counts them.
bool take(TrapFrame&, Cpu&) {
    taken = taken + 1;
    return true;
}

// Sends one, and waits until the guest has taken it. Host mode.
void interrupt_and_wait(const Vcpu& vcpu, uint32_t vector) {
    const uint64_t before = taken;
    interrupt(vcpu, vector);
    while (taken == before) {
        usleep(100);
    }
}

// Has the stack that interrupts are delivered to absent. In the guest.
void drop_trap_stack() {
    const uint64_t ist = (reinterpret_cast<uint64_t>(this_cpu().stacks) + 0x3fff) & ~0x3fffULL;
    guest::call(SYS_madvise, static_cast<long>(ist + 0x3000), 0x1000, MADV_DONTNEED);
}

TEST(Delivery, FaultsOnItsStackAreInvisible) {
    Vcpu& vcpu = Vcpu::get();
    long wrong = 0;
    const End end = guest::enter(
        [&] {
            Cpu& cpu = this_cpu();
            cpu.handler = count_it;
            const auto stacks = reinterpret_cast<uint64_t>(cpu.stacks);
            const uint64_t ist = (stacks + 0x3fff) & ~0x3fffULL;
            const auto drop_stack = [&] {
                // The page that the frame goes to.
                if (guest::call(SYS_madvise, static_cast<long>(ist + 0x3000), 0x1000,
                                MADV_DONTNEED) != 0) {
                    wrong++;
                }
            };
            for (uint64_t i = 0; i < 50; i++) {
                drop_stack();
                asm volatile("int $0x90" : : : "memory");
                wrong += cpu.seen[0] != 0x90;
                drop_stack();
                asm volatile("int3" : : : "memory");
                wrong += cpu.seen[0] != 3;
                drop_stack();
                const Trap trap = [&] {
                    cpu.handler = nullptr;
                    return probe([] { asm volatile("mov %w0, %%es" : : "r"(0x1ff8)); });
                }();
                cpu.handler = count_it;
                wrong += trap.vector != 13 || trap.error != 0x1ff8;
            }
            wrong += cpu.count != 100;
        },
        kWithTraps);
    ASSERT_TRUE(end.left() && end.argument == 0) << end;
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(vcpu.page().fault_signal, 0U);
}

TEST(Delivery, InterruptsOnADroppedStack) {
    Vcpu& vcpu = Vcpu::get();
    taken = 0;
    std::atomic<bool> stop = false;
    std::thread sender([&] {
        for (uint32_t i = 0; i < 50; i++) {
            interrupt_and_wait(vcpu, 100 + i);
        }
        stop = true;
    });
    const End end = guest::enter(
        [&] {
            this_cpu().handler = take;
            while (!stop) {
                asm volatile("cli");
                drop_trap_stack();
                asm volatile("sti\n nop\n nop");
                spin(200);
            }
            asm volatile("cli");
        },
        kWithTraps);
    sender.join();
    EXPECT_TRUE(end.left() && end.argument == 0) << end;
    EXPECT_EQ(taken, 50U);
}

TEST(Delivery, WhileAnotherThreadUnmaps) {
    // The mirror takes nothing in while Linux takes something away, and who does that may have lost
    // the CPU in the middle. A delivery that waits for it must let the CPU go: nothing interrupts
    // one that is tried again and again.
    constexpr size_t kSize = 32 << 20;
    char* memory = guest::map(kSize);
    madvise(memory, kSize, MADV_NOHUGEPAGE);  // so that it takes its time
    std::memset(memory, 1, kSize);
    Vcpu& vcpu = Vcpu::get();
    taken = 0;
    std::atomic<bool> stop = false;
    std::thread unmapper([&] {
        while (!stop) {
            madvise(memory, kSize, MADV_FREE);
        }
    });
    std::thread sender([&] {
        for (uint32_t i = 0; i < 100; i++) {
            usleep(1'000 + i * 97);
            interrupt_and_wait(vcpu, 100 + i);
        }
        stop = true;
    });
    const End end = guest::enter(
        [&] {
            this_cpu().handler = take;
            while (taken < 100) {
                drop_trap_stack();
                asm volatile("sti\n hlt\n cli" : : : "memory");
            }
        },
        kWithTraps);
    sender.join();
    unmapper.join();
    EXPECT_TRUE(end.left() && end.argument == 0) << end;
    EXPECT_EQ(taken, 100U);
}

TEST(Delivery, OfPagesThatAnotherThreadIsTaking) {
    // The same, of the very pages that are touched: the guest waits until they may be had.
    constexpr size_t kSize = 32 << 20;
    char* memory = guest::map(kSize);
    madvise(memory, kSize, MADV_NOHUGEPAGE);
    std::memset(memory, 1, kSize);
    std::atomic<bool> stop = false;
    std::thread unmapper([&] {
        while (!stop) {
            madvise(memory, kSize, MADV_FREE);
        }
    });
    uint64_t wrong = 0;
    const double cpu = cpu_seconds();
    const End end = guest::enter([&] {
        for (size_t i = 0; i < 100; i++) {
            char* page = memory + i * 37 * 4096;
            wrong += guest::call(SYS_madvise, reinterpret_cast<long>(page), 4096, MADV_DONTNEED);
            *page = 2;
            wrong += *page != 2;
        }
    });
    const double used = cpu_seconds() - cpu;
    stop = true;
    unmapper.join();
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(wrong, 0U);
    if (sysconf(_SC_NPROCESSORS_ONLN) == 1) {
        EXPECT_LT(used, 0.2) << "it burnt the CPU";
    }
}

TEST(Delivery, AStackThatLinuxRefusesIsADeath) {
    const End end = guest::enter(
        [] {
            char* stacks = this_cpu().stacks;
            guest::call(SYS_mprotect, reinterpret_cast<long>(stacks), 0x10000, PROT_NONE);
            asm volatile("ud2");
        },
        kWithTraps);
    EXPECT_TRUE(end.died()) << end;
    EXPECT_NE(end.text.find("triple fault"), std::string::npos) << end.text;
    mprotect(Vcpu::get().cpu()->stacks, 0x10000, PROT_READ | PROT_WRITE);
}

TEST(Delivery, DoubleFault) {
    Trap trap;
    const End end = guest::enter(
        [&] {
            // A copy of the IDT without #GP and #NP.
            struct __attribute__((packed)) {
                uint16_t limit;
                uint64_t base;
            } idt;
            asm volatile("sidt %0" : "=m"(idt));
            auto* gate = reinterpret_cast<volatile uint64_t*>(idt.base);
            const uint64_t gp = gate[26], np = gate[22];
            gate[26] = 0;
            gate[22] = 0;
            trap = probe([] { asm volatile("outb %%al, $0x80" : : "a"(0)); });
            gate[26] = gp;
            gate[22] = np;
        },
        kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 8);
    EXPECT_EQ(trap.error, 0U);
}

}  // namespace
