// SPDX-License-Identifier: MIT
// What a person is told when a program in Dune mode cannot go on.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include <cinttypes>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "process.h"
#include "sys.h"
#include "trap.h"

namespace dune::rt {
namespace {

constexpr int kMaxFrames = 32;

/** Reads lines of /proc/self/maps without the C library's streams. */
class Maps {
  public:
    Maps() noexcept
        : fd_(static_cast<int>(sys(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY, 0))) {}
    ~Maps() {
        if (fd_ >= 0)
            sys(SYS_close, fd_);
    }
    Maps(const Maps&) = delete;
    Maps& operator=(const Maps&) = delete;

    const char* next() noexcept {
        std::size_t len = 0;
        for (;;) {
            if (at_ == end_) {
                const long n = fd_ < 0 ? -1 : sys(SYS_read, fd_, buffer_, sizeof(buffer_));
                if (n <= 0)
                    return nullptr;
                at_ = 0;
                end_ = static_cast<std::size_t>(n);
            }
            const char c = buffer_[at_++];
            if (c == '\n') {
                line_[len] = '\0';
                return line_;
            }
            if (len + 1 < sizeof(line_))
                line_[len++] = c;
        }
    }

  private:
    int fd_;
    std::size_t at_ = 0, end_ = 0;
    char buffer_[1024];
    char line_[384];
};

struct Place {
    std::uint64_t begin, offset;
    char line[384];
    const char* path;
};

bool find_place(std::uint64_t va, Place* place) noexcept {
    Maps maps;
    while (const char* const line = maps.next()) {
        char* rest = nullptr;
        const std::uint64_t begin = std::strtoull(line, &rest, 16);
        const std::uint64_t end = *rest == '-' ? std::strtoull(rest + 1, &rest, 16) : 0;
        if (va < begin || va >= end)
            continue;
        std::memcpy(place->line, line, std::strlen(line) + 1);
        const char* field = place->line + (rest - line);
        field = std::strchr(field + 1, ' ');  // behind the rights
        place->begin = begin;
        place->offset = field != nullptr ? std::strtoull(field, nullptr, 16) : 0;
        const char* const path = std::strpbrk(place->line, "/[");
        place->path = path != nullptr ? path : "anonymous memory";
        return true;
    }
    return false;
}

void print_frame(int index, std::uint64_t ip) noexcept {
    Place place;
    if (find_place(ip, &place))
        complain("  #%-2d %#018" PRIx64 " %s + %#" PRIx64, index, ip, place.path,
                 ip - place.begin + place.offset);
    else
        complain("  #%-2d %#018" PRIx64, index, ip);
}

struct Unwound {
    std::uint64_t from;
    int count;
    bool seen;
};

_Unwind_Reason_Code on_frame(_Unwind_Context* context, void* arg) {
    auto* const state = static_cast<Unwound*>(arg);
    int before = 0;
    const std::uint64_t ip = _Unwind_GetIPInfo(context, &before);
    state->seen = state->seen || ip == state->from;
    if (!state->seen)
        return _URC_NO_REASON;  // the library's own
    print_frame(state->count, ip);
    return ++state->count < kMaxFrames ? _URC_NO_REASON : _URC_END_OF_STACK;
}

bool read_memory(std::uint64_t va, void* to, std::size_t len) noexcept {
    struct {
        void* base;
        std::size_t len;
    } local = {to, len}, remote = {reinterpret_cast<void*>(va), len};
    return sys(SYS_process_vm_readv, sys(SYS_getpid), &local, 1, &remote, 1) ==
           static_cast<long>(len);
}

/** The chain of frame pointers, for code that keeps them. */
void print_frame_pointers(int first, std::uint64_t ip, std::uint64_t rbp) noexcept {
    print_frame(first, ip);
    for (int i = first + 1; i < kMaxFrames; ++i) {
        std::uint64_t frame[2] = {};
        if (rbp == 0 || rbp % 8 != 0 || !read_memory(rbp, frame, sizeof(frame)) || frame[1] == 0)
            return;
        print_frame(i, frame[1]);
        if (frame[0] <= rbp)
            return;
        rbp = frame[0];
    }
}

void print_regs(const dune_tf& tf) noexcept {
    complain("  rax %016" PRIx64 "  rbx %016" PRIx64 "  rcx %016" PRIx64 "  rdx %016" PRIx64,
             tf.rax, tf.rbx, tf.rcx, tf.rdx);
    complain("  rsi %016" PRIx64 "  rdi %016" PRIx64 "  rbp %016" PRIx64 "  rsp %016" PRIx64,
             tf.rsi, tf.rdi, tf.rbp, tf.rsp);
    complain("  r8  %016" PRIx64 "  r9  %016" PRIx64 "  r10 %016" PRIx64 "  r11 %016" PRIx64, tf.r8,
             tf.r9, tf.r10, tf.r11);
    complain("  r12 %016" PRIx64 "  r13 %016" PRIx64 "  r14 %016" PRIx64 "  r15 %016" PRIx64,
             tf.r12, tf.r13, tf.r14, tf.r15);
    complain("  rip %016" PRIx64 "  rflags %08" PRIx64 "  cs %04" PRIx64 "  ss %04" PRIx64
             "  error code %04" PRIx64,
             tf.rip, tf.rflags, tf.cs, tf.ss, tf.err);
}

void print_place(const char* what, std::uint64_t va) noexcept {
    Place place;
    if (find_place(va, &place))
        complain("  %s %#" PRIx64 " is in %s", what, va, place.line);
    else
        complain("  %s %#" PRIx64 " is not mapped", what, va);
}

/** As if the kernel had sent it: with its default action, also if it is blocked. */
[[noreturn]] void die_of(int sig) noexcept {
    const KernelSigaction act = {};
    const std::uint64_t bit = sigbit(sig);
    sys_sigaction(sig, &act, nullptr);
    sys_sigprocmask(SIG_UNBLOCK, &bit, nullptr);
    sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), sig);
    for (;;)
        sys(SYS_exit_group, 128 + sig);
}

