// SPDX-License-Identifier: MIT

#include "monitor/rseq.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <sys/syscall.h>

#include <csignal>

#include "monitor/signals.h"

namespace dune::sandbox {

namespace {

// The first version's size, which all of Linux accept, and alignment. That there is more, the
// auxiliary vector would have to say (AT_RSEQ_FEATURE_SIZE).
constexpr uint64_t kAreaSize = 32;

struct Cpus {
    uint32_t start, now;
};
static_assert(offsetof(rseq, cpu_id_start) == 0 && offsetof(rseq, cpu_id) == 4);

bool write_cpus(uint64_t area, const Cpus& cpus) {
    return engine::copy_out(area, &cpus, sizeof(cpus));
}

// What Linux demands of a section (kernel/rseq.c), with the program's part as all of user space.
bool is_sound(const rseq_cs& section, uint32_t signature) {
    const uint64_t start = section.start_ip, length = section.post_commit_offset;
    uint32_t found;
    return section.version == 0 && start < kUserEnd && length < kUserEnd - start &&
           section.abort_ip < kUserEnd && section.abort_ip - start >= length &&
           engine::copy_in(&found, section.abort_ip - sizeof(found), sizeof(found)) &&
           found == signature;
}

// False if the area or the section is not as it has to be. All that is read of the program's memory
// is read once: what another thread changes meanwhile is the program's own affair.
bool try_leave(const Thread& thread, Frame& frame) {
    const uint64_t pointer_at = thread.rseq_area + offsetof(rseq, rseq_cs);
    const uint64_t none = 0;
    uint64_t at;
    rseq_cs section;
    if (!engine::copy_in(&at, pointer_at, sizeof(at))) {
        return false;
    }
    if (at == 0) {
        return true;
    }
    if (!engine::copy_in(&section, at, sizeof(section)) ||
        !is_sound(section, thread.rseq_signature)) {
        return false;
    }
    const bool inside = frame.rip - section.start_ip < section.post_commit_offset;
    if (inside) {
        // Flags that once said not to abort are errors today.
        uint32_t flags;
        if (section.flags != 0 ||
            !engine::copy_in(&flags, thread.rseq_area + offsetof(rseq, flags), sizeof(flags)) ||
            flags != 0) {
            return false;
        }
    }
    if (!engine::copy_out(pointer_at, &none, sizeof(none))) {
        return false;
    }
    if (inside) {
        frame.rip = section.abort_ip;
    }
    return true;
}

long unregister(Thread& thread, uint64_t area, uint64_t size, uint32_t signature) {
    if (thread.rseq_area == 0 || thread.rseq_area != area || size != kAreaSize) {
        return -EINVAL;
    }
    if (thread.rseq_signature != signature) {
        return -EPERM;
    }
    if (!write_cpus(thread.rseq_area, {0, static_cast<uint32_t>(RSEQ_CPU_ID_UNINITIALIZED)})) {
        return -EFAULT;
    }
    drop_rseq(thread);
    return 0;
}

}  // namespace

void drop_rseq(Thread& thread) {
    if (thread.rseq_area != 0) {
        thread.rseq_area = 0;
        engine::watch_resumes(false);
    }
}

void leave_critical_section(Thread& thread, Frame& frame) {
    // Linux would call a handler, but have the thread die when that returns.
    if (thread.rseq_area != 0 && !try_leave(thread, frame)) {
        die_of(SIGSEGV);
    }
}

void on_resumed(Thread& thread, Frame& frame) {
    if (thread.rseq_area == 0) {
        return;
    }
    if (const uint32_t cpu = engine::cpu(); cpu != thread.rseq_cpu) {
        thread.rseq_cpu = cpu;
        if (!write_cpus(thread.rseq_area, {cpu, cpu})) {
            die_of(SIGSEGV);
        }
    }
    leave_critical_section(thread, frame);
}

long do_rseq(Call& call) {
    Thread& thread = call.thread;
    const uint64_t* a = call.args;
    const int flags = static_cast<int>(a[2]);
    const uint64_t size = static_cast<uint32_t>(a[1]);
    const uint32_t signature = static_cast<uint32_t>(a[3]);
    if (flags == RSEQ_FLAG_UNREGISTER) {
        return unregister(thread, a[0], size, signature);
    }
    if (flags != 0) {
        return -EINVAL;
    }
    if (thread.rseq_area != 0) {
        if (thread.rseq_area != a[0] || size != kAreaSize) {
            return -EINVAL;
        }
        return thread.rseq_signature != signature ? -EPERM : -EBUSY;
    }
    if (a[0] % kAreaSize != 0 || size != kAreaSize) {
        return -EINVAL;
    }
    if (a[0] == 0 || !in_user(a[0], size)) {
        return -EFAULT;
    }
    if (!engine::watch_resumes(true)) {
        return -ENOSYS;
    }
    thread.rseq_area = a[0];
    thread.rseq_signature = signature;
    thread.rseq_cpu = static_cast<uint32_t>(RSEQ_CPU_ID_UNINITIALIZED);
    return 0;  // on_resumed() fills the area in, on the way back
}

// The commands that abort critical sections of other threads stay with Linux, which from 6.19 on
// does not see that a thread in the guest is in one.
long do_membarrier(Call& call) {
    constexpr long kOfRseq =
        MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ;
    const int command = static_cast<int>(call.args[0]);
    if ((command & kOfRseq) != 0) {
        return -EINVAL;
    }
    const long result = pass(call);
    return command == MEMBARRIER_CMD_QUERY && result > 0 ? result & ~kOfRseq : result;
}

}  // namespace dune::sandbox
