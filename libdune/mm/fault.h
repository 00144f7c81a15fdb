// SPDX-License-Identifier: MIT
/**
 * @file
 * Page faults that the tables themselves explain.
 */
#pragma once

#include <cstdint>

#include "libdune/mmu.h"

namespace dune::mm {

/**
 * Resolve a fault: give a copy-on-write page its copy.
 *
 * Context: the page-fault handler, any thread; also host mode, for a root that is not in use.
 * @param root the tables with which the fault happened
 * @return 0 if the access can be repeated (also because somebody else resolved it);
 *         -EFAULT if the tables forbid it for good; -ENOMEM
 */
int resolve_fault(ptent_t* root, std::uintptr_t addr, std::uint64_t fec) noexcept;

}  // namespace dune::mm