/** A fault while one is reported: no more than its address. */
void once(std::uint64_t rip, int sig) noexcept {
    static int reporting;  // the thread that does it
    const int tid = static_cast<int>(sys(SYS_gettid));
    int nobody = 0;
    if (__atomic_compare_exchange_n(&reporting, &nobody, tid, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return;
    if (nobody != tid)
        for (;;)
            sys(SYS_pause);  // another thread's report ends the process
    complain("a fault at %#" PRIx64 " while a fault was being reported", rip);
    die_of(sig);
}

const char* vector_name(int vector) noexcept {
    static constexpr const char* kNames[] = {"divide error",
                                             "debug exception",
                                             "non-maskable interrupt",
                                             "breakpoint",
                                             "overflow",
                                             "bound range exceeded",
                                             "invalid opcode",
                                             "device not available",
                                             "double fault",
                                             "coprocessor overrun",
                                             "invalid TSS",
                                             "segment not present",
                                             "stack-segment fault",
                                             "general protection",
                                             "page fault",
                                             "exception 15",
                                             "x87 floating-point error",
                                             "alignment check",
                                             "machine check",
                                             "SIMD floating-point error"};
    return vector >= 0 && vector < static_cast<int>(sizeof(kNames) / sizeof(kNames[0]))
               ? kNames[vector]
               : "interrupt";
}

void print_fault_head(const dune_tf& tf, int vector, std::uintptr_t addr,
                      const char* what) noexcept {
    const char* const where = (tf.cs & 3) == 0 ? "ring 0" : "ring 3";
    if (what != nullptr)
        complain("%s", what);
    if (vector == T_PGFLT)
        complain("page fault in %s: cannot %s address %#" PRIxPTR, where,
                 (tf.err & FEC_I) != 0   ? "execute at"
                 : (tf.err & FEC_W) != 0 ? "write to"
                                         : "read from",
                 addr);
    else if (vector >= 0)
        complain("%s in %s", vector_name(vector), where);
}

}  // namespace

void report_fault(const dune_tf* tf, int vector, int sig, std::uintptr_t addr,
                  const char* what) noexcept {
    once(tf->rip, sig);
    print_fault_head(*tf, vector, addr, what);
    print_regs(*tf);
    print_place("rip", tf->rip);
    print_place("rsp", tf->rsp);
    if (vector == T_PGFLT)
        print_place("the address", addr);
    complain("  called from:");
    Place code;
    if ((tf->cs & 3) == 0 && !find_place(tf->rip, &code)) {
        // An unwinder would look at the instructions there. It came by a call, most likely.
        std::uint64_t caller = 0;
        print_frame(0, tf->rip);
        if (read_memory(tf->rsp, &caller, sizeof(caller)))
            print_frame_pointers(1, caller, tf->rbp);
    } else if ((tf->cs & 3) == 0 && what == nullptr) {
        Unwound state = {.from = tf->rip, .count = 0, .seen = false};
        _Unwind_Backtrace(on_frame, &state);
    } else {
        print_frame_pointers(0, tf->rip, tf->rbp);
    }
    die_of(sig);
}

void report_death(const dune_vcpu_page* page) noexcept {
    const dune_regs& r = page->regs;
    const dune_tf tf = {.rdi = r.rdi,
                        .rsi = r.rsi,
                        .rdx = r.rdx,
                        .rcx = r.rcx,
                        .r8 = r.r8,
                        .r9 = r.r9,
                        .r10 = r.r10,
                        .r11 = r.r11,
                        .rbx = r.rbx,
                        .rbp = r.rbp,
                        .r12 = r.r12,
                        .r13 = r.r13,
                        .r14 = r.r14,
                        .r15 = r.r15,
                        .rax = r.rax,
                        .err = 0,
                        .rip = page->rip,
                        .cs = page->death.cs,
                        .rflags = page->rflags,
                        .rsp = r.rsp,
                        .ss = page->death.ss};
    once(tf.rip, SIGSEGV);
    complain("the thread cannot go on in Dune mode: %.*s",
             static_cast<int>(sizeof(page->death.text)), page->death.text);
    print_regs(tf);
    complain("  cr0 %016llx  cr2 %016llx  cr3 %016llx  cr4 %016llx", page->death.cr0,
             page->death.cr2, page->death.cr3, page->death.cr4);
    print_place("rip", tf.rip);
    print_frame_pointers(0, tf.rip, tf.rbp);
    die_of(SIGSEGV);
}

}  // namespace dune::rt

extern "C" {

void dune_dump_trap_frame(struct dune_tf* tf) {
    dune::rt::print_regs(*tf);
}

[[noreturn]] __attribute__((visibility("hidden"))) void dune_report_double_fault(dune_tf* tf) {
    dune::rt::report_fault(tf, T_DBLFLT, SIGSEGV, 0,
                           "double fault: a fault came while another was being delivered");
}

/**
 * The stack that a fault or interrupt came upon cannot be used. On a stack of its own.
 * @param addr the address that was missing
 */
__attribute__((visibility("hidden"))) void dune_bad_stack(dune_tf* tf, std::uintptr_t addr,
                                                          void* fpu) {
    using namespace dune::rt;
    if (fault_on_alternate_stack(tf, SIGSEGV)) {
        fault_to_signal(tf, fpu, SIGSEGV, SEGV_MAPERR, addr, T_PGFLT);
        return;
    }
    report_fault(tf, T_PGFLT, SIGSEGV, addr,
                 "stack overflow: the stack has no room for a fault or interrupt");
}

}  // extern "C"
