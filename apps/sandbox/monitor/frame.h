// SPDX-License-Identifier: MIT
//
// The registers of ring 3 at a trap.

#ifndef DUNE_APPS_SANDBOX_MONITOR_FRAME_H
#define DUNE_APPS_SANDBOX_MONITOR_FRAME_H

#include <cstdint>

namespace dune::sandbox {

// In the order of struct dune_tf, which the Dune engine hands on as it is.
struct Frame {
    uint64_t rdi, rsi, rdx, rcx, r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15, rax;
    uint64_t err, rip, cs, rflags, rsp, ss;

    // The arguments of a system call.
    uint64_t arg(unsigned i) const {
        switch (i) {
            case 0:
                return rdi;
            case 1:
                return rsi;
            case 2:
                return rdx;
            case 3:
                return r10;
            case 4:
                return r8;
            default:
                return r9;
        }
    }
};

}  // namespace dune::sandbox

#endif
