// SPDX-License-Identifier: MIT
//
// A lock for the monitor: a futex word, no C library, valid in a forked child when its holder
// forked.

#ifndef DUNE_APPS_SANDBOX_MONITOR_LOCK_H
#define DUNE_APPS_SANDBOX_MONITOR_LOCK_H

#include <linux/futex.h>
#include <sys/syscall.h>

#include <atomic>

#include "monitor/host_call.h"

namespace dune::sandbox {

class Lock {
  public:
    // Context: ring 0, trap. Signals for the program stay pending while it waits.
    void lock() {
        int expected = kFree;
        if (word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire)) {
            return;
        }
        while (word_.exchange(kContended, std::memory_order_acquire) != kFree) {
            host_call(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, kContended, 0);
        }
    }
    void unlock() {
        if (word_.exchange(kFree, std::memory_order_release) == kContended) {
            host_call(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1);
        }
    }

  private:
    static constexpr int kFree = 0;
    static constexpr int kHeld = 1;
    static constexpr int kContended = 2;
    std::atomic<int> word_{kFree};
};

class LockGuard {
  public:
    explicit LockGuard(Lock& lock) : lock_(lock) { lock_.lock(); }
    ~LockGuard() { lock_.unlock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;

  private:
    Lock& lock_;
};

}  // namespace dune::sandbox

#endif
