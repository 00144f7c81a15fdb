// SPDX-License-Identifier: MIT
#ifndef TERMINAL_H
#define TERMINAL_H

// Runs a program on a terminal of its own that is relayed to the host, and waits for it. size is
// "ROWS COLUMNS". Returns its status as job_run() does.
int terminal_run(char* const argv[], const char* size);

#endif
