// SPDX-License-Identifier: MIT
//
// Events in the guest: interrupts, HLT, single steps, storms. Deliveries that need memory that is
// not there are in kern_delivery_test.cc.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "events.h"
#include "guest.h"
#include "support.h"
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
using support::now;

// --- interrupts ---

TEST(Interrupt, PendingBeforeEntry) {
    interrupt(Vcpu::get(), 77);
    uint64_t count = 0, vector = 0;
    const End end = guest::enter(
        [&] {
            this_cpu().handler = count_it;
            asm volatile("sti\n nop\n nop\n cli");
            count = this_cpu().count;
            vector = this_cpu().seen[0];
        },
        kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(count, 1U);
    EXPECT_EQ(vector, 77U);
}

TEST(Interrupt, NotWithInterruptsOff) {
    interrupt(Vcpu::get(), 78);
    uint64_t off = 99, on = 99;
    guest::enter(
        [&] {
            this_cpu().handler = count_it;
            guest::call(SYS_getpid);
            spin(1000);
            off = this_cpu().count;
            asm volatile("sti\n nop\n nop\n cli");
            on = this_cpu().count;
        },
        kWithTraps);
    EXPECT_EQ(off, 0U);
    EXPECT_EQ(on, 1U);
}

TEST(Interrupt, NotInTheShadowOfSti) {
    interrupt(Vcpu::get(), 79);
    uint64_t count = 99;
    guest::enter(
        [&] {
            this_cpu().handler = count_it;
            asm volatile("sti\n cli");
            count = this_cpu().count;
            asm volatile("sti\n nop\n nop\n cli");
        },
        kWithTraps);
    EXPECT_EQ(count, 0U);
}

uint8_t order[256];

bool note_order(TrapFrame& frame, Cpu& cpu) {
    const uint64_t n = cpu.count;
    cpu.count = n + 1;
    order[n & 255] = static_cast<uint8_t>(frame.vector);
    return true;
}

TEST(Interrupt, AllVectorsHighestFirst) {
    for (uint32_t vector = 32; vector < 256; vector++) {
        interrupt(Vcpu::get(), vector);
    }
    uint64_t count = 0;
    const End end = guest::enter(
        [&] {
            this_cpu().handler = note_order;
            asm volatile("sti\n nop\n nop");
            for (int i = 0; i < 1000 && this_cpu().count < 224; i++) {
                spin(100);
            }
            asm volatile("cli");
            count = this_cpu().count;
        },
        kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    ASSERT_EQ(count, 224U);
    for (int i = 0; i < 224; i++) {
        EXPECT_EQ(order[i], 255 - i);
    }
}

TEST(Interrupt, SetInThePage) {
    dune_vcpu_page& page = Vcpu::get().page();
    page.pending[1] |= 1ULL << 36;  // vector 100
    page.pending_any = 1;
    uint64_t vector = 0;
    guest::enter(
        [&] {
            this_cpu().handler = count_it;
            asm volatile("sti\n nop\n nop\n cli");
            vector = this_cpu().seen[0];
        },
        kWithTraps);
    EXPECT_EQ(vector, 100U);
}

TEST(Interrupt, ExceptionVectorsAreIgnored) {
    dune_vcpu_page& page = Vcpu::get().page();
    page.pending[0] = 0xffffffff;
    page.pending_any = 1;
    uint64_t count = 99;
    const End end = guest::enter(
        [&] {
            this_cpu().handler = count_it;
            asm volatile("sti\n nop\n nop\n nop\n cli");
            count = this_cpu().count;
        },
        kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(count, 0U);
    page.pending[0] = 0;
}

TEST(Interrupt, GetsARunningGuestOut) {
    for (const bool ring3 : {false, true}) {
        static const unsigned char kSpin[] = {0xeb, 0xfe};
        char* code = guest::map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
        std::memcpy(code, kSpin, 2);
        Vcpu& vcpu = Vcpu::get();
        std::thread sender([&] {
            usleep(30'000);
            interrupt(vcpu, 50);
        });
        Trap trap;
        const End end = guest::enter(
            [&] {
                if (ring3) {
                    trap = guest::ring3(code, 0, 0x202);
                } else {
                    trap = probe([] {
                        asm volatile("sti");
                        for (;;) {
                            asm volatile("");
                        }
                    });
                }
            },
            kWithTraps);
        sender.join();
        EXPECT_TRUE(end.left()) << end;
        EXPECT_EQ(trap.vector, 50);
    }
}

TEST(Interrupt, ManyFromAnotherThread) {
    Vcpu& vcpu = Vcpu::get();
    std::atomic<bool> stop = false;
    static volatile uint64_t taken;
    taken = 0;
    std::atomic<uint64_t> sent = 0;
    std::thread sender([&] {
        for (int i = 0; i < 200; i++) {
            const uint64_t before = taken;
            interrupt(vcpu, 60 + i % 100);
            sent++;
            while (taken == before) {
                usleep(100);
            }
        }
        stop = true;
    });
    const End end = guest::enter(
        [&] {
            this_cpu().handler = [](TrapFrame&, Cpu&) {
                taken = taken + 1;
                return true;
            };
            asm volatile("sti");
            while (!stop) {
                guest::call(SYS_sched_yield);
            }
            asm volatile("cli");
        },
        kWithTraps);
    sender.join();
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(taken, sent);
}

// --- sleeping ---

template <typename F>
void expect_sleeps(F&& sleep) {
    Vcpu& vcpu = Vcpu::get();
    std::thread sender([&] {
        usleep(150'000);
        interrupt(vcpu, 90);
    });
    uint64_t count = 0;
    guest::enter([] {}, kWithTraps);
    const double cpu = cpu_seconds(), start = now();
    const End end = guest::enter(
        [&] {
            this_cpu().handler = count_it;
            asm volatile("cli");
            while (this_cpu().count == 0) {
                sleep();
            }
            count = this_cpu().count;
        },
        kWithTraps);
    EXPECT_GE(now() - start, 0.1);
    EXPECT_LT(cpu_seconds() - cpu, 0.06) << "it burnt the CPU";
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(count, 1U);
    sender.join();
}

TEST(Sleep, HltWithoutBurningTheCpu) {
    expect_sleeps([] { asm volatile("sti\n hlt\n cli" : : : "memory"); });
}

TEST(Sleep, Mwait) {
    expect_sleeps([] {
        uint64_t line = 0;
        asm volatile("sti\n monitor" : : "a"(&line), "c"(0), "d"(0) : "memory");
        asm volatile("mwait\n nop\n cli" : : "a"(0), "c"(0) : "memory");
    });
}

TEST(Sleep, ASignalEndsHlt) {
    static volatile int got;
    got = 0;
    signal(SIGALRM, [](int) { got = got + 1; });
    itimerval timer = {};
    timer.it_value.tv_usec = 100'000;
    setitimer(ITIMER_REAL, &timer, nullptr);
    const double cpu = cpu_seconds();
    const End end = guest::enter([] {
        while (!got) {
            asm volatile("hlt");
        }
    });
    EXPECT_TRUE(end.left()) << end;
    EXPECT_LT(cpu_seconds() - cpu, 0.06);
}

TEST(Sleep, AKillEndsHltWithInterruptsOff) {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        guest::enter([] {
            for (;;) {
                asm volatile("cli\n hlt");
            }
        });
        _exit(1);
    }
    usleep(100'000);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

// --- single steps and INT1 ---

uint64_t steps[32];

bool note_step(TrapFrame& frame, Cpu& cpu) {
    if (frame.vector != 1) {
        return false;
    }
    const uint64_t n = cpu.count;
    cpu.count = n + 1;
    steps[n & 31] = frame.rip;
    return true;
}

extern "C" const char step_1[], step_2[], step_3[], step_4[], step_6[], step_7[], step_8[];
extern "C" void step_code();
asm(R"(
step_code:
    push %rbx
    pushfq
    pushfq
    orl $0x100, (%rsp)
    popfq
    nop
step_1:
    xor %eax, %eax
step_2:
    cpuid
step_3:
    mov $39, %eax
step_4:
    vmcall
    mov %cr8, %rax
step_6:
    rdtsc
step_7:
    popfq
step_8:
    pop %rbx
    ret
)");

TEST(SingleStep, OverNativeAndEmulatedInstructions) {
    uint64_t count = 0;
    const End end = guest::enter(
        [&] {
            this_cpu().handler = note_step;
            step_code();
            count = this_cpu().count;
        },
        kWithTraps);
    ASSERT_TRUE(end.left() && end.argument == 0) << end;
    // Not step_5: a VMCALL is done in one step with the instruction after it, since looking at
    // TF would cost each system call a VMREAD. The POPF that clears TF is stepped over, as TF
    // was set when it began.
    const char* const expected[] = {step_1, step_2, step_3, step_4, step_6, step_7, step_8};
    EXPECT_EQ(count, 7U);
    for (uint64_t i = 0; i < 7; i++) {
        EXPECT_EQ(steps[i], reinterpret_cast<uint64_t>(expected[i])) << i;
    }
}

TEST(SingleStep, IntoTheShadowOfSti) {
    // STI with TF set, then an instruction that exits: VM entry is choosy about that state.
    for (const bool fresh_page : {false, true}) {
        char* page = guest::map(4096);
        const End end = guest::enter(
            [&] {
                this_cpu().handler = note_step;
                if (fresh_page) {
                    asm volatile(
                        "pushfq\n orl $0x100, (%%rsp)\n popfq\n sti\n movb $1, (%0)\n"
                        "cli\n pushfq\n andl $~0x100, (%%rsp)\n popfq"
                        :
                        : "r"(page)
                        : "memory", "cc");
                } else {
                    asm volatile(
                        "pushfq\n orl $0x100, (%%rsp)\n popfq\n sti\n cpuid\n"
                        "cli\n pushfq\n andl $~0x100, (%%rsp)\n popfq"
                        :
                        : "a"(0), "c"(0)
                        : "memory", "cc", "rbx", "rdx");
                }
            },
            kWithTraps);
        EXPECT_TRUE(end.left() && end.argument == 0) << end;
    }
}

TEST(SingleStep, ShadowOfMovSs) {
    char* page = guest::map(4096);
    const End end = guest::enter(
        [&] {
            this_cpu().handler = note_step;
            asm volatile(
                "mov %%ss, %%eax\n pushfq\n orl $0x100, (%%rsp)\n popfq\n mov %%eax, %%ss\n"
                "movb $1, (%0)\n mov %%eax, %%ss\n cpuid\n"
                "pushfq\n andl $~0x100, (%%rsp)\n popfq"
                :
                : "r"(page)
                : "memory", "cc", "rax", "rbx", "rcx", "rdx");
        },
        kWithTraps);
    EXPECT_TRUE(end.left() && end.argument == 0) << end;
}

TEST(SingleStep, Int1) {
    Trap trap;
    static volatile uint64_t after;
    const End end = guest::enter(
        [&] {
            trap = probe([] {
                uint64_t next;
                asm volatile("lea 1f(%%rip), %0\n mov %0, %1\n .byte 0xf1\n 1:"
                             : "=&r"(next), "=m"(after));
            });
        },
        kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 1);
    EXPECT_EQ(trap.frame.rip, after);
}

TEST(Exception, AlignmentCheckInRing3) {
    char* code = guest::map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    const unsigned char kMisaligned[] = {0x8b, 0x47, 0x01};  // mov 1(%rdi), %eax
    std::memcpy(code, kMisaligned, sizeof(kMisaligned));
    Trap trap;
    const End end = guest::enter(
        [&] { trap = guest::ring3(code, reinterpret_cast<uint64_t>(code) + 256, 0x40002); },
        kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 17);
    EXPECT_EQ(trap.error, 0U);
}

// --- storms: the host stays in charge of a guest that does its worst ---

// Runs a guest that never ends in a child, and kills it: seconds until it was gone.
template <typename F>
double seconds_to_kill(F&& guest_code) {
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        guest::enter(guest_code, kWithTraps);
        _exit(1);
    }
    usleep(200'000);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, WNOHANG), 0) << "it ended by itself: " << status;
    const double start = now();
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    return now() - start;
}

TEST(Storm, InterruptsOff) {
    EXPECT_LT(seconds_to_kill([] {
                  asm volatile("cli");
                  for (;;) {
                      asm volatile("");
                  }
              }),
              2);
}

bool come_again(TrapFrame&, Cpu&) {
    return true;
}

TEST(Storm, AFaultForEver) {
    EXPECT_LT(seconds_to_kill([] {
                  this_cpu().handler = come_again;
                  asm volatile("ud2");
              }),
              2);
}

TEST(Storm, AnInjectedFaultForEver) {
    EXPECT_LT(seconds_to_kill([] {
                  this_cpu().handler = come_again;
                  asm volatile("outb %%al, $0x80" : : "a"(0));
              }),
              2);
}

TEST(Storm, AHostFaultForEver) {
    EXPECT_LT(seconds_to_kill([] {
                  this_cpu().handler = come_again;
                  asm volatile("movb $1, (%0)" : : "r"(this_cpu().stacks - (512 << 20)));
                  guest::call(SYS_exit_group, 1);
              }),
              2);
}

TEST(Storm, SingleStepsForEver) {
    EXPECT_LT(seconds_to_kill([] {
                  this_cpu().handler = come_again;
                  asm volatile("pushfq\n orl $0x100, (%%rsp)\n popfq\n 1: jmp 1b" : : : "memory");
              }),
              2);
}

TEST(Storm, AHandlerThatIsItsOwnCause) {
    // The #DB and #AC gates lead straight to an instruction that raises them again.
    EXPECT_LT(
        seconds_to_kill([] {
            struct __attribute__((packed)) {
                uint16_t limit;
                uint64_t base;
            } idt;
            uint64_t target;
            asm volatile("sidt %0" : "=m"(idt));
            asm volatile("lea 1f(%%rip), %0\n jmp 2f\n 1: .byte 0xf1\n jmp 1b\n 2:" : "=r"(target));
            auto* gate = reinterpret_cast<volatile uint64_t*>(idt.base);
            gate[2] = (target & 0xffff) | 0x10ULL << 16 | 1ULL << 32 | 0x8eULL << 40 |
                      (target >> 16 & 0xffff) << 48;
            gate[3] = target >> 32;
            asm volatile(".byte 0xf1");
        }),
        2);
}

}  // namespace
