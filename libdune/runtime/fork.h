// SPDX-License-Identifier: MIT
/**
 * @file
 * fork() in a process whose other threads hold locks of the library: all are taken before, so that
 * the child's copies of what they guard are whole, and of the locks free.
 */
#pragma once

namespace dune::rt {

/**
 * Around a system call that makes a process with memory of its own, in host mode. The child, which
 * does not return to its end, calls dune_fork_child(). Signals are blocked meanwhile.
 */
class ForkGuard {
  public:
    /** needed: false for a child that shares memory; then nothing happens. */
    explicit ForkGuard(bool needed) noexcept;
    ~ForkGuard();
    ForkGuard(const ForkGuard&) = delete;
    ForkGuard& operator=(const ForkGuard&) = delete;

  private:
    bool needed_;
};

/** Have the C library's fork() of threads in host mode do the same. dune_init(). */
void fork_init() noexcept;

}  // namespace dune::rt

extern "C" void dune_fork_child() noexcept __attribute__((visibility("hidden")));
