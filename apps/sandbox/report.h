// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_REPORT_H
#define DUNE_APPS_SANDBOX_REPORT_H

namespace dune::sandbox {

// For --stats: forks. The child returns -1 and runs the program; the parent waits for it, reports
// the counts on the log, and returns the status to exit with (it dies of the child's signal
// itself).
int follow_child();

}  // namespace dune::sandbox

#endif
