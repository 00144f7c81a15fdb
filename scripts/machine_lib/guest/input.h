// SPDX-License-Identifier: MIT
// The command's standard input: a pipe that is filled with what the host has.
#ifndef INPUT_H
#define INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct input {
    int pipe;           // our end, -1 when closed
    ino_t inode;        // of the pipe
    bool dry;           // the host had nothing when it was asked last,
    int64_t asked;      // at this time of the machine, in milliseconds
    unsigned interval;  // and will be asked again after so many
    size_t begin, end;  // what of pending waits for room in the pipe
    uint8_t pending[1 << 16];
};

// Takes the pipe's end that is written to. Without a channel of the host it is closed at once.
void input_open(struct input* input, int pipe);

// What to poll() the pipe for, and how long at most, in milliseconds or -1.
short input_events(const struct input* input);
int input_timeout(const struct input* input);

// To be called after each such poll(), with what it found.
void input_feed(struct input* input, short found);

void input_close(struct input* input);

#endif
