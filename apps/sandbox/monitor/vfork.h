// SPDX-License-Identifier: MIT
//
// vfork(2), whose child here has an address space of its own, a copy. Its parent, which waits, is
// to find what such a child leaves for it on the stack: posix_spawn(3) tells so that the program
// could not be executed. What the child changed above the parent's stack pointer is therefore
// brought to the parent when the child ends. An execve leaves nothing.

#ifndef DUNE_APPS_SANDBOX_MONITOR_VFORK_H
#define DUNE_APPS_SANDBOX_MONITOR_VFORK_H

#include <cstdint>

namespace dune::sandbox {

// In the parent, before and after. process.thread_lock is held. Context: trap.
void before_vfork(uint64_t stack);
void after_vfork();

// In a new process: is it a child of vfork(2)? Context: trap.
void begin_vfork_child(bool is_one);
// Before a process ends by itself. Context: trap.
void end_vfork_child();

}  // namespace dune::sandbox

#endif
