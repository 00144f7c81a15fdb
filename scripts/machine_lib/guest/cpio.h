// SPDX-License-Identifier: MIT
#ifndef CPIO_H
#define CPIO_H

#include "hostio.h"

// Unpacks a "newc" cpio archive from a channel below "/". Returns 0, or -1 after saying on standard
// error what failed.
int cpio_extract(enum hostio_channel channel);

#endif
