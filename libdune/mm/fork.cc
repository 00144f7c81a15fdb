// SPDX-License-Identifier: MIT
#include "fork.h"

#include "slots.h"
#include "spinlock.h"
#include "tables.h"

namespace dune::mm {
namespace {

std::uint64_t irq_flags = 0;  // of the thread that holds all locks

}  // namespace

// In the order in which the functions nest them: root, pool, slots.
void lock_before_fork() noexcept {
    const std::uint64_t flags = IrqGuard::save();
    for (SpinLock& lock : root_locks)
        lock.lock();
    pool_lock().lock();
    slots().lock().lock();
    irq_flags = flags;
}

void unlock_after_fork() noexcept {
    const std::uint64_t flags = irq_flags;
    slots().lock().unlock();
    pool_lock().unlock();
    for (SpinLock& lock : root_locks)
        lock.unlock();
    IrqGuard::restore(flags);
}

}  // namespace dune::mm
