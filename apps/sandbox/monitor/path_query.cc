// SPDX-License-Identifier: MIT
//
// Calls that tell about a file without opening it. Where the policy lets the program read "/", they
// go to the kernel as they are: names and attributes are no secret there. Under a policy that hides
// the rest of the files, they need access as an open does, or must be on the way to what may be
// read.

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>

#include "monitor/path_calls.h"
#include "monitor/paths.h"

namespace dune::sandbox {

namespace {

// The arguments in the form of the *at call.
struct Query {
    int dirfd = AT_FDCWD;
    uint64_t path = 0;
    uint64_t flags = 0;  // AT_*
};

Query query_of(const Call& call) {
    const uint64_t* a = call.args;
    const int fd = static_cast<int>(a[0]);
    switch (call.number) {
        case SYS_lstat:
        case SYS_readlink:
        case SYS_lgetxattr:
        case SYS_llistxattr:
            return {AT_FDCWD, a[0], AT_SYMLINK_NOFOLLOW};
        case SYS_newfstatat:
        case SYS_faccessat2:
            return {fd, a[1], a[3]};
        case SYS_statx:
            return {fd, a[1], a[2]};
        case SYS_faccessat:
            return {fd, a[1], 0};
        case SYS_readlinkat:
            return {fd, a[1], AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH};
        default:
            return {AT_FDCWD, a[0], 0};
    }
}

// readlink of the program's own executable, of which the kernel knows only the runtime's.
long answer_exe(const Call& call) {
    const bool at = call.number == SYS_readlinkat;
    const uint64_t buffer = call.args[at ? 2 : 1];
    const uint64_t size = call.args[at ? 3 : 2];
    if (static_cast<int64_t>(size) <= 0) {
        return -EINVAL;
    }
    const size_t n = std::min<size_t>(size, process.exe.length);
    return engine::copy_out(buffer, process.exe.text, n) ? static_cast<long>(n) : -EFAULT;
}

// True if `path`, canonical but for its last part, is a name of the program's executable in /proc.
bool is_own_exe(std::string_view path) {
    if (!path.starts_with("/proc/") || !path.ends_with("/exe")) {
        return false;
    }
    const std::string_view who = path.substr(6, path.size() - 10);
    if (who == "self" || who == "thread-self") {
        return true;
    }
    long pid = 0;
    for (const char c : who) {
        if (c < '0' || c > '9' || pid > 1 << 28) {
            return false;
        }
        pid = pid * 10 + (c - '0');
    }
    return pid == process.pid;
}

// The call on a file that is open as an O_PATH descriptor.
long on_descriptor(const Call& call, const Query& query, long fd) {
    const uint64_t* a = call.args;
    switch (call.number) {
        case SYS_stat:
        case SYS_lstat:
            return host_call(SYS_newfstatat, fd, "", a[1], AT_EMPTY_PATH);
        case SYS_newfstatat:
            return host_call(SYS_newfstatat, fd, "", a[2], query.flags | AT_EMPTY_PATH);
        case SYS_statx:
            return host_call(SYS_statx, fd, "", query.flags | AT_EMPTY_PATH, a[3], a[4]);
        case SYS_access:
            return host_call(SYS_faccessat2, fd, "", a[1], AT_EMPTY_PATH);
        case SYS_faccessat:
        case SYS_faccessat2:
            return host_call(SYS_faccessat2, fd, "", a[2], query.flags | AT_EMPTY_PATH);
        case SYS_readlink:
            return host_call(SYS_readlinkat, fd, "", a[1], a[2]);
        case SYS_readlinkat:
            return host_call(SYS_readlinkat, fd, "", a[2], a[3]);
        case SYS_statfs:
            return host_call(SYS_fstatfs, fd, a[1]);
        default:
            return -EOPNOTSUPP;  // extended attributes need a file that is open
    }
}

long strict(Call& call, const Query& query) {
    PathBuffer& path = call.thread.path[0];
    const bool follow = (query.flags & AT_SYMLINK_NOFOLLOW) == 0;
    if (const long error = resolve(call.thread, query.dirfd, query.path, follow, path)) {
        return error;
    }
    if (!follow && is_own_exe(path.view()) &&
        (call.number == SYS_readlink || call.number == SYS_readlinkat)) {
        return answer_exe(call);
    }
    if (access_of(path.view()) == Access::Hidden &&
        !process.policy->leads_to_granted(path.view())) {
        return refuse_path(call, path.view(), "hidden by the policy");
    }
    LockGuard guard(process.fd_lock);
    const long fd = open_canonical(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (is_error(fd)) {
        return fd;
    }
    const long result = on_descriptor(call, query, fd);
    host_call(SYS_close, fd);
    return result;
}

}  // namespace

bool is_empty_path(uint64_t user_path) {
    char first;
    return user_path == 0 || (engine::copy_in(&first, user_path, 1) && first == 0);
}

long query_path(Call& call) {
    const Query query = query_of(call);
    if (is_reserved(static_cast<unsigned>(query.dirfd))) {
        return -EBADF;
    }
    // fstat and the like in their *at form: about a descriptor that the program has.
    if ((query.flags & AT_EMPTY_PATH) != 0 && is_empty_path(query.path)) {
        Call own = call;
        if (query.path != 0) {
            own.args[1] = reinterpret_cast<uint64_t>("");
        }
        return pass(own);
    }
    if (process.policy->strict_metadata) {
        return strict(call, query);
    }
    if (call.number == SYS_readlink || call.number == SYS_readlinkat) {
        PathBuffer& given = call.thread.work;
        if (const long error = copy_path(query.path, given)) {
            return error;
        }
        if (is_own_exe(given.view())) {
            return answer_exe(call);
        }
    }
    return pass(call);
}

}  // namespace dune::sandbox
