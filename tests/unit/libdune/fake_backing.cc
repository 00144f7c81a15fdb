// SPDX-License-Identifier: MIT
#include "fake_backing.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace dune::test {
namespace {

FakeState state;
thread_local int irq_depth = 0;

int commit(void* va, std::size_t len) noexcept {
    if (state.refuse_commits_after == 0)
        return -ENOMEM;
    if (state.refuse_commits_after > 0)
        --state.refuse_commits_after;
    __atomic_fetch_add(&state.commits, 1U, __ATOMIC_RELAXED);
    return mm::system_backing().commit(va, len);
}

int commit_sparse(void* va, std::size_t len) noexcept {
    return state.refuse_sparse ? -ENOMEM : mm::system_backing().commit_sparse(va, len);
}

void decommit(void* va, std::size_t len) noexcept {
    __atomic_fetch_add(&state.decommits, 1U, __ATOMIC_RELAXED);
    mm::system_backing().decommit(va, len);
}

Result<physaddr_t> bind(void*, std::size_t) noexcept {
    return kFakePoolBase;
}

Result<physaddr_t> va_to_pa(std::uintptr_t va) noexcept {
    if (va >> 47 != 0)
        return Error(-EINVAL);
    return va + kFakeOffset;
}

Result<std::uintptr_t> pa_to_va(physaddr_t pa) noexcept {
    if (pa < kFakeOffset)
        return Error(-EINVAL);
    return pa - kFakeOffset;
}

ptent_t* current_root() noexcept {
    return state.current_root;
}

thread_local bool recording = false;

void flush_one(std::uintptr_t va) noexcept {
    if (recording)
        state.flushed.push_back(va);
}

void flush_all() noexcept {
    if (recording)
        ++state.flushed_all;
}

std::uint64_t irq_save() noexcept {
    return static_cast<std::uint64_t>(irq_depth++);
}

void irq_restore(std::uint64_t flags) noexcept {
    if (static_cast<std::uint64_t>(--irq_depth) != flags)
        state.irq_balanced = false;
}

}  // namespace

FakeState& fake() {
    state.irq_depth = irq_depth;
    return state;
}

FakeBacking::FakeBacking() {
    state = FakeState{};
    recording = true;
    mm::Backing backing = mm::system_backing();
    backing.commit = commit;
    backing.commit_sparse = commit_sparse;
    backing.decommit = decommit;
    backing.bind = bind;
    backing.va_to_pa = va_to_pa;
    backing.pa_to_va = pa_to_va;
    backing.current_root = current_root;
    backing.host_flush_one = flush_one;
    backing.host_flush_all = flush_all;
    backing.host_irq_save = irq_save;
    backing.host_irq_restore = irq_restore;
    mm::set_backing(backing);
}

FakeBacking::~FakeBacking() {
    EXPECT_EQ(mm::pool_stats().used, 0U) << "pages were lost";
    EXPECT_EQ(irq_depth, 0) << "interrupts stayed masked";
    EXPECT_TRUE(state.irq_balanced);
    if (mm::pool_stats().used == 0)
        mm::pool_destroy();
    recording = false;
    mm::set_backing(mm::system_backing());
}

}  // namespace dune::test
