// SPDX-License-Identifier: MIT
//
// The way of a system call of ring 3. Compiled with general registers only: the plain calls, which
// are most, cost no saving of vector registers (see engine/dune.cc).

#include "monitor/dispatch.h"

#include <errno.h>
#include <sys/syscall.h>

#include <array>

namespace dune::sandbox {

Process process;

namespace {

// What is checked of an argument.
enum Check : uint8_t {
    kNothing,
    kFd,
    kPointer,  // starts below kUserEnd
    kBuffer,   // and the length in the next argument ends there
};

constexpr unsigned kCheckBits = 2;

struct Plan {
    bool plain;  // allowed, untraced, and nothing to do but the checks
    Kind kind;
    uint32_t checks;  // kCheckBits for each argument, the first lowest
};

Plan plans[kSyscallCount];

constexpr Check check_of(char letter) {
    switch (letter) {
        case 'f':
        case 'd':
            return kFd;
        case 'p':
        case 's':
        case 'P':
        case 'q':
            return kPointer;
        case 'b':
        case 'B':
            return kBuffer;
        default:
            return kNothing;
    }
}

constexpr uint32_t checks_of(std::string_view args) {
    uint32_t checks = 0;
    for (size_t i = 0; i < args.size() && i < 6; i++) {
        checks |= static_cast<uint32_t>(check_of(args[i])) << (i * kCheckBits);
    }
    return checks;
}

constexpr std::array<uint32_t, kSyscallCount> make_checks() {
    std::array<uint32_t, kSyscallCount> table{};
#define SYSCALL(number, name, cls, kind, args) table[number] = checks_of(args);
#include "policy/syscalls.def"
#undef SYSCALL
    return table;
}

// Of each call; made by the compiler, since every execve would have to make them again.
constexpr std::array<uint32_t, kSyscallCount> kChecks = make_checks();

// 0, or the error that Linux gives for such a descriptor or pointer.
inline long check_argument(Check check, uint64_t value, uint64_t next) {
    switch (check) {
        case kFd:
            return is_reserved(value) ? -EBADF : 0;
        case kPointer:
            return starts_in_user(value) ? 0 : -EFAULT;
        case kBuffer:
            return in_user(value, next) ? 0 : -EFAULT;
        default:
            return 0;
    }
}

inline long check_arguments(const Plan& plan, const uint64_t args[6]) {
    uint32_t checks = plan.checks;
    for (unsigned i = 0; checks != 0; i++, checks >>= kCheckBits) {
        const Check check = static_cast<Check>(checks & ((1u << kCheckBits) - 1));
        const long error = check_argument(check, args[i], i < 5 ? args[i + 1] : 0);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

long carry_out(Call& call, const Plan& plan) {
    if (const long error = check_arguments(plan, call.args)) {
        return error;
    }
    switch (plan.kind) {
        case Kind::Pass:
            return pass(call);
        case Kind::Path:
            return do_path(call);
        case Kind::Desc:
            return do_descriptors(call);
        case Kind::Mem:
            return do_memory(call);
        case Kind::Vec:
            return do_vectors(call);
        case Kind::Sig:
            return do_signals(call);
        case Kind::Proc:
            return do_process(call);
        case Kind::Net:
            return do_net(call);
        case Kind::Misc:
            return do_misc(call);
        default:
            return -ENOSYS;
    }
}

// Everything but plain calls.
long do_call(Call& call, bool known) {
    const Verdict& verdict = process.policy->verdict(call.number);
    if (known) {
        process.stats->by_call[call.number].fetch_add(1, std::memory_order_relaxed);
    }
    const bool absent = known && syscall_info(call.number)->kind == Kind::Absent;
    if (verdict.action == Action::Deny && !absent) {
        process.stats->denied.fetch_add(1, std::memory_order_relaxed);
        if (known) {
            process.stats->denied_by_call[call.number].fetch_add(1, std::memory_order_relaxed);
        }
        report_denied(call.thread, call.number, {}, known ? "by the policy" : "unknown call",
                      verdict.error);
    }
    if (verdict.action == Action::Deny) {
        // Absent ones are not reported: programs that ask for them have another way.
        return -static_cast<long>(verdict.error);
    }
    return carry_out(call, plans[call.number]);
}

// Brings the result into the frame; a call that a signal kept from starting is done again.
void finish(Thread& thread, Frame& frame, unsigned number, const uint64_t args[6], long result) {
    if (result == engine::kRestartNoIntr) {
        frame.rip -= 2;  // SYSCALL; rax still holds the number
        return;
    }
    frame.rax = static_cast<uint64_t>(result);
    if (result == -EINTR && restarts_after_signal(number, args)) {
        thread.interrupted = number;
    }
}

void slow_call(Thread& thread, Frame& frame) {
    const uint32_t number = static_cast<uint32_t>(frame.rax);
    const bool known = syscall_info(number) != nullptr;
    thread.number = number;
    Call call{thread,
              frame,
              number < kSyscallCount ? number : static_cast<unsigned>(kSyscallCount),
              {frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9}};
    const bool traced = known && (process.trace || process.policy->calls[call.number].trace);
    const bool returns = call.number != SYS_exit && call.number != SYS_exit_group;
    if (traced && !returns) {
        trace_call(thread, call, kFrameIsSet);
    }
    const long result = do_call(call, known);
    if (traced && returns) {
        trace_call(thread, call, result);
    }
    if (result != kFrameIsSet) {
        finish(thread, frame, call.number, call.args, result);
    }
}

}  // namespace

void prepare_dispatch() {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        Plan& plan = plans[number];
        plan = {};
        if (info == nullptr) {
            continue;
        }
        plan.kind = info->kind;
        plan.checks = kChecks[number];
        const Verdict& verdict = process.policy->calls[number];
        plan.plain = info->kind == Kind::Pass && verdict.action == Action::Allow &&
                     !verdict.trace && !process.trace;
    }
}

void on_syscall(Thread& thread, Frame& frame) {
    process.stats->calls.fetch_add(1, std::memory_order_relaxed);
    const uint32_t number = static_cast<uint32_t>(frame.rax);  // as Linux: the rest is ignored
    if (number < kSyscallCount && plans[number].plain) {
        const uint64_t args[6] = {frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9};
        process.stats->by_call[number].fetch_add(1, std::memory_order_relaxed);
        long result = check_arguments(plans[number], args);
        if (result == 0) {
            result = engine::blocking_call(number, args);
        }
        finish(thread, frame, number, args, result);
    } else {
        slow_call(thread, frame);
    }
    if (thread.has_signals()) {
        on_signals(thread, frame);
    }
    thread.interrupted = -1;
}

bool restarts_after_signal(unsigned number, const uint64_t args[6]) {
    switch (number) {
        case SYS_read:
        case SYS_write:
        case SYS_open:
        case SYS_openat:
        case SYS_ioctl:
        case SYS_pread64:
        case SYS_pwrite64:
        case SYS_readv:
        case SYS_writev:
        case SYS_preadv:
        case SYS_pwritev:
        case SYS_preadv2:
        case SYS_pwritev2:
        case SYS_sendfile:
        case SYS_splice:
        case SYS_tee:
        case SYS_vmsplice:
        case SYS_copy_file_range:
        case SYS_connect:
        case SYS_accept:
        case SYS_accept4:
        case SYS_sendto:
        case SYS_recvfrom:
        case SYS_sendmsg:
        case SYS_recvmsg:
        case SYS_recvmmsg:
        case SYS_sendmmsg:
        case SYS_wait4:
        case SYS_waitid:
        case SYS_fcntl:
        case SYS_flock:
        case SYS_getrandom:
        case SYS_mq_timedsend:
        case SYS_mq_timedreceive:
            return true;
        case SYS_futex:
            return args[3] == 0;  // with a timeout it ends with EINTR
        default:
            return false;
    }
}

}  // namespace dune::sandbox
