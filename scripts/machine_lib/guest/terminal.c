// SPDX-License-Identifier: MIT
// An interactive command: a pseudo-terminal whose other end is the user's terminal on the host.
#define _GNU_SOURCE
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostio.h"
#include "idle.h"

// The host cannot interrupt the machine, so what was typed is asked for this often.
enum { INTERVAL_MS = 20, IDLE_WAIT_MS = 10 };

static int open_terminal(const char* size) {
    struct winsize window = {.ws_row = 24, .ws_col = 80};
    sscanf(size, "%hu %hu", &window.ws_row, &window.ws_col);
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        return -1;
    ioctl(master, TIOCSWINSZ, &window);
    return master;
}

static void exec_on(int master, char* const argv[]) {
    setsid();
    int slave = open(ptsname(master), O_RDWR);
    ioctl(slave, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(slave, i);
    if (slave > 2)
        close(slave);
    (void)iopl(0);  // see job.c
    execvp(argv[0], argv);
    _exit(127);
}

// Moves what the program wrote to the host. False when its side is closed.
static bool show(int master) {
    char data[4096];
    ssize_t n = read(master, data, sizeof(data));
    if (n > 0)
        hostio_write(HOSTIO_STDOUT, data, (size_t)n);
    return n > 0 || (n < 0 && errno == EINTR);
}

// Moves what was typed to the program. An idle machine waits a little, so that the emulator does
// not spin through empty time.
static void type(int master, bool idle) {
    char data[4096];
    if (!hostio_wait(HOSTIO_STDIN, idle ? IDLE_WAIT_MS : 0))
        return;
    ssize_t n = hostio_read(HOSTIO_STDIN, data, sizeof(data));
    if (n == 0) {
        data[0] = 4;  // the end of the input is typed as Ctrl-D
        n = 1;
    }
    if (n > 0 && write(master, data, (size_t)n) < 0)
        perror("machine: terminal");
}

int terminal_run(char* const argv[], const char* size) {
    int master = open_terminal(size);
    pid_t pid = master < 0 ? -1 : fork();
    if (pid < 0)
        return 127;
    if (pid == 0)
        exec_on(master, argv);
    int status;
    for (;;) {
        struct pollfd output = {master, POLLIN, 0};
        if (poll(&output, 1, INTERVAL_MS) > 0 && (output.revents & POLLIN) && show(master))
            continue;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0 && ended != pid)
            continue;
        if (ended == pid)
            break;
        type(master, idle_since_last_call() > 0);
    }
    while (poll(&(struct pollfd){master, POLLIN, 0}, 1, 0) > 0 && show(master))
        continue;
    close(master);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
