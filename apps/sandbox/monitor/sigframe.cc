// SPDX-License-Identifier: MIT

#include "monitor/sigframe.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

namespace dune::sandbox {

namespace {

// struct sigcontext_64 and its surroundings in struct rt_sigframe.
struct SavedContext {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2;
    uint64_t fpstate;
    uint64_t reserved[8];
};
static_assert(sizeof(SavedContext) == 256);

struct SavedStack {
    uint64_t sp;
    int32_t flags;
    int32_t pad;
    uint64_t size;
};

struct SavedFrame {
    uint64_t return_address;
    uint64_t uc_flags;
    uint64_t uc_link;
    SavedStack stack;
    SavedContext context;
    uint64_t mask;
    siginfo_t info;
};
static_assert(sizeof(SavedFrame) == 8 + 40 + 256 + 8 + 128);

constexpr uint64_t kUcFpXstate = 1;
constexpr uint64_t kUcSigcontextSs = 2;
constexpr uint64_t kUcStrictRestoreSs = 4;

// struct _fpx_sw_bytes, in the 48 bytes of the FXSAVE area that are software's.
struct SoftwareBytes {
    uint32_t magic1;
    uint32_t extended_size;
    uint64_t features;
    uint32_t xstate_size;
    uint32_t padding[7];
};
constexpr size_t kSoftwareBytes = 464;
constexpr uint32_t kMagic1 = 0x46505853;
constexpr uint32_t kMagic2 = 0x46505845;
constexpr size_t kLegacySize = 512;
constexpr size_t kHeaderSize = 64;
constexpr size_t kMxcsr = 24;
constexpr uint32_t kMxcsrInitial = 0x1f80;

constexpr uint16_t kUserCs = 0x33;
constexpr uint16_t kUserSs = 0x2b;
constexpr uint64_t kFlagsKept = 0x50dd5;  // what rt_sigreturn may change: FIX_EFLAGS in Linux
constexpr uint64_t kFlagTf = 1 << 8;
constexpr uint64_t kFlagDf = 1 << 10;
constexpr uint64_t kFlagRf = 1 << 16;
constexpr int kAutoDisarm = static_cast<int>(1u << 31);  // SS_AUTODISARM
constexpr size_t kRedZone = 128;
constexpr uint64_t kMinStack = 2048;

SavedContext save(const Frame& f) {
    SavedContext c{};
    c.r8 = f.r8, c.r9 = f.r9, c.r10 = f.r10, c.r11 = f.r11;
    c.r12 = f.r12, c.r13 = f.r13, c.r14 = f.r14, c.r15 = f.r15;
    c.rdi = f.rdi, c.rsi = f.rsi, c.rbp = f.rbp, c.rbx = f.rbx;
    c.rdx = f.rdx, c.rax = f.rax, c.rcx = f.rcx, c.rsp = f.rsp;
    c.rip = f.rip, c.rflags = f.rflags & ~0x3000ull;
    c.cs = kUserCs, c.ss = kUserSs;
    return c;
}

void restore(Frame& f, const SavedContext& c) {
    f.r8 = c.r8, f.r9 = c.r9, f.r10 = c.r10, f.r11 = c.r11;
    f.r12 = c.r12, f.r13 = c.r13, f.r14 = c.r14, f.r15 = c.r15;
    f.rdi = c.rdi, f.rsi = c.rsi, f.rbp = c.rbp, f.rbx = c.rbx;
    f.rdx = c.rdx, f.rax = c.rax, f.rcx = c.rcx, f.rsp = c.rsp;
    f.rip = c.rip;
    f.rflags = (f.rflags & ~kFlagsKept) | (c.rflags & kFlagsKept);
}

// Vector registers as in a new program: what handlers start with.
void reset(const engine::Xstate& x) {
    memset(x.area, 0, x.size);
    x.area[0] = 0x7f;  // FCW = 0x037f
    x.area[1] = 0x03;
    memcpy(x.area + kMxcsr, &kMxcsrInitial, sizeof(kMxcsrInitial));
    if (x.size > kLegacySize) {
        // x87 and SSE as written here; the other components in their initial state.
        const uint64_t present = 3;
        memcpy(x.area + kLegacySize, &present, sizeof(present));
    }
}

bool push_vectors(uint64_t to, const engine::Xstate& x) {
    SoftwareBytes bytes{};
    const bool extended = x.size > kLegacySize;
    bytes.magic1 = extended ? kMagic1 : 0;
    bytes.extended_size = static_cast<uint32_t>(x.size + (extended ? sizeof(kMagic2) : 0));
    bytes.features = x.features;
    bytes.xstate_size = static_cast<uint32_t>(x.size);
    return engine::copy_out(to, x.area, x.size) &&
           engine::copy_out(to + kSoftwareBytes, &bytes, sizeof(bytes)) &&
           (!extended || engine::copy_out(to + x.size, &kMagic2, sizeof(kMagic2)));
}

// What XRSTOR would fault on is refused, as Linux does.
bool is_loadable(const engine::Xstate& x, const uint8_t* area, bool extended) {
    uint32_t mxcsr;
    memcpy(&mxcsr, area + kMxcsr, sizeof(mxcsr));
    if ((mxcsr & ~0xffffu) != 0) {
        return false;
    }
    if (!extended) {
        return true;
    }
    uint64_t header[8];
    memcpy(header, area + kLegacySize, sizeof(header));
    return (header[0] & ~x.features) == 0 &&
           std::all_of(header + 1, header + 8, [](uint64_t word) { return word == 0; });
}

bool pop_vectors(Thread& thread, uint64_t from, const engine::Xstate& x) {
    static_assert(sizeof(thread.bytes) >= 12 * 1024, "room for a copy, AMX included");
    uint8_t* const copy = thread.bytes;
    SoftwareBytes bytes;
    uint32_t magic2 = 0;
    if (x.size > sizeof(thread.bytes) || !engine::copy_in(copy, from, kLegacySize)) {
        return false;
    }
    memcpy(&bytes, copy + kSoftwareBytes, sizeof(bytes));
    const bool extended =
        x.size > kLegacySize && bytes.magic1 == kMagic1 && bytes.xstate_size == x.size &&
        engine::copy_in(&magic2, from + x.size, sizeof(magic2)) && magic2 == kMagic2;
    if (extended &&
        !engine::copy_in(copy + kLegacySize, from + kLegacySize, x.size - kLegacySize)) {
        return false;
    }
    if (!is_loadable(x, copy, extended)) {
        return false;
    }
    reset(x);
    memset(copy + kSoftwareBytes, 0, kLegacySize - kSoftwareBytes);
    memcpy(x.area, copy, extended ? x.size : kLegacySize);
    return true;
}

uint64_t frame_address(const Thread& thread, const Frame& frame, const SignalAction& action,
                       uint64_t vectors, uint64_t* vectors_at) {
    uint64_t sp = frame.rsp - kRedZone;
    if ((action.flags & SA_ONSTACK) != 0 && thread.altstack_size != 0 &&
        !on_altstack(thread, frame.rsp)) {
        sp = thread.altstack + thread.altstack_size;
    }
    *vectors_at = (sp - vectors) & ~63ull;
    // As at a function's entry: a return address below a multiple of 16.
    return ((*vectors_at - sizeof(SavedFrame)) & ~15ull) - 8;
}

}  // namespace

bool on_altstack(const Thread& thread, uint64_t rsp) {
    return (thread.altstack_flags & kAutoDisarm) == 0 && rsp > thread.altstack &&
           rsp - thread.altstack <= thread.altstack_size;
}

bool push_signal_frame(Thread& thread, Frame& frame, const SignalContext& context) {
    const engine::Xstate x = engine::xstate();
    uint64_t vectors;
    const uint64_t at = frame_address(thread, frame, context.action,
                                      x.area == nullptr ? 0 : x.size + sizeof(kMagic2), &vectors);
    if (on_altstack(thread, frame.rsp) && !on_altstack(thread, at)) {
        return false;  // the alternate stack is full
    }
    SavedFrame saved{};
    saved.return_address = context.action.restorer;
    saved.uc_flags = kUcSigcontextSs | kUcStrictRestoreSs;
    saved.stack = {thread.altstack, thread.altstack_size == 0 ? SS_DISABLE : thread.altstack_flags,
                   0, thread.altstack_size};
    saved.context = save(frame);
    saved.context.trapno = context.trap;
    saved.context.err = context.error;
    saved.context.cr2 = context.address;
    saved.context.oldmask = context.mask;
    saved.mask = context.mask;
    saved.info = context.info;
    if (x.area != nullptr) {
        saved.uc_flags |= x.size > kLegacySize ? kUcFpXstate : 0;
        saved.context.fpstate = vectors;
        if (!push_vectors(vectors, x)) {
            return false;
        }
    }
    if (!engine::copy_out(at, &saved, sizeof(saved))) {
        return false;
    }
    if (x.area != nullptr) {
        reset(x);
    }
    if ((thread.altstack_flags & kAutoDisarm) != 0) {
        thread.altstack = thread.altstack_size = 0;
        thread.altstack_flags = SS_DISABLE;
    }
    frame.rdi = static_cast<uint64_t>(context.info.si_signo);
    frame.rsi = at + offsetof(SavedFrame, info);
    frame.rdx = at + offsetof(SavedFrame, uc_flags);
    frame.rax = 0;
    frame.rsp = at;
    frame.rip = context.action.handler;
    frame.rflags &= ~(kFlagDf | kFlagRf | kFlagTf);
    return true;
}

bool pop_signal_frame(Thread& thread, Frame& frame, uint64_t* mask) {
    SavedFrame saved;
    const uint64_t at = frame.rsp - sizeof(saved.return_address);
    if (!engine::copy_in(&saved, at, sizeof(saved))) {
        return false;
    }
    const engine::Xstate x = engine::xstate();
    if (x.area != nullptr) {
        if (saved.context.fpstate == 0) {
            reset(x);
        } else if (!pop_vectors(thread, saved.context.fpstate, x)) {
            return false;
        }
    }
    restore(frame, saved.context);
    thread.altstack = saved.stack.sp;
    thread.altstack_size = (saved.stack.flags & SS_DISABLE) != 0 ? 0 : saved.stack.size;
    thread.altstack_flags = saved.stack.flags & ~SS_ONSTACK;
    *mask = saved.mask;
    return true;
}

long do_sigaltstack(Thread& thread, const Frame& frame, uint64_t from, uint64_t to) {
    const bool inside = on_altstack(thread, frame.rsp);
    SavedStack given;
    if (from != 0 && !engine::copy_in(&given, from, sizeof(given))) {
        return -EFAULT;
    }
    const SavedStack old = {thread.altstack,
                            thread.altstack_size == 0
                                ? SS_DISABLE
                                : (inside ? SS_ONSTACK : 0) | (thread.altstack_flags & kAutoDisarm),
                            0, thread.altstack_size};
    if (from != 0) {
        const int mode = given.flags & ~kAutoDisarm;
        if (inside) {
            return -EPERM;
        }
        if (mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE) {
            return -EINVAL;
        }
        if (mode == SS_DISABLE) {
            given.sp = given.size = 0;
        } else if (given.size < kMinStack) {
            return -ENOMEM;
        }
        thread.altstack = given.sp;
        thread.altstack_size = given.size;
        thread.altstack_flags = mode == SS_DISABLE ? SS_DISABLE : given.flags & kAutoDisarm;
    }
    return to == 0 || engine::copy_out(to, &old, sizeof(old)) ? 0 : -EFAULT;
}

}  // namespace dune::sandbox
