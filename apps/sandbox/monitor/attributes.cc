// SPDX-License-Identifier: MIT
//
// Calls that change an attribute (mode, owner, times, extended attributes) of what a descriptor has
// open. Linux asks who the file belongs to, and not for what it was opened: to be allowed to read a
// file would be enough. So the policy is asked for the path that the descriptor has now.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "monitor/path_calls.h"
#include "monitor/paths.h"

namespace dune::sandbox {

namespace {

// 0 if the policy lets the program change what `fd`, or AT_FDCWD, stands for. process.fd_lock is
// held.
long may_change(Call& call, int fd) {
    char name[32] = "/proc/self/cwd";
    if (fd != AT_FDCWD) {
        const long flags = host_call(SYS_fcntl, fd, F_GETFL);
        if (is_error(flags)) {
            return flags;
        }
        // What it was opened for has been asked then; a directory and O_PATH are open for reading.
        if ((flags & O_PATH) == 0 && (flags & O_ACCMODE) != O_RDONLY) {
            return 0;
        }
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    }
    const long n =
        host_call(SYS_readlinkat, AT_FDCWD, name, call.thread.link, sizeof(call.thread.link));
    if (is_error(n)) {
        return n;
    }
    const std::string_view path(call.thread.link, static_cast<size_t>(n));
    return is_nameless(path) || access_of(path) == Access::Write
               ? 0
               : refuse_path(call, path, "may not be written");
}

}  // namespace

long change_descriptor(Call& call) {
    const uint64_t* a = call.args;
    LockGuard guard(process.fd_lock);
    if (const long error = may_change(call, static_cast<int>(a[0]))) {
        return error;
    }
    // The program's own path, if it gave one, may no longer be empty.
    return call.number == SYS_fchownat
               ? host_call(SYS_fchownat, a[0], "", a[2], a[3], a[4])
               : host_call6(call.number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // namespace dune::sandbox
