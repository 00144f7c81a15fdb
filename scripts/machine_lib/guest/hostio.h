// SPDX-License-Identifier: MIT
// The machine's way to its host: byte channels, an exit status and the saving of its state.
#ifndef HOSTIO_H
#define HOSTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Channel numbers, agreed with machine_lib/channels.py.
enum hostio_channel {
    HOSTIO_PAYLOAD = 10,     // in: cpio archive of what this run needs
    HOSTIO_STDOUT = 11,      // out: the command's standard output
    HOSTIO_STDERR = 12,      // out: the command's standard error
    HOSTIO_RESULTS = 13,     // out: tar archive of what was asked for by --copy-out
    HOSTIO_CONTROL = 14,     // out: one line per event
    HOSTIO_STDIN = 15,       // in: the command's standard input
    HOSTIO_KERNEL_LOG = 16,  // out: the kernel's log
};

// A read of so much at most does not block after hostio_wait() was true.
enum { HOSTIO_PAGE = 4096 };

// Opens the way to the host. Returns 0, or -1 with errno.
int hostio_open(void);

// True when the host gave the machine this channel.
bool hostio_has(enum hostio_channel channel);

// Bytes read (0 at the end), or -1. A read may be short.
ssize_t hostio_read(enum hostio_channel channel, void* data, size_t size);

// Waits up to the given milliseconds of the host's time. False when nothing came to be read.
bool hostio_wait(enum hostio_channel channel, unsigned milliseconds);

// Writes all of it. Returns 0 or -1.
int hostio_write(enum hostio_channel channel, const void* data, size_t size);

// Formats one line into the control channel.
void hostio_event(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Has the emulator save the state and leave; returns in each machine started from that state, and
// at once where no state can be saved.
void hostio_save_state(void);

// Powers the machine off.
void hostio_exit(void) __attribute__((noreturn));

#endif
