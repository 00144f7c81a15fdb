// SPDX-License-Identifier: MIT
/** @file What the machine code of a page-fault handler shows that it does not need. */
#pragma once

#include <cstdint>

namespace dune::rt {

/** What a trap has to save for its handler. Each level has all of the one before. */
enum class HandlerNeeds : std::uint8_t {
    Scratch,  ///< the registers that a function may change; there is no frame to look at
    Frame,    ///< a struct dune_tf
    Vectors,  ///< the vector registers, too
};

/**
 * Follow the code of a handler (void (*)(addr, fec, dune_tf *)) and of what it calls, as the CPU
 * might.
 *
 * It needs less than Vectors only if all of the code is known and names general registers alone:
 * no vector or x87 instruction, no call by a pointer that may change; and Scratch only if nothing
 * of it reads RDX, where the frame's address is, or names a register that a function has to
 * preserve. Of libdune, dune_vm_mprotect() may be called, which keeps the vector registers.
 *
 * Who changes the code later, other than by a breakpoint, registers the handler anew.
 * Context: host mode, ring 0, trap. Takes the dynamic linker's lock where the handler calls through
 * its tables.
 */
HandlerNeeds scan_handler(const void* handler) noexcept;

}  // namespace dune::rt
