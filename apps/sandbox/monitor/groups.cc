// SPDX-License-Identifier: MIT

#include <errno.h>
#include <sys/syscall.h>

#include "monitor/others.h"
#include "monitor/state.h"

namespace dune::sandbox {

namespace {

// Sends the signal to a process of the sandbox if it is in the group. The descriptor stands for one
// process for good: if that ends, and its number becomes another's, nobody gets the signal.
// process.fd_lock is held.
bool signal_member(int64_t pid, int64_t group, uint64_t signal) {
    if (host_call(SYS_getpgid, pid) != group) {
        return false;
    }
    const long fd = host_call(SYS_pidfd_open, pid, 0);
    if (is_error(fd)) {
        return false;
    }
    const bool sent = whose_process(pid) == Whose::Ours && host_call(SYS_getpgid, pid) == group &&
                      host_call(SYS_pidfd_send_signal, fd, signal, 0, 0) == 0;
    host_call(SYS_close, fd);
    return sent;
}

}  // namespace

long signal_our_part(int64_t group, uint64_t signal) {
    const int64_t own = host_call(SYS_getpgid, 0);
    bool sent = false;
    group = group == 0 ? own : group;
    {
        LockGuard guard(process.fd_lock);
        const Stats& stats = *process.stats;
        const uint64_t words = static_cast<uint64_t>(stats.most_pid.load()) / 64 + 1;
        for (uint64_t i = 0; i < words; i++) {
            for (uint64_t bits = stats.pids[i].load(); bits != 0; bits &= bits - 1) {
                const int64_t pid = static_cast<int64_t>(i) * 64 + __builtin_ctzll(bits);
                sent |= pid != process.pid && signal_member(pid, group, signal);
            }
        }
    }
    if (group == own) {  // last: it may be the end
        return host_call(SYS_kill, process.pid, signal);
    }
    return sent ? 0 : -EPERM;
}

}  // namespace dune::sandbox
