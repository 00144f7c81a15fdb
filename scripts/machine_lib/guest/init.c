// SPDX-License-Identifier: MIT
// First process of the test machine. It sets the system up, lets its state be saved, and then, in
// every machine started from that state: takes the payload, runs /run/machine/before, the command
// and /run/machine/after, and reports the command's status and the kernel's log.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpio.h"
#include "hostio.h"
#include "job.h"
#include "terminal.h"

static void mount_at(const char* path, const char* type, const char* options) {
    mkdir(path, 0755);
    if (mount(type, path, type, 0, options) < 0 && errno != EBUSY)
        fprintf(stderr, "machine: cannot mount %s: %s\n", path, strerror(errno));
}

// What QEMU's machines are given is there before anything is mounted, and may lie in /tmp.
static void mount_tmp(void) {
    if (rmdir("/tmp") < 0 && errno == ENOTEMPTY) {
        chmod("/tmp", 01777);
        if (mount("/tmp", "/tmp", NULL, MS_BIND, NULL) < 0)  // for change_root()
            fprintf(stderr, "machine: cannot bind /tmp: %s\n", strerror(errno));
    } else {
        mount_at("/tmp", "tmpfs", "mode=1777");
    }
}

static void mount_all(void) {
    mount_at("/dev", "devtmpfs", NULL);
    mount_at("/proc", "proc", NULL);
    mount_at("/sys", "sysfs", NULL);
    mount_at("/dev/pts", "devpts", "mode=620,gid=5,ptmxmode=666");
    mount_at("/dev/shm", "tmpfs", "mode=1777");
    mount_tmp();
    symlink("/proc/self/fd", "/dev/fd");
    symlink("/proc/self/fd/0", "/dev/stdin");
    symlink("/proc/self/fd/1", "/dev/stdout");
    symlink("/proc/self/fd/2", "/dev/stderr");
}

// Goes over to the root file system that the setup has mounted, if there is one: the kernel's own
// is only where the machine starts from. What is mounted comes along.
static void change_root(void) {
    static const char* const root = "/machine/root";
    static const char* const mounts[] = {"/dev", "/proc", "/sys", "/tmp"};
    if (access("/machine/root/init", F_OK) < 0)
        return;
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        char to[64];
        snprintf(to, sizeof(to), "%s%s", root, mounts[i]);
        if (mount(mounts[i], to, NULL, MS_MOVE, NULL) < 0)
            fprintf(stderr, "machine: cannot move %s: %s\n", mounts[i], strerror(errno));
    }
    if (chdir(root) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        fprintf(stderr, "machine: cannot change to the disk: %s\n", strerror(errno));
}

static void open_console(void) {
    int fd = open("/dev/console", O_RDWR);
    if (fd < 0)
        return;
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static void loopback_up(void) {
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    strcpy(request.ifr_name, "lo");
    if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP | IFF_RUNNING;
        ioctl(fd, SIOCSIFFLAGS, &request);
    }
    close(fd);
}

// Runs a script of the root file system or the payload, if it is there.
static int run_script(const char* path) {
    if (access(path, F_OK) < 0)
        return 0;
    char* argv[] = {"/bin/sh", (char*)path, NULL};
    return job_run_on_console(argv);
}

static void mark_log(const char* text) {
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    // Not dprintf(): it seeks first, which /dev/kmsg refuses.
    char line[128];
    int size = snprintf(line, sizeof(line), "<6>machine: %s\n", text);
    if (write(fd, line, (size_t)size) != size)
        perror("/dev/kmsg");
    close(fd);
}

static void send_kernel_log(void) {
    enum { SYSLOG_READ_ALL = 3, SYSLOG_SIZE = 10 };
    int size = klogctl(SYSLOG_SIZE, NULL, 0);
    char* text = size > 0 ? malloc((size_t)size) : NULL;
    if (text == NULL)
        return;
    int n = klogctl(SYSLOG_READ_ALL, text, size);
    if (n > 0 && hostio_write(HOSTIO_KERNEL_LOG, text, (size_t)n) < 0)
        hostio_event("lost %d", HOSTIO_KERNEL_LOG);
    free(text);
}

static void set_environment(void) {
    clearenv();
    setenv("PATH", "/opt/dune/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
    setenv("USER", "root", 1);
    setenv("TERM", "linux", 1);
    setenv("LD_LIBRARY_PATH", "/opt/dune/lib", 1);
}

// The size of the user's terminal. False when the command is not to have one.
static bool read_terminal_size(char* size, size_t capacity) {
    FILE* file = fopen("/run/machine/terminal", "re");
    if (file == NULL)
        return false;
    bool good = fgets(size, (int)capacity, file) != NULL;
    fclose(file);
    return good;
}

static void run_payload(void) {
    hostio_event("up");
    // Without ports the payload has come with the initial RAM file system.
    if (hostio_has(HOSTIO_PAYLOAD) && cpio_extract(HOSTIO_PAYLOAD) < 0) {
        hostio_event("error payload");
        return;
    }
    mark_log("run begins");
    int status = run_script("/run/machine/before");
    if (status != 0) {
        hostio_event("error before %d", status);
    } else {
        hostio_event("started");
        char* argv[] = {"/bin/sh", "/run/machine/command", NULL};
        char size[32] = "";
        status = read_terminal_size(size, sizeof(size)) ? terminal_run(argv, size)
                                                        : job_run(argv, HOSTIO_STDOUT);
        hostio_event("status %d", status);
        char* results[] = {"/bin/sh", "/run/machine/results", NULL};
        if (access(results[1], F_OK) == 0)
            job_run(results, HOSTIO_RESULTS);
    }
    status = run_script("/run/machine/after");
    if (status != 0)
        hostio_event("error after %d", status);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    mount_all();
    open_console();
    loopback_up();
    sethostname("machine", 7);
    run_script("/etc/machine/setup");  // before the environment is cleared: it sees the command
                                       // line's words
    change_root();
    if (hostio_open() < 0)
        fprintf(stderr, "machine: no way to the host: %s\n", strerror(errno));
    hostio_save_state();
    set_environment();
    run_payload();
    send_kernel_log();
    hostio_event("end");
    hostio_exit();
}
