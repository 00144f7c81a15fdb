// SPDX-License-Identifier: MIT
//
// The parts of the monitor. Each takes a call that the policy allows and whose descriptors and
// plain pointers have been checked, and returns its result or a negative errno. Context: trap.

#ifndef DUNE_APPS_SANDBOX_MONITOR_DISPATCH_H
#define DUNE_APPS_SANDBOX_MONITOR_DISPATCH_H

#include "monitor/state.h"

namespace dune::sandbox {

// One system call of ring 3.
struct Call {
    Thread& thread;
    Frame& frame;
    unsigned number;
    uint64_t args[6];
};

long do_path(Call& call);         // files.cc
long do_descriptors(Call& call);  // descriptors.cc
long do_memory(Call& call);       // memory.cc
long do_vectors(Call& call);      // vectors.cc
long do_signals(Call& call);      // signals.cc
long do_process(Call& call);      // process.cc
long do_net(Call& call);          // net.cc
long do_misc(Call& call);         // misc.cc

// Makes the plan of each system call from process.policy. Once, before the first call.
void prepare_dispatch();

// A result that says: the handler has set the frame itself (rt_sigreturn).
constexpr long kFrameIsSet = -100000;

// The call as it is, with the arguments of `call`; may block, may be interrupted.
inline long pass(const Call& call) {
    return engine::blocking_call(call.number, call.args);
}

// True if a call ended by a signal is done again after the handler, given SA_RESTART: those that
// end with ERESTARTSYS in Linux (signal(7)).
bool restarts_after_signal(unsigned number, const uint64_t args[6]);

// Says on the log, once for each thing, that a call was refused and why.
void report_denied(Thread& thread, unsigned number, std::string_view object, std::string_view why,
                   int error);
// One line of the log of calls.
void trace_call(Thread& thread, const Call& call, long result);

// Adds this process' VM exits to the statistics, if somebody wants to see them: it is about to end.
void count_vm_exits();

// The result of a path that the policy keeps from the program, reported.
long refuse_path(Call& call, std::string_view path, std::string_view why);

}  // namespace dune::sandbox

#endif
