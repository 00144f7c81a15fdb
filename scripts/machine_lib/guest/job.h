// SPDX-License-Identifier: MIT
#ifndef JOB_H
#define JOB_H

#include "hostio.h"

// Runs a program with its input and errors on the host's channels and its output on the given one,
// and waits for it, reaping orphans meanwhile. Returns its exit status, 128 + the signal that ended
// it, or 127 when it cannot be started.
int job_run(char* const argv[], enum hostio_channel output);

// Runs a program on the console and waits for it. Returns its status as job_run does.
int job_run_on_console(char* const argv[]);

#endif
