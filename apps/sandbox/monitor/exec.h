// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_MONITOR_EXEC_H
#define DUNE_APPS_SANDBOX_MONITOR_EXEC_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

// The one variable in the environment of a runtime that was executed for a sandboxed program: its
// value is Process::fd_base.
constexpr char kStateVariable[] = "DUNE_SANDBOX_STATE";

// execve(2) relative to dirfd. Returns only if it failed. Context: trap.
long do_exec(Call& call, int dirfd, uint64_t path, uint64_t argv, uint64_t envp);

// execveat(2) of a descriptor (fexecve). Returns only if it failed. Context: trap.
long do_exec_descriptor(Call& call);

}  // namespace dune::sandbox

#endif
