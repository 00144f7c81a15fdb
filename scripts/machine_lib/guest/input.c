// SPDX-License-Identifier: MIT
// The host cannot interrupt the machine: while it has nothing, it is asked again and again. A
// machine in which all wait for input must let the host's time pass then, or the emulator would
// spin through empty time; one in which somebody sleeps must not, or sleeping would take time.
#define _GNU_SOURCE
#include "input.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hostio.h"
#include "idle.h"

// How often the host is asked: often while somebody waits, else ever less.
enum { SHORT_MS = 50, LONG_MS = 400 };

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

void input_open(struct input* input, int pipe) {
    struct stat status = {0};
    fstat(pipe, &status);
    fcntl(pipe, F_SETFL, O_NONBLOCK);
    input->pipe = pipe;
    input->inode = status.st_ino;
    input->dry = false;
    input->interval = SHORT_MS;
    input->begin = input->end = 0;
    if (!hostio_has(HOSTIO_STDIN))
        input_close(input);
}

void input_close(struct input* input) {
    if (input->pipe >= 0)
        close(input->pipe);
    input->pipe = -1;
}

static bool asks(const struct input* input) {
    return input->pipe >= 0 && input->dry;
}

short input_events(const struct input* input) {
    return asks(input) ? 0 : POLLOUT;  // that nobody reads any more is told in any case
}

int input_timeout(const struct input* input) {
    if (!asks(input))
        return -1;
    int64_t rest = input->asked + input->interval - now();
    return rest > 0 ? (int)rest : 0;
}

static char pipe_link[64];

// True when a process has the pipe open.
static bool has_pipe(long pid) {
    char path[64], link[64];
    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    DIR* directory = opendir(path);
    bool found = false;
    if (directory == NULL)
        return false;
    for (struct dirent* entry; !found && (entry = readdir(directory)) != NULL;) {
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = 0;
        found = strcmp(link, pipe_link) == 0;
    }
    closedir(directory);
    return found;
}

// What a file of a thread's says.
static const char* thread_file(long pid, long thread, const char* name, char* text, size_t size) {
    char path[96];
    snprintf(path, sizeof(path), "/proc/%ld/task/%ld/%s", pid, thread, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

// True for a thread that sleeps in the kernel's read or poll functions.
static bool is_reading(long pid, long thread) {
    static const char* const functions[] = {"pipe_read", "pipe_wait_readable", "poll", "select"};
    char text[64];
    thread_file(pid, thread, "wchan", text, sizeof(text));
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (strstr(text, functions[i]) != NULL)
            return true;
    return false;
}

static bool descendant_waits(long pid, bool self);

static bool child_waits(long pid, long thread) {
    char text[4096], *rest = text;
    thread_file(pid, thread, "children", text, sizeof(text));
    for (;;) {
        char* end;
        long child = strtol(rest, &end, 10);
        if (end == rest)
            return false;
        if (descendant_waits(child, true))
            return true;
        rest = end;
    }
}

// True when one of a process's descendants, or itself, has the pipe and waits for input.
static bool descendant_waits(long pid, bool self) {
    char path[64];
    bool found = false, reader = self && has_pipe(pid);
    snprintf(path, sizeof(path), "/proc/%ld/task", pid);
    DIR* directory = opendir(path);
    if (directory == NULL)
        return false;
    for (struct dirent* entry; !found && (entry = readdir(directory)) != NULL;) {
        long thread = strtol(entry->d_name, NULL, 10);
        if (thread > 0)
            found = (reader && is_reading(pid, thread)) || child_waits(pid, thread);
    }
    closedir(directory);
    return found;
}

static bool is_wanted(const struct input* input) {
    snprintf(pipe_link, sizeof(pipe_link), "pipe:[%lu]", (unsigned long)input->inode);
    return descendant_waits(getpid(), false);
}

// How long the host may be waited for: as long as the machine has just been idle. Decides when it
// is asked next.
static unsigned patience(struct input* input) {
    unsigned idle = idle_since_last_call(), limit = input->interval;
    bool wanted = input->dry && idle > 0 && is_wanted(input);
    input->interval = !input->dry || wanted ? SHORT_MS : 2 * limit < LONG_MS ? 2 * limit : LONG_MS;
    if (!wanted)
        return 0;
    return idle < limit ? idle : limit;
}

// Takes what the host has. A page at a time, for more might not be there and block the emulator.
static void take(struct input* input) {
    unsigned wait = patience(input);
    input->begin = input->end = 0;
    while (input->end + HOSTIO_PAGE <= sizeof(input->pending) && hostio_wait(HOSTIO_STDIN, wait)) {
        ssize_t n = hostio_read(HOSTIO_STDIN, input->pending + input->end, HOSTIO_PAGE);
        if (n <= 0 && input->end == 0)
            input_close(input);
        if (n <= 0)
            break;
        input->end += (size_t)n;
        wait = 0;
    }
    input->dry = input->end == 0;
    input->asked = now();
}

void input_feed(struct input* input, short found) {
    if (input->pipe >= 0 && (found & POLLERR))
        input_close(input);
    if (input->pipe >= 0 && input->begin == input->end &&
        (input->dry ? input_timeout(input) == 0 : found & POLLOUT))
        take(input);
    if (input->pipe < 0 || input->begin == input->end)
        return;
    ssize_t n = write(input->pipe, input->pending + input->begin, input->end - input->begin);
    if (n > 0)
        input->begin += (size_t)n;
    else if (errno != EAGAIN)
        input_close(input);
}
