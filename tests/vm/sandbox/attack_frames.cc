// SPDX-License-Identifier: MIT
//
// What rt_sigreturn(2) is to load from a frame that the program has changed.

#include <cpuid.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

constexpr uint64_t kNoAddress = 0x8000000000000000;  // not canonical
constexpr size_t kSoftwareBytes = 464;               // of the FXSAVE area
constexpr size_t kHeader = 512;                      // of the XSAVE area

// IF is set; VM, NT, VIF, VIP, ID and the privilege of I/O are as they were: 0.
constexpr uint64_t kFlagsWatched = 0x3f7200;
constexpr uint64_t kFlagsOfRing3 = 0x200;

uint64_t runtime;  // an address there

greg_t& reg(ucontext_t& context, int which) {
    return context.uc_mcontext.gregs[which];
}

char* vectors(ucontext_t& context) {
    return reinterpret_cast<char*>(context.uc_mcontext.fpregs);
}

template <class Value>
void put(char* to, Value value) {
    memcpy(to, &value, sizeof(value));
}

void set_vectors(ucontext_t& context, uint64_t address) {
    memcpy(&context.uc_mcontext.fpregs, &address, sizeof(address));
}

constexpr int kRip = REG_RIP;
constexpr int kRsp = REG_RSP;
constexpr int kFlags = REG_EFL;

const struct {
    const char* name;
    bool dies;  // with SIGSEGV or SIGBUS, and not: goes on with flags of ring 3
    void (*change)(ucontext_t& context);
} kFrames[] = {
    {"nothing", false, [](ucontext_t&) {}},
    {"rip no address", true, [](ucontext_t& c) { reg(c, kRip) = static_cast<greg_t>(kNoAddress); }},
    {"rip -1", true, [](ucontext_t& c) { reg(c, kRip) = -1; }},
    {"rip at the end", true, [](ucontext_t& c) { reg(c, kRip) = 0x800000000000; }},
    {"rip in the runtime", true,
     [](ucontext_t& c) { reg(c, kRip) = static_cast<greg_t>(runtime); }},
    {"rsp no address", true, [](ucontext_t& c) { reg(c, kRsp) = static_cast<greg_t>(kNoAddress); }},
    {"rsp in the runtime", true,
     [](ucontext_t& c) { reg(c, kRsp) = static_cast<greg_t>(runtime) + 2048; }},
    {"ring 0's cs and ss", false, [](ucontext_t& c) { reg(c, REG_CSGSFS) = 0x0018000000000010; }},
    {"I/O privilege", false, [](ucontext_t& c) { reg(c, kFlags) |= 0x3000; }},
    {"interrupts off", false, [](ucontext_t& c) { reg(c, kFlags) &= ~0x200; }},
    {"virtual 8086", false, [](ucontext_t& c) { reg(c, kFlags) |= 0x20000; }},
    {"nested task", false, [](ucontext_t& c) { reg(c, kFlags) |= 0x4000; }},
    {"virtual interrupts", false, [](ucontext_t& c) { reg(c, kFlags) |= 0x180000; }},
    {"resume", false, [](ucontext_t& c) { reg(c, kFlags) |= 0x10000; }},
    {"reserved flags", false,
     [](ucontext_t& c) { reg(c, kFlags) |= static_cast<greg_t>(0xffffffffffc08028); }},
    {"vectors no address", true, [](ucontext_t& c) { set_vectors(c, kNoAddress); }},
    {"vectors in the runtime", true, [](ucontext_t& c) { set_vectors(c, runtime); }},
    {"vectors before the runtime", true, [](ucontext_t& c) { set_vectors(c, runtime - 64); }},
    {"vectors at no memory", true, [](ucontext_t& c) { set_vectors(c, 64); }},
    {"no vectors", false, [](ucontext_t& c) { set_vectors(c, 0); }},
    {"reserved MXCSR", true, [](ucontext_t& c) { put(vectors(c) + 24, 0xffffffffu); }},
    {"no magic", false, [](ucontext_t& c) { put(vectors(c) + kSoftwareBytes, 0u); }},
    {"a large area", false,
     [](ucontext_t& c) {
         put(vectors(c) + kSoftwareBytes + 4, 0xffffffffu);
         put(vectors(c) + kSoftwareBytes + 16, 0xfffffff0u);
     }},
    {"unknown components", true, [](ucontext_t& c) { put(vectors(c) + kHeader, ~0ull); }},
    {"compacted form", true, [](ucontext_t& c) { put(vectors(c) + kHeader + 8, 1ull << 63); }},
    {"reserved header", true, [](ucontext_t& c) { put(vectors(c) + kHeader + 16, 1ull); }},
};

void (*change)(ucontext_t& context);

// Sends itself a signal whose handler changes the frame, and returns the flags right after it.
uint64_t return_by_changed_frame() {
    struct sigaction action {};
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
        change(*static_cast<ucontext_t*>(context));
    };
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &action, nullptr);
    const uint64_t pid = static_cast<uint64_t>(getpid());
    long number = SYS_tgkill;
    uint64_t flags;
    asm volatile(
        "sub $128, %%rsp\n\tsyscall\n\tpushfq\n\tpop %1\n\tpush $0x202\n\tpopfq\n\tadd $128, %%rsp"
        : "+a"(number), "=&b"(flags)
        : "D"(pid), "S"(pid), "d"(SIGUSR1)
        : "rcx", "r11", "memory", "cc");
    return flags;
}

// The alternate stack that a frame names is believed, but not written to if it is the runtime's.
void stack_in_the_runtime() {
    change = [](ucontext_t& c) { c.uc_stack = {reinterpret_cast<void*>(runtime), 0, 1 << 16}; };
    return_by_changed_frame();
    struct sigaction action {};
    action.sa_handler = [](int) { _exit(1); };
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR2, &action, nullptr);
    raise(SIGUSR2);
    _exit(1);
}

bool died(int status) {
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

int status_of(void (*act)()) {
    const pid_t pid = fork();
    if (pid == 0) {
        act();
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

// As the kernel uses it: OSXSAVE. Not every compiler's __builtin_cpu_supports() knows it.
bool has_xsave() {
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_OSXSAVE) != 0;
}

}  // namespace

void attack_frames(const char*) {
    for (const Target& target : runtime_memory()) {
        if (target.writable) {
            runtime = target.at;
        }
    }
    const bool extended = has_xsave();
    for (const auto& frame : kFrames) {
        change = frame.change;
        const int status = status_of([] {
            const uint64_t flags = return_by_changed_frame();
            _exit((flags & kFlagsWatched) == kFlagsOfRing3 ? 0 : 1);
        });
        fprintf(stderr, "%s: status %#x\n", frame.name, static_cast<unsigned>(status));
        // Without XSAVE nobody looks behind the 512 bytes of FXSAVE.
        if (frame.dies ? !died(status) && (extended || status != 0) : status != 0) {
            escaped(frame.name, static_cast<unsigned long>(status));
        }
    }
    if (const int status = status_of(stack_in_the_runtime); !died(status)) {
        escaped("alternate stack in the runtime", static_cast<unsigned long>(status));
    }
}

}  // namespace dune::sandbox_test
