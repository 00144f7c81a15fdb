// SPDX-License-Identifier: MIT
//
// The limit of open files while the program runs is where the runtime's numbers begin, so that
// Linux gives it none of those.

#ifndef DUNE_APPS_SANDBOX_MONITOR_FD_LIMIT_H
#define DUNE_APPS_SANDBOX_MONITOR_FD_LIMIT_H

#include <sys/resource.h>
#include <sys/syscall.h>

#include "monitor/state.h"

namespace dune::sandbox {

// Context: any but ring 3.
inline void set_fd_limit(rlim_t limit) {
    const rlimit wanted{limit, process.fd_limit};
    host_call(SYS_prlimit64, 0, RLIMIT_NOFILE, &wanted, 0);
}

// For a scope, the runtime may make descriptors with numbers of its own. process.fd_lock is held if
// the program has other threads. Context: any but ring 3.
class RuntimeNumbers {
  public:
    RuntimeNumbers() { set_fd_limit(process.fd_limit); }
    ~RuntimeNumbers() { set_fd_limit(static_cast<rlim_t>(process.fd_base)); }
    RuntimeNumbers(const RuntimeNumbers&) = delete;
    RuntimeNumbers& operator=(const RuntimeNumbers&) = delete;
};

}  // namespace dune::sandbox

#endif
