// SPDX-License-Identifier: MIT
//
// Far jumps, calls, returns and call gates in the guest: the CPU's own affair, without an exit,
// also when it refuses them. A row of the table in docs/kernel.md.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdint>

#include "cpu.h"
#include "guest.h"
#include "traps.h"

namespace {

using namespace cpu;

constexpr int kNp = 11;

// What m16:64 points to (SDM volume 2, JMP: with REX.W).
struct __attribute__((packed)) FarPointer {
    uint64_t offset;
    uint16_t selector;
};

constexpr uint16_t kGateSelector = 0x40;   // the TSS' place: TR keeps what it has
constexpr uint16_t kSpareSelector = 0x38;  // nothing else uses it
constexpr uint16_t kBehindGdt = 0x1f8;
constexpr uint16_t kUserCode32 = 0x23;

extern "C" const char far_target[], far_landing[], ring3_far_call[], ring3_far_return[];
asm(R"(
far_target:
    mov %cs, %r9d
    lretq
far_landing:
    mov %cs, %r9d
    jmp *%r8
ring3_far_call:
    rex.w lcall *(%rdi)
    mov %cs, %eax
ring3_far_return:
    int $0x81
)");

// Each says which selector CS had at the other end, and steps over the red zone. In the guest.
uint32_t far_call(const FarPointer& to) {
    uint64_t cs;
    asm volatile("sub $128, %%rsp\n rex.w lcall *(%1)\n mov %%r9, %0\n add $128, %%rsp"
                 : "=r"(cs)
                 : "r"(&to)
                 : "r8", "r9", "memory", "cc");
    return static_cast<uint32_t>(cs);
}

uint32_t far_jump(const FarPointer& to) {
    uint64_t cs;
    asm volatile("lea 1f(%%rip), %%r8\n rex.w ljmp *(%1)\n 1: mov %%r9, %0"
                 : "=r"(cs)
                 : "r"(&to)
                 : "r8", "r9", "memory");
    return static_cast<uint32_t>(cs);
}

uint32_t far_return(const FarPointer& to) {
    uint64_t cs;
    asm volatile(
        "sub $128, %%rsp\n lea 1f(%%rip), %%r8\n push %1\n push %2\n lretq\n"
        "1: mov %%r9, %0\n add $128, %%rsp"
        : "=r"(cs)
        : "r"(static_cast<uint64_t>(to.selector)), "r"(to.offset)
        : "r8", "r9", "memory", "cc");
    return static_cast<uint32_t>(cs);
}

// A 64-bit call gate to far_target's ring-0 code (SDM 6.8.3.1), instead of the TSS' descriptor,
// for as long as it lives. In the guest.
class CallGate {
  public:
    CallGate(uint16_t selector, unsigned dpl, bool present = true)
        : cpu_(guest::this_cpu()), saved_{cpu_.gdt[8], cpu_.gdt[9]} {
        const auto target = reinterpret_cast<uint64_t>(far_target);
        cpu_.gdt[8] = (target & 0xffff) | static_cast<uint64_t>(selector) << 16 | 0xcULL << 40 |
                      static_cast<uint64_t>(dpl) << 45 | static_cast<uint64_t>(present) << 47 |
                      (target >> 16 & 0xffff) << 48;
        cpu_.gdt[9] = target >> 32;
    }
    ~CallGate() {
        cpu_.gdt[8] = saved_[0];
        cpu_.gdt[9] = saved_[1];
    }
    CallGate(const CallGate&) = delete;
    CallGate& operator=(const CallGate&) = delete;

