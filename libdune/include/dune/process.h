// SPDX-License-Identifier: MIT
/**
 * @file
 * Dune mode for C++: entering and leaving it by scope.
 */
#pragma once

#include <utility>

#include "dune/page_table.h"
#include "dune/result.h"
#include "libdune/dune.h"

namespace dune {

/** How a process uses Dune. */
struct ProcessOptions {
    /** Ring 0 can use all memory of the process, also what is mapped later (dune_init()). */
    bool map_everything = true;
    /** SMEP and SMAP on, where the CPU has them (dune_protect_supervisor()). */
    bool protect_supervisor = false;
};

/**
 * The calling thread's stay in Dune mode: from enter() to the end of the object's life.
 *
 * Each thread, and each forked child, which start in host mode, has one of its own. An object made
 * where the thread was in Dune mode already does not end that.
 */
class Process {
  public:
    /** @return the errors of dune_init() and dune_enter(). Context: host mode, ring 0. */
    static Result<Process> enter(const ProcessOptions& options = {}) noexcept {
        if (dune_in_guest())
            return Process(false);
        int rc = dune_init(options.map_everything);
        if (rc == 0 && options.protect_supervisor)
            dune_protect_supervisor();
        if (rc == 0)
            rc = dune_enter();
        if (rc != 0)
            return Error(rc);
        return Process(true);
    }

    /** The other does not leave Dune mode any more. */
    Process(Process&& other) noexcept : leaves_(std::exchange(other.leaves_, false)) {}
    Process& operator=(Process&&) = delete;
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    /** Back to host mode. */
    ~Process() {
        if (leaves_ && dune_in_guest())
            dune_leave();
    }

    /** The tables that all threads start with. */
    static PageTableRef tables() noexcept { return PageTableRef(pgroot); }

  private:
    explicit Process(bool leaves) noexcept : leaves_(leaves) {}

    bool leaves_;
};

/**
 * Page tables in use by the calling thread, for a scope.
 *
 * The tables have to map all that ring 0 uses: those of PageTable::clone_of(Process::tables()) do.
 * Context: ring 0.
 */
class AddressSpace {
  public:
    /** Put the tables into CR3 until the end of the scope. */
    explicit AddressSpace(const PageTable& tables) noexcept : before_(read_cr3()) {
        load_cr3(tables.cr3());
    }
    ~AddressSpace() { load_cr3(before_); }
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;

  private:
    unsigned long before_;
};

}  // namespace dune
