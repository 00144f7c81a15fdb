// SPDX-License-Identifier: MIT
// Compiled without vector registers: they are the guest's in the child of a system call.
#include "fork.h"

#include <pthread.h>

#include <csignal>

#include "../mm/fork.h"
#include "../mm/spinlock.h"
#include "signals.h"
#include "sys.h"

namespace dune::rt {
namespace {

// Of the one thread that holds all locks.
std::uint64_t signals_before;
bool by_c_library;

void take_all() noexcept {
    const std::uint64_t all = ~std::uint64_t{0};
    std::uint64_t before = 0;
    // A handler might want a lock, on this thread or in the child.
    sys_sigprocmask(SIG_SETMASK, &all, &before);
    signals_lock().lock();
    thread_areas_lock().lock();
    mm::lock_before_fork();
    signals_before = before;
}

/** In the parent and in the child. */
void give_back() noexcept {
    const std::uint64_t before = signals_before;
    by_c_library = false;
    mm::unlock_after_fork();
    thread_areas_lock().unlock();
    signals_lock().unlock();
    sys_sigprocmask(SIG_SETMASK, &before, nullptr);
}

// In ring 0 the trampoline does it, whose child then comes to after_fork() in host mode.
void before_fork() noexcept {
    if (mm::in_ring0())
        return;
    take_all();
    by_c_library = true;
}

void after_fork() noexcept {
    if (!mm::in_ring0() && by_c_library)
        give_back();
}

}  // namespace

ForkGuard::ForkGuard(bool needed) noexcept : needed_(needed) {
    if (needed_)
        take_all();
}

ForkGuard::~ForkGuard() {
    if (needed_)
        give_back();
}

void fork_init() noexcept {
    static bool done = false;
    if (!done)
        done = pthread_atfork(before_fork, after_fork, after_fork) == 0;
}

}  // namespace dune::rt

/** In the child, on the trampoline's stack. */
extern "C" void dune_fork_child() noexcept {
    using namespace dune::rt;
    // In Dune mode it was libdune that kept it.
    if (const Thread* const thread = current(); thread != nullptr && thread->active)
        restore_altstack(*thread);
    give_back();
}
