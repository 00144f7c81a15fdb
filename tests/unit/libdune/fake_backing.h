// SPDX-License-Identifier: MIT
//
// A Backing for tests: memory whose guest-physical addresses are far from its virtual ones,
// refusals on demand, and a record of what was flushed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "libdune/vm.h"
#include "mm/backing.h"
#include "mm/pool.h"

namespace dune::test {

/// What the code under test did to the Backing, and what it is to be refused.
struct FakeState {
    std::vector<std::uintptr_t> flushed;  // host_flush_one, in order
    unsigned flushed_all = 0;
    int refuse_commits_after = -1;  // that many more succeed; -1: all
    bool refuse_sparse = false;     // no memory for the map of leaf tables
    unsigned commits = 0;
    unsigned decommits = 0;
    int irq_depth = 0;  // nesting of masked interrupts, of this thread alone
    bool irq_balanced = true;
    ptent_t* current_root = nullptr;

    void forget_flushes() {
        flushed.clear();
        flushed_all = 0;
    }
    bool was_flushed(std::uintptr_t va) const {
        return flushed_all != 0 || std::ranges::find(flushed, va) != flushed.end();
    }
};

FakeState& fake();

/// Guest-physical addresses of memory that the fake Backing did not make: va + this.
inline constexpr physaddr_t kFakeOffset = 0x100'0000'0000;
/// The pool's guest-physical range starts here, wherever its memory is.
inline constexpr physaddr_t kFakePoolBase = 0x7'4000'0000;

/// Installs the fake, and checks at the end that every page came back.
class FakeBacking {
  public:
    FakeBacking();
    ~FakeBacking();
    FakeBacking(const FakeBacking&) = delete;
    FakeBacking& operator=(const FakeBacking&) = delete;
};

}  // namespace dune::test
