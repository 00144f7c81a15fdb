// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_MONITOR_SIGNALS_H
#define DUNE_APPS_SANDBOX_MONITOR_SIGNALS_H

#include "monitor/state.h"

namespace dune::sandbox {

// Takes over the dispositions (only "ignored" survives an execve) and the mask that the process
// was started with. Once, in the first thread.
void prepare_signals(Thread& thread);

// Ends the process as the signal's default action does. Context: trap.
[[noreturn]] void die_of(int signal);

}  // namespace dune::sandbox

#endif
