// SPDX-License-Identifier: MIT
/**
 * @file
 * fork() in a process whose other threads may be inside the memory functions.
 */
#pragma once

namespace dune::mm {

/**
 * Take every lock of mm/, so that the child gets data that is whole; in a handler of
 * pthread_atfork() or around the system call. Interrupts are masked until unlock_after_fork().
 */
void lock_before_fork() noexcept;

/** In the parent and in the child. */
void unlock_after_fork() noexcept;

}  // namespace dune::mm
