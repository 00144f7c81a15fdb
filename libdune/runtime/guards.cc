// SPDX-License-Identifier: MIT
// dune/trap.h: what its guards exchange.
#include "dune/trap.h"

#include "layout.h"
#include "trap.h"

extern "C" {
extern dune::rt::TrapHandler dune_intr_handlers[DUNE_NR_VECTORS];
extern dune_syscall_cb dune_syscall_handler;
}

namespace dune {

SavedHandler exchange_handler(unsigned vector, dune_intr_cb handler) noexcept {
    if (vector >= DUNE_NR_VECTORS)
        return nullptr;
    const auto before = reinterpret_cast<SavedHandler>(dune_intr_handlers[vector]);
    dune_register_intr_handler(static_cast<int>(vector), handler);
    return before;
}

void restore_handler(unsigned vector, SavedHandler handler) noexcept {
    if (vector < DUNE_NR_VECTORS && handler != nullptr)
        rt::set_trap_handler(vector, reinterpret_cast<rt::TrapHandler>(handler));
}

dune_pgflt_cb exchange_page_fault_handler(dune_pgflt_cb handler) noexcept {
    const dune_pgflt_cb before = rt::page_fault_handler();
    dune_register_pgflt_handler(handler);
    return before;
}

dune_syscall_cb exchange_syscall_handler(dune_syscall_cb handler) noexcept {
    const dune_syscall_cb before = dune_syscall_handler;
    dune_register_syscall_handler(handler);
    return before;
}

}  // namespace dune
