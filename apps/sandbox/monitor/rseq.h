// SPDX-License-Identifier: MIT
//
// Restartable sequences (rseq(2)) of the program, without Linux: it would hold the program's
// critical section against the runtime's own instruction pointer in host mode. Here the monitor
// does what Linux does, with the instruction pointer of ring 3, whenever the thread may have been
// off its CPU.

#ifndef DUNE_APPS_SANDBOX_MONITOR_RSEQ_H
#define DUNE_APPS_SANDBOX_MONITOR_RSEQ_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

long do_rseq(Call& call);
long do_membarrier(Call& call);

// If ring 3 is in its critical section, makes it enter the abort handler: the thread was off its
// CPU, or a signal's handler comes. The process dies of a section that is malformed. Context: trap.
void leave_critical_section(Thread& thread, Frame& frame);

// As in a new thread. Context: trap.
void drop_rseq(Thread& thread);

}  // namespace dune::sandbox

#endif