  private:
    guest::Cpu& cpu_;
    uint64_t saved_[2];
};

const auto kTargetOffset = reinterpret_cast<uint64_t>(far_target);
const auto kLandingOffset = reinterpret_cast<uint64_t>(far_landing);

TEST(Native, FarJumpsCallsAndReturns) {
    uint32_t jumped = 0, called = 0, returned = 0, other = 0;
    EXPECT_EQ(exits_of([&] {
                  jumped = far_jump({kLandingOffset, guest::kCodeSelector});
                  called = far_call({kTargetOffset, guest::kCodeSelector});
                  returned = far_return({kLandingOffset, guest::kCodeSelector});
                  // A code segment of the guest's own making.
                  uint64_t& spare = guest::this_cpu().gdt[kSpareSelector / 8];
                  spare = guest::this_cpu().gdt[guest::kCodeSelector / 8];
                  other = far_jump({kLandingOffset, kSpareSelector});
                  far_jump({kLandingOffset, guest::kCodeSelector});
                  spare = 0;
              }),
              kNone);
    EXPECT_EQ(jumped, guest::kCodeSelector);
    EXPECT_EQ(called, guest::kCodeSelector);
    EXPECT_EQ(returned, guest::kCodeSelector);
    EXPECT_EQ(other, kSpareSelector);
}

TEST(Native, FarReturnToRing3) {
    Trap trap;
    EXPECT_EQ(exits_of([&] {
                  trap = probe([] {
                      asm volatile(
                          "mov %%rsp, %%rax\n push %0\n push %%rax\n push %1\n push %2\n lretq"
                          :
                          : "r"(static_cast<uint64_t>(guest::kUserData)),
                            "r"(static_cast<uint64_t>(guest::kUserCode)), "r"(ring3_far_return)
                          : "rax", "memory");
                  });
              }),
              kNone);
    EXPECT_EQ(trap.vector, guest::kBackVector);
    EXPECT_EQ(trap.frame.cs, guest::kUserCode);
    EXPECT_EQ(trap.frame.ss, guest::kUserData);
}

TEST(Native, CodeOf32BitsWrapsInAnExit) {
    // CPUID, the last instruction of 4 GiB: what comes next is at 0.
    auto* const page = static_cast<uint8_t*>(mmap(reinterpret_cast<void*>(0xfffff000), 4096,
                                                  PROT_READ | PROT_WRITE | PROT_EXEC,
                                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    ASSERT_NE(page, MAP_FAILED);
    page[0xffe] = 0x0f;
    page[0xfff] = 0xa2;
    guest::Machine::get().show(page, 4096);
    Trap trap;
    const guest::End end = guest::enter(
        [&] {
            trap = probe([] {
                asm volatile("mov %%rsp, %%rax\n push %0\n push %%rax\n push %1\n push %2\n lretq"
                             :
                             : "r"(static_cast<uint64_t>(guest::kUserData)),
                               "r"(static_cast<uint64_t>(kUserCode32)), "r"(0xfffffffeUL)
                             : "rax", "rbx", "rcx", "rdx", "memory");
            });
        },
        guest::kWithTraps);
    EXPECT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 14);
    EXPECT_EQ(trap.cr2, 0U);
    EXPECT_EQ(trap.frame.rip, 0U);
    EXPECT_EQ(trap.frame.cs, kUserCode32);
    munmap(page, 4096);
}

TEST(Native, CallGates) {
    uint32_t called = 0;
    Trap trap;
    FarPointer gate = {0, kGateSelector};
    EXPECT_EQ(exits_of([&] {
                  const CallGate ring3_may(guest::kCodeSelector, 3);
                  called = far_call(gate);
                  trap = guest::ring3(ring3_far_call, reinterpret_cast<uint64_t>(&gate));
              }),
              kNone);
    EXPECT_EQ(called, guest::kCodeSelector);
    EXPECT_EQ(trap.vector, guest::kBackVector) << "there and back";
    EXPECT_EQ(trap.frame.r9, guest::kCodeSelector) << "it was in ring 0";
    EXPECT_EQ(trap.frame.rax, guest::kUserCode);
}

// The vector and selector of a far transfer that the CPU refuses, which is the guest's own affair.
template <typename F>
void expect_refused(F&& code, int vector, uint64_t error, const char* what) {
    Trap trap;
    EXPECT_EQ(exits_of([&] { trap = probe(code); }), kNone) << what;
    EXPECT_EQ(trap.vector, vector) << what;
    EXPECT_EQ(trap.error, error) << what;
}

TEST(Native, FarTransfersToWhatIsNoCode) {
    const struct {
        uint16_t selector;
        int vector;
        const char* what;
    } kBad[] = {
        {0, kGp, "null"},
        {3, kGp, "null with an RPL"},
        {guest::kDataSelector, kGp, "data"},
        {guest::kUserCode & ~3, kGp, "code of ring 3"},
        {kBehindGdt, kGp, "beyond the GDT"},
        {kSpareSelector, kNp, "not present"},
        {0xc, kGp, "in an LDT that is not there"},
    };
    for (const auto& bad : kBad) {
        const uint64_t error = bad.selector & ~3U;
        const auto with_spare = [&](auto&& code) {
            return [&bad, code] {
                uint64_t* gdt = guest::this_cpu().gdt;
                gdt[kSpareSelector / 8] = gdt[guest::kCodeSelector / 8] & ~(1ULL << 47);
                code(FarPointer{kLandingOffset, bad.selector});
            };
        };
        expect_refused(with_spare([](FarPointer to) { far_jump(to); }), bad.vector, error,
                       bad.what);
        expect_refused(with_spare([](FarPointer to) { far_call(to); }), bad.vector, error,
                       bad.what);
        expect_refused(with_spare([](FarPointer to) { far_return(to); }), bad.vector, error,
                       bad.what);
    }
}

TEST(Native, CallGatesThatAreRefused) {
    const FarPointer gate = {0, kGateSelector};
    Trap null, absent, data, not_theirs, returned;
    EXPECT_EQ(exits_of([&] {
                  {
                      const CallGate to_null(0, 3);
                      null = probe([&] { far_call(gate); });
                  }
                  {
                      const CallGate to_data(guest::kDataSelector, 3);
                      data = probe([&] { far_call(gate); });
                  }
                  {
                      const CallGate not_present(guest::kCodeSelector, 3, false);
                      absent = probe([&] { far_call(gate); });
                  }
                  {
                      const CallGate of_ring0(guest::kCodeSelector, 0);
                      not_theirs = guest::ring3(ring3_far_call, reinterpret_cast<uint64_t>(&gate));
                      // RETF goes through no gate.
                      returned = probe([&] { far_return(gate); });
                  }
              }),
              kNone);
    EXPECT_EQ(null.vector, kGp);
    EXPECT_EQ(null.error, 0U);
    EXPECT_EQ(data.vector, kGp);
    EXPECT_EQ(data.error, guest::kDataSelector);
    EXPECT_EQ(absent.vector, kNp);
    EXPECT_EQ(absent.error, kGateSelector);
    EXPECT_EQ(not_theirs.vector, kGp);
    EXPECT_EQ(not_theirs.error, kGateSelector);
    EXPECT_EQ(returned.vector, kGp);
    EXPECT_EQ(returned.error, kGateSelector);
}

}  // namespace
