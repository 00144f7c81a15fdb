// SPDX-License-Identifier: MIT
//
// The frame that a signal puts on the program's stack, as Linux makes it for 64-bit programs
// (arch/x86/include/uapi/asm/sigcontext.h): handlers find and change the interrupted state in it.

#ifndef DUNE_APPS_SANDBOX_MONITOR_SIGFRAME_H
#define DUNE_APPS_SANDBOX_MONITOR_SIGFRAME_H

#include "monitor/state.h"

namespace dune::sandbox {

// What the handler is to find beside the registers.
struct SignalContext {
    const SignalAction& action;
    const siginfo_t& info;
    uint64_t mask;  // to be put back by rt_sigreturn
    uint64_t trap = 0, error = 0, address = 0;
};

// Puts the frame on the program's stack and makes `frame` enter the handler. False, and nothing
// changed, if the stack cannot be written.
bool push_signal_frame(Thread& thread, Frame& frame, const SignalContext& context);

// rt_sigreturn: takes `frame`, the vector registers, the alternate stack and *mask from the frame
// on the program's stack. False if it cannot be read or is not one.
bool pop_signal_frame(Thread& thread, Frame& frame, uint64_t* mask);

// sigaltstack(2). Context: trap.
long do_sigaltstack(Thread& thread, const Frame& frame, uint64_t from, uint64_t to);

// True if the program is on its alternate stack.
bool on_altstack(const Thread& thread, uint64_t rsp);

}  // namespace dune::sandbox

#endif
