// SPDX-License-Identifier: MIT
//
// Files of /proc that tell where a process' memory is, without what is the runtime's: maps, smaps,
// numa_maps and stat; and with what it was started: cmdline, environ and auxv. The program gets a
// copy, made when it opens the file.
//
// That the copy is made from a descriptor which other threads could read for a moment is no matter:
// where the runtime is need not be a secret (see layout.h), but programs rely on what they read
// there, as on the start of the stack.

#ifndef DUNE_APPS_SANDBOX_MONITOR_PROC_VIEW_H
#define DUNE_APPS_SANDBOX_MONITOR_PROC_VIEW_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

enum class ProcView {
    None,   // as Linux has it
    Maps,   // lines, each about what begins at its first number
    Smaps,  // the same with further lines about each
    Stat,   // one line with addresses among its fields
    Start,  // cmdline, environ, auxv: of the program, not of the runtime
};

// What a canonical path shows.
ProcView proc_view(std::string_view canonical);

// open(2) for reading. Descriptor or negative errno. Context: trap.
long open_proc_view(Thread& thread, PathBuffer& path, ProcView view, uint64_t flags);

}  // namespace dune::sandbox

#endif
