// SPDX-License-Identifier: MIT
#include "idle.h"

#include <stdio.h>
#include <unistd.h>

unsigned idle_since_last_call(void) {
    static long up_before, idle_before;
    long up, up_cs, idle, idle_cs;
    FILE* file = fopen("/proc/uptime", "re");
    if (file == NULL)
        return 0;
    int fields = fscanf(file, "%ld.%ld %ld.%ld", &up, &up_cs, &idle, &idle_cs);
    fclose(file);
    if (fields != 4)
        return 0;
    up = 100 * up + up_cs;
    idle = 100 * idle + idle_cs;
    // The second is the sum over the CPUs: what all others may have of it is not of all together.
    long others = sysconf(_SC_NPROCESSORS_ONLN) - 1;
    long together = idle - idle_before - others * (up - up_before);
    up_before = up;
    idle_before = idle;
    return together > 0 ? 10 * (unsigned)together : 0;
}
