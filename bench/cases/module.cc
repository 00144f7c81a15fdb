// SPDX-License-Identifier: MIT
// The module without libdune: what an exit costs, what entering costs. The way into the guest is
// that of the module's own tests.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cases.h"
#include "tests/vm/kern/guest.h"

namespace bench {
namespace {

constexpr long kNoSuchCall = 4000;

long stats_by_vmcall(int device, dune_stats* stats) {
    return guest::call(SYS_ioctl, device, DUNE_GET_STATS, reinterpret_cast<long>(stats));
}

/** Take the samples in ring 0 of a bare vCPU. */
template <class Op>
void in_guest(Measure& measure, const guest::Options& options, Op op) {
    measure.count_exits(stats_by_vmcall);
    const guest::End end = guest::enter([&] { measure.sample(op); }, options);
    if (!end.left())
        measure.fail("the guest did not come back: exit %u, error %ld %s", end.exit, end.error,
                     end.text.c_str());
}

constexpr guest::Options kGate = {.fast = true, .gate = true};
constexpr guest::Options kNoGate = {.fast = true, .gate = false};

void linux_unknown(Measure& measure) {
    measure.sample([](unsigned) { raw_syscall(kNoSuchCall); });
}

void vmcall_getpid(Measure& measure) {
    in_guest(measure, kGate, [](unsigned) { guest::call(SYS_getpid); });
}

void vmcall_getpid_no_gate(Measure& measure) {
    in_guest(measure, kNoGate, [](unsigned) { guest::call(SYS_getpid); });
}

void vmcall_unknown(Measure& measure) {
    in_guest(measure, kGate, [](unsigned) { guest::call(kNoSuchCall); });
}

void vmcall_nop(Measure& measure) {
    in_guest(measure, kGate, [](unsigned) { guest::call(DUNE_HC_NOP); });
}

void cpuid(Measure& measure) {
    in_guest(measure, kGate, [](unsigned) {
        unsigned a = 0;
        unsigned c = 0;
        asm volatile("cpuid" : "+a"(a), "+c"(c) : : "rbx", "rdx");
    });
}

/** Make this CPU hold a VMCS of KVM's: run a virtual machine once, up to its HLT. */
void load_kvm_vmcs(Measure& measure) {
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        measure.fail("cannot open /dev/kvm (%s): load kvm_intel before dune", std::strerror(errno));
    const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    const int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    auto* const memory = static_cast<unsigned char*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    auto* const run = static_cast<kvm_run*>(
        mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
    if (vm < 0 || vcpu < 0 || memory == MAP_FAILED || run == MAP_FAILED)
        measure.fail("cannot make a virtual machine: %s", std::strerror(errno));
    memory[0] = 0xf4;  // hlt
    kvm_userspace_memory_region region = {.slot = 0,
                                          .flags = 0,
                                          .guest_phys_addr = 0,
                                          .memory_size = 4096,
                                          .userspace_addr = reinterpret_cast<__u64>(memory)};
    kvm_sregs segments;
    kvm_regs registers = {};
    registers.rflags = 2;
    bool good = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 &&
                ioctl(vcpu, KVM_GET_SREGS, &segments) == 0;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    good = good && ioctl(vcpu, KVM_SET_SREGS, &segments) == 0 &&
           ioctl(vcpu, KVM_SET_REGS, &registers) == 0 && ioctl(vcpu, KVM_RUN, 0) == 0;
    if (!good || run->exit_reason != KVM_EXIT_HLT)
        measure.fail("the virtual machine did not run: %s", std::strerror(errno));
}

void beside_kvm(Measure& measure, long number) {
    load_kvm_vmcs(measure);
    in_guest(measure, kGate, [number](unsigned) { guest::call(number); });
    measure.extra("entries_beside_kvm", static_cast<double>(guest::Machine::get().stats().foreign));
}

void vmcall_unknown_kvm(Measure& measure) {
    beside_kvm(measure, kNoSuchCall);
}

void vmcall_getpid_kvm(Measure& measure) {
    beside_kvm(measure, SYS_getpid);
}

void linux_ioctl(Measure& measure) {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    measure.sample([null](unsigned) { raw_syscall(SYS_ioctl, null, DUNE_RUN); });
}

/** Enter the guest, leave at once. */
template <class Run>
void enter_and_leave(Measure& measure, Run run) {
    guest::Vcpu& vcpu = guest::Vcpu::get();
    if (const guest::End end = guest::enter([] {}, kGate); !end.left())
        measure.fail("the guest did not come back: exit %u, error %ld", end.exit, end.error);
    measure.count_exits([](int device, dune_stats* stats) {
        return static_cast<long>(ioctl(device, DUNE_GET_STATS, stats));
    });
    // The page says where the guest was: behind its VMCALL. Two bytes of MOV's opcode and immediate
    // before, and the three of VMCALL itself: back to it, with the number still in rax.
    dune_vcpu_page& page = vcpu.page();
    const std::uint64_t leave = page.rip - 3;
    const std::uint64_t number = DUNE_HC_LEAVE;
    measure.sample([&](unsigned) {
        page.regs.rax = number;
        page.rip = leave;
        page.set = DUNE_SET_RIP;
        run(vcpu);
    });
    if (page.exit != DUNE_EXIT_LEAVE)
        measure.fail("the guest ended with exit %u", page.exit);
}

void enter_lseek(Measure& measure) {
    enter_and_leave(measure, [](guest::Vcpu& vcpu) {
        raw_syscall(SYS_lseek, vcpu.fd(), static_cast<long>(DUNE_RUN), SEEK_DATA);
    });
}

void enter_ioctl(Measure& measure) {
    enter_and_leave(measure, [](guest::Vcpu& vcpu) {
        raw_syscall(SYS_ioctl, vcpu.fd(), static_cast<long>(DUNE_RUN));
    });
}

void enter_door(Measure& measure) {
    enter_and_leave(measure, [](guest::Vcpu& vcpu) {
        asm volatile(".byte 0x8a, 0x00 # mov (%%rax), %%al" : : "a"(vcpu.door()) : "memory");
    });
}

}  // namespace

void add_module_cases(Cases& cases) {
    cases.insert(
        cases.end(),
        {
            {"unknown_call/linux/syscall", Needs::Linux, 1000, 0, linux_unknown},
            {"unknown_call/dune/vmcall", Needs::Dune, 1000, 0, vmcall_unknown},
            {"unknown_call/dune/vmcall_beside_kvm", Needs::Dune, 1000, 0, vmcall_unknown_kvm},
            {"hypercall/dune/nop", Needs::Dune, 1000, 0, vmcall_nop},
            {"getpid/dune/vmcall", Needs::Dune, 1000, 0, vmcall_getpid},
            {"getpid/dune/vmcall_no_gate", Needs::Dune, 1000, 0, vmcall_getpid_no_gate},
            {"getpid/dune/vmcall_beside_kvm", Needs::Dune, 1000, 0, vmcall_getpid_kvm},
            {"cpuid/dune/exit", Needs::Dune, 1000, 0, cpuid},
            {"enter/linux/ioctl_unknown", Needs::Linux, 1000, 0, linux_ioctl},
            {"enter/dune/lseek", Needs::Dune, 1000, 0, enter_lseek},
            {"enter/dune/ioctl", Needs::Dune, 1000, 0, enter_ioctl},
            {"enter/dune/door", Needs::Dune, 1000, 0, enter_door},
        });
}

}  // namespace bench
