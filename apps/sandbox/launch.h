// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_LAUNCH_H
#define DUNE_APPS_SANDBOX_LAUNCH_H

namespace dune::sandbox {

// Huge pages have been switched off for the start and are to be on again for the program.
extern bool huge_pages_were_on;

// Starts what the command line says. Returns an exit status if that failed.
int launch(int argc, char** argv);

// Goes on with an execve of a sandboxed program; the reserved descriptors begin at fd_base.
int resume(int fd_base);

}  // namespace dune::sandbox

#endif
