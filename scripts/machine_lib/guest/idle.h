// SPDX-License-Identifier: MIT
#ifndef IDLE_H
#define IDLE_H

// Milliseconds of the machine's time since the last call in which no CPU had anything to do, at
// least.
unsigned idle_since_last_call(void);

#endif
