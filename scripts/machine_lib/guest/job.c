// SPDX-License-Identifier: MIT
// Running the command: its three standard streams are pipes that are relayed to the host as they
// fill.
#define _GNU_SOURCE
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "input.h"

enum { CHUNK = 1 << 16 };

struct job {
    pid_t pid;
    int status;
    bool ended;
    int out, err;  // our ends of the pipes, -1 when closed
    int signals;
    enum hostio_channel output;
    struct input input;
};

static void close_end(int* fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void reap(struct job* job) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != job->pid)
            continue;
        job->ended = true;
        job->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

// Moves what is there to the host. False when nothing was.
static bool relay(int* fd, enum hostio_channel channel) {
    uint8_t data[CHUNK];
    if (*fd < 0)
        return false;
    ssize_t n = read(*fd, data, sizeof(data));
    if (n < 0)
        return false;
    if (n == 0) {
        close_end(fd);
        return false;
    }
    if (hostio_write(channel, data, (size_t)n) < 0) {
        close_end(fd);  // as if the command itself had the host's file
        hostio_event("lost %d", channel);
        return false;
    }
    return true;
}

static void relay_until_end(struct job* job) {
    while (!job->ended) {
        struct pollfd polls[4] = {{job->out, POLLIN, 0},
                                  {job->err, POLLIN, 0},
                                  {job->signals, POLLIN, 0},
                                  {job->input.pipe, input_events(&job->input), 0}};
        if (poll(polls, 4, input_timeout(&job->input)) < 0)
            continue;
        if (polls[0].revents)
            relay(&job->out, job->output);
        if (polls[1].revents)
            relay(&job->err, HOSTIO_STDERR);
        input_feed(&job->input, polls[3].revents);
        if (polls[2].revents) {
            struct signalfd_siginfo info;
            if (read(job->signals, &info, sizeof(info)) > 0)
                reap(job);
        }
    }
    // What the program wrote is all in the pipes now; a daemon that it left behind may hold them
    // open for ever.
    while (relay(&job->out, job->output))
        continue;
    while (relay(&job->err, HOSTIO_STDERR))
        continue;
}

static void exec_child(char* const argv[], const sigset_t* mask) {
    sigprocmask(SIG_SETMASK, mask, NULL);
    signal(SIGPIPE, SIG_DFL);
    // The port access of the first process is not the command's: it would also cost it 50
    // instructions at each return from the kernel (TIF_IO_BITMAP).
    (void)iopl(0);
    execvp(argv[0], argv);
    _exit(errno == ENOENT ? 127 : 126);
}

int job_run(char* const argv[], enum hostio_channel output) {
    static struct job job;
    int in[2], out[2], err[2];
    sigset_t child, old;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &old);
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return 127;
    job = (struct job){.out = out[0], .err = err[0], .output = output};
    job.signals = signalfd(-1, &child, SFD_CLOEXEC);
    job.pid = fork();
    if (job.pid < 0)
        return 127;
    if (job.pid == 0) {
        setsid();
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        exec_child(argv, &old);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    input_open(&job.input, in[1]);
    if (output != HOSTIO_STDOUT)
        input_close(&job.input);  // it is the command's
    fcntl(job.out, F_SETFL, O_NONBLOCK);
    fcntl(job.err, F_SETFL, O_NONBLOCK);
    relay_until_end(&job);
    input_close(&job.input);
    close_end(&job.out);
    close_end(&job.err);
    close(job.signals);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return job.status;
}

int job_run_on_console(char* const argv[]) {
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    pid_t pid = fork();
    if (pid < 0)
        return 127;
    if (pid == 0)
        exec_child(argv, &mask);
    int status;
    for (;;) {
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == pid)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (ended < 0 && errno != EINTR)
            return 127;
    }
}
