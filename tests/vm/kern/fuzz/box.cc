// SPDX-License-Identifier: MIT

#include "box.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "../guest.h"

namespace fuzz {

namespace {

// A case that is still going after this many ticks of kTick is stopped.
constexpr int kTicks = 2;
constexpr long kTickMicroseconds = 4000;
constexpr int kMaxCalls = 64;
constexpr uint64_t kExceptionMark = 0xe0000000;

volatile sig_atomic_t ticks;

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::abort();
}

void start_clock() {
    struct sigaction action = {};
    action.sa_handler = [](int) { ticks = ticks + 1; };
    sigaction(SIGALRM, &action, nullptr);
    itimerval timer = {};
    timer.it_value.tv_usec = timer.it_interval.tv_usec = kTickMicroseconds;
    setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

uint64_t Random::nasty() {
    static const uint64_t kValues[] = {0,
                                       1,
                                       2,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0xfff,
                                       0x1000,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       1ULL << 32,
                                       (1ULL << 47) - 1,
                                       1ULL << 47,
                                       0xffff800000000000,
                                       0xffffffff80000000,
                                       0xffffffff81000000,
                                       ~0ULL,
                                       1ULL << 63,
                                       (1ULL << 40) - 1,
                                       1ULL << 39,
                                       1ULL << 52,
                                       Box::kBase,
                                       Box::kGpa,
                                       Box::va(Box::kData),
                                       Box::va(Box::kStack) + 4090,
                                       Box::gpa(Box::kPml4),
                                       0xfee00000};
    switch (below(4)) {
        case 0:
            return next();
        case 1:
            return 1ULL << below(64);
        case 2:
            return kValues[below(std::size(kValues))] + below(16) - 8;
    }
    return kValues[below(std::size(kValues))];
}

const char* outcome_name(int outcome) {
    static const char* const kNames[] = {"left", "exception", "died", "refused", "timed out"};
    return kNames[outcome];
}

Box::Box() {
    device_ = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    if (device_ < 0) {
        fail(DUNE_DEVICE);
    }
    void* area =
        mmap(reinterpret_cast<void*>(kBase), kPages * kPage, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (area == MAP_FAILED) {
        fail("mmap");
    }
    area_ = static_cast<uint8_t*>(area);
    pristine_ = new uint8_t[kPages * kPage]();
    uint32_t va_slot = kBase >> DUNE_SLOT_SHIFT;
    dune_slots slots = {sizeof(slots), kGpa >> DUNE_SLOT_SHIFT, 1, 0,
                        reinterpret_cast<uint64_t>(&va_slot)};
    dune_vcpu_create create = {};
    create.size = sizeof(create);
    if (ioctl(device_, DUNE_SET_SLOTS, &slots) != 0 ||
        (vcpu_ = ioctl(device_, DUNE_CREATE_VCPU, &create)) < 0) {
        fail("vCPU");
    }
    void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_, 0);
    if (page == MAP_FAILED) {
        fail("mmap of the vCPU");
    }
    page_ = static_cast<dune_vcpu_page*>(page);
    build();
    std::memcpy(pristine_, area_, kPages * kPage);
    start_clock();
}

Box::~Box() {
    munmap(page_, kPage);
    close(vcpu_);
    close(device_);
    munmap(area_, kPages * kPage);
    delete[] pristine_;
}

void Box::build() {
    constexpr uint64_t kEntry = 0x67;
    table(kPml4)[kBase >> 39 & 511] = gpa(kPdpt) | kEntry;
    table(kPdpt)[kBase >> 30 & 511] = gpa(kPd) | kEntry;
    table(kPd)[kBase >> 21 & 511] = gpa(kPt) | kEntry;
    for (size_t i = 0; i < 16; i++) {
        table(kPt)[i] = gpa(i) | kEntry;  // some beyond the area: Linux refuses those
    }
    uint64_t* gdt = table(kGdt);
    gdt[2] = 0x00af9b000000ffff;
    gdt[3] = 0x00cf93000000ffff;
    gdt[4] = 0x00cffb000000ffff;
    gdt[5] = 0x00cff3000000ffff;
    gdt[6] = 0x00affb000000ffff;
    const uint64_t tss = va(kGdt) + 0x100;
    gdt[8] = 0x67 | (tss & 0xffffff) << 16 | 0x89ULL << 40 | (tss >> 24 & 0xff) << 56;
    gdt[9] = tss >> 32;
    const uint64_t stack = va(kStack) + kPage;
    std::memcpy(at(kGdt) + 0x100 + 4, &stack, 8);   // RSP0
    std::memcpy(at(kGdt) + 0x100 + 36, &stack, 8);  // IST1
    // mov $mark + vector, %edi; mov $LEAVE, %eax; vmcall
    for (uint32_t v = 0; v < 256; v++) {
        uint8_t* code = at(kHandlers) + v * 16;
        const uint32_t mark = kExceptionMark + v, leave = DUNE_HC_LEAVE;
        code[0] = 0xbf;
        std::memcpy(code + 1, &mark, 4);
        code[5] = 0xb8;
        std::memcpy(code + 6, &leave, 4);
        code[10] = 0x0f;
        code[11] = 0x01;
        code[12] = 0xc1;
        const uint64_t a = va(kHandlers) + v * 16;
        table(kIdt)[2 * v] = (a & 0xffff) | 0x10ULL << 16 | 1ULL << 32 |
                             (v == 3 || v == 0x80 ? 0xeeULL : 0x8eULL) << 40 |
                             (a >> 16 & 0xffff) << 48;
        table(kIdt)[2 * v + 1] = a >> 32;
    }
    // At the end of the GDT's page: lgdt, lidt, ltr, then iretq with the frame on the stack.
    uint8_t* p = at(kGdt) + 0x800;
    const auto descriptor = [](uint8_t* to, uint16_t limit, uint64_t base) {
        std::memcpy(to, &limit, 2);
        std::memcpy(to + 2, &base, 8);
    };
    descriptor(p + 0x100, 0x4f, va(kGdt));
    descriptor(p + 0x110, 0xfff, va(kIdt));
    static const uint8_t kStart[] = {0x0f, 0x01, 0x15, 0xf9, 0x00, 0x00, 0x00,  // lgdt 0x100
                                     0x0f, 0x01, 0x1d, 0x02, 0x01, 0x00, 0x00,  // lidt 0x110
                                     0x66, 0xb8, 0x40, 0x00,                    // mov $0x40, %ax
                                     0x0f, 0x00, 0xd8,                          // ltr %ax
                                     0x48, 0x89, 0xc8,                          // mov %rcx, %rax
                                     0x48, 0xcf};                               // iretq
    std::memcpy(p, kStart, sizeof(kStart));
}

void Box::reset() {
    std::memcpy(area_, pristine_, kPages * kPage);
    const uint64_t frame[] = {va(kCode), 0x10, 2, va(kStack) + 2048, 0x18};
    std::memcpy(at(kStack) + 3000, frame, sizeof(frame));
    std::memset(page_, 0, offsetof(dune_vcpu_page, death));
    page_->rip = va(kGdt) + 0x800;
    page_->regs.rsp = va(kStack) + 3000;
    page_->rflags = 2;
    page_->cr3 = gpa(kPml4);
    page_->set = DUNE_SET_RESET | DUNE_SET_RIP | DUNE_SET_CR3 | DUNE_SET_GATE;
}

void Box::enter_ring3() {
    const uint64_t frame[] = {va(kCode), 0x33, 2, va(kStack) + 2048, 0x2b};
    std::memcpy(at(kStack) + 3000, frame, sizeof(frame));
}

Outcome Box::run() {
    const int start = ticks;
    for (int calls = 0;;) {
        const long error = guest::host_call(SYS_ioctl, vcpu_, DUNE_RUN);
        if (error == -EINVAL || error == -EIO) {
            return kRefused;
        }
        if (error != 0) {
            errno = static_cast<int>(-error);
            fail("DUNE_RUN");
        }
        switch (page_->exit) {
            case DUNE_EXIT_SYSCALL:
                page_->regs.rax = static_cast<uint64_t>(-ENOSYS);
                if (++calls == kMaxCalls) {
                    return kTimedOut;
                }
                break;
            case DUNE_EXIT_BOUNCE:
                break;
            case DUNE_EXIT_LEAVE:
                if ((page_->regs.rdi & ~0xffULL) == kExceptionMark) {
                    last_vector_ = static_cast<int>(page_->regs.rdi & 0xff);
                    return kException;
                }
                return kLeft;
            case DUNE_EXIT_DEATH:
                return kDied;
            default:
                fail("an exit that does not exist");
        }
        if (ticks - start > kTicks) {
            return kTimedOut;
        }
    }
}

}  // namespace fuzz
