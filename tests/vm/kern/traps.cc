// SPDX-License-Identifier: MIT
//
// Built with -mgeneral-regs-only: guest_trap() runs on top of code that uses the FPU.

#include "traps.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>

#include "guest.h"

extern "C" {
extern const char guest_vectors[];
extern const char guest_probe_end[];
extern const char guest_start_with_traps[];
void guest_probe(void (*fn)(void*), void* argument, guest::Cpu* cpu);
void guest_to_ring3(const void* code, uint64_t argument, char* rsp, uint64_t rflags);
}

namespace guest {

static_assert(offsetof(Cpu, probe_rsp) == 0 && offsetof(Cpu, probing) == 8, "traps.S");

namespace {

constexpr size_t kIstSize = 0x4000;
constexpr size_t kStacksSize = 4 * kIstSize;  // alignment, IST, ring 3
constexpr int kGateInterrupt = 0x8e;
constexpr int kGateRing3 = 0xee;

struct Gate {
    uint64_t low, high;
};
alignas(16) Gate idt[256];

struct __attribute__((packed)) Descriptor {
    uint16_t limit;
    uint64_t base;
};
struct __attribute__((packed)) Descriptors {
    Descriptor gdt, idt;
};
thread_local Descriptors descriptors;

void fill_idt() {
    for (int v = 0; v < 256; v++) {
        const auto a = reinterpret_cast<uint64_t>(guest_vectors) + 16 * static_cast<uint64_t>(v);
        const uint64_t type = v == kBackVector || v == 3 || v == 4 ? kGateRing3 : kGateInterrupt;
        idt[v].low = (a & 0xffff) | static_cast<uint64_t>(kCodeSelector) << 16 | 1ULL << 32 |
                     type << 40 | (a >> 16 & 0xffff) << 48;
        idt[v].high = a >> 32;
    }
}

}  // namespace

Cpu* make_cpu() {
    char* stacks = map(kStacksSize);
    auto* cpu = reinterpret_cast<Cpu*>(map(sizeof(Cpu)));
    cpu->stacks = stacks;
    char* ist = reinterpret_cast<char*>((reinterpret_cast<uint64_t>(stacks) + kIstSize - 1) &
                                        ~(kIstSize - 1));
    *reinterpret_cast<Cpu**>(ist) = cpu;
    const auto top = reinterpret_cast<uint64_t>(ist) + kIstSize;
    cpu->tss[1] = static_cast<uint32_t>(top);  // RSP0
    cpu->tss[2] = static_cast<uint32_t>(top >> 32);
    cpu->tss[9] = static_cast<uint32_t>(top);  // IST1
    cpu->tss[10] = static_cast<uint32_t>(top >> 32);
    cpu->tss[25] = sizeof(cpu->tss) << 16;  // no I/O bitmap

    cpu->gdt[2] = 0x00af9b000000ffff;  // ring 0 code
    cpu->gdt[3] = 0x00cf93000000ffff;  // data
    cpu->gdt[4] = 0x00cffb000000ffff;  // ring 3 32-bit code
    cpu->gdt[5] = 0x00cff3000000ffff;  // ring 3 data
    cpu->gdt[6] = 0x00affb000000ffff;  // ring 3 code
    const auto tss = reinterpret_cast<uint64_t>(cpu->tss);
    cpu->gdt[8] =
        (sizeof(cpu->tss) - 1) | (tss & 0xffffff) << 16 | 0x89ULL << 40 | (tss >> 24 & 0xff) << 56;
    cpu->gdt[9] = tss >> 32;
    return cpu;
}

void free_cpu(Cpu* cpu) {
    munmap(cpu->stacks, kStacksSize);
    munmap(cpu, sizeof(Cpu));
}

void start_with_traps(dune_vcpu_page& page, Cpu* cpu) {
    fill_idt();
    descriptors.gdt = {sizeof(cpu->gdt) - 1, reinterpret_cast<uint64_t>(cpu->gdt)};
    descriptors.idt = {sizeof(idt) - 1, reinterpret_cast<uint64_t>(idt)};
    cpu->gdt[8] &= ~(2ULL << 40);  // not busy
    cpu->handler = nullptr;
    cpu->probing = 0;
    cpu->count = 0;
    page.rip = reinterpret_cast<uint64_t>(guest_start_with_traps);
    page.regs.rdx = reinterpret_cast<uint64_t>(cpu);
    page.regs.rcx = reinterpret_cast<uint64_t>(&descriptors);
}

// By TR and not by FS, which tests change.
Cpu& this_cpu() {
    Descriptor gdt;
    asm volatile("sgdt %0" : "=m"(gdt));
    return *reinterpret_cast<Cpu*>(gdt.base - offsetof(Cpu, gdt));
}

Trap probe(void (*fn)(void*), void* argument) {
    Cpu& cpu = this_cpu();
    cpu.trap.vector = kNoTrap;
    guest_probe(fn, argument, &cpu);
    return cpu.trap;
}

Trap ring3(const void* code, uint64_t argument, uint64_t rflags) {
    struct Way {
        const void* code;
        uint64_t argument, rflags;
    } way = {code, argument, rflags};
    return probe([&way] {
        char* stack = this_cpu().stacks + kStacksSize - 64;
        guest_to_ring3(way.code, way.argument, stack, way.rflags);
    });
}

extern "C" void guest_trap(TrapFrame* frame, Cpu* cpu) {
    uint64_t cr2;
    asm volatile("mov %%cr2, %0" : "=r"(cr2));
    cpu->trap.cr2 = cr2;
    if (cpu->handler && cpu->handler(*frame, *cpu)) {
        return;
    }
    if (!cpu->probing) {
        leave(0xdead0000 | frame->vector);
    }
    cpu->trap.vector = static_cast<int>(frame->vector);
    cpu->trap.error = frame->error;
    cpu->trap.frame = *frame;
    frame->rip = reinterpret_cast<uint64_t>(guest_probe_end);
    frame->cs = kCodeSelector;
    frame->ss = kDataSelector;
    frame->rsp = cpu->probe_rsp;
    frame->rflags = 2;
}

}  // namespace guest
