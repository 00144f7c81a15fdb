// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_LAUNCH_H
#define DUNE_APPS_SANDBOX_LAUNCH_H

namespace dune::sandbox {

// Starts what the command line says. Returns an exit status if that failed.
int launch(int argc, char** argv);

// Goes on with an execve of a sandboxed program; the reserved descriptors begin at fd_base.
int resume(int fd_base);

}  // namespace dune::sandbox

#endif
