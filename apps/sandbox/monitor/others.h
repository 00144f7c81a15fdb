// SPDX-License-Identifier: MIT
//
// Which processes and threads the program may act on: those of its sandbox.

#ifndef DUNE_APPS_SANDBOX_MONITOR_OTHERS_H
#define DUNE_APPS_SANDBOX_MONITOR_OTHERS_H

#include <cstdint>

namespace dune::sandbox {

enum class Whose {
    Foreign,  // not of the sandbox, or there is none
    Ended,    // was of the sandbox, and has ended; nothing can happen to it
    Ours,
};

// Of a process id. Context: trap.
Whose whose_process(int64_t pid);

// Of the process that a descriptor from pidfd_open(2) or clone(2) stands for: 0 if it is of the
// sandbox or has been waited for, else -EPERM; -EBADF for any other descriptor. process.fd_lock is
// held, so that the descriptor stays what it is. Context: trap.
long check_pidfd(uint64_t fd);

// True for threads of this process and for first threads of the sandbox's others; 0 is the caller.
// Context: trap.
bool is_our_thread(int64_t tid);

// True for the group of the calling process (0), or one that a process of the sandbox leads, as far
// as that is so. Context: trap.
bool is_our_group(int64_t group);

// kill(2) of a group that somebody outside leads: only those of it that are of the sandbox get the
// signal. One that is made meanwhile may not. 0 is the caller's group. 0 or -EPERM. Context: trap.
long signal_our_part(int64_t group, uint64_t signal);

}  // namespace dune::sandbox

#endif
