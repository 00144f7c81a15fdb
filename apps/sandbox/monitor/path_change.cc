// SPDX-License-Identifier: MIT
//
// Calls that change the tree of files, or an attribute of a file that they name.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "monitor/path_calls.h"
#include "monitor/paths.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

namespace dune::sandbox {

namespace {

// Canonical path of an argument, if the policy lets the program write there.
long writable(Call& call, int dirfd, uint64_t user_path, bool follow, PathBuffer& path) {
    if (const long error = resolve(call.thread, dirfd, user_path, follow, path)) {
        return error;
    }
    if (access_of(path.view()) != Access::Write) {
        return refuse_path(call, path.view(), "may not be written");
    }
    return 0;
}

// To move or remove a directory moves the names that the policy's rules are about.
bool holds_rules(std::string_view path) {
    const PolicyImage& policy = *process.policy;
    for (size_t i = 0; i < policy.rule_count; i++) {
        if (is_at_or_below(policy.path(policy.rules[i]), path)) {
            return true;
        }
    }
    return false;
}

using OneName = long (*)(const Call& call, long dir, const char* name);

// True for a file that is there and that the program may know of: to make it again fails with
// EEXIST, as programs that make a whole chain of directories expect.
bool is_known(PathBuffer& path) {
    struct stat info;
    return (access_of(path.view()) != Access::Hidden ||
            process.policy->leads_to_granted(path.view())) &&
           host_call(SYS_newfstatat, AT_FDCWD, path.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

// A call on one name in a directory.
long on_name(Call& call, int dirfd, uint64_t user_path, bool removes, OneName action) {
    PathBuffer& path = call.thread.path[0];
    if (const long error = resolve(call.thread, dirfd, user_path, false, path)) {
        return error;
    }
    if (access_of(path.view()) != Access::Write) {
        return !removes && is_known(path) ? -EEXIST
                                          : refuse_path(call, path.view(), "may not be written");
    }
    if (removes && holds_rules(path.view())) {
        return refuse_path(call, path.view(), "named in the policy");
    }
    const Parent parent(path);
    return is_error(parent.fd()) ? parent.fd() : action(call, parent.fd(), parent.name());
}

// A call on a file that is there, through a path in /proc that stands for it.
using OneFile = long (*)(const Call& call, const char* proc_path);

long on_file(Call& call, int dirfd, uint64_t user_path, bool follow, Access needed,
             OneFile action) {
    PathBuffer& path = call.thread.path[0];
    if (const long error = resolve(call.thread, dirfd, user_path, follow, path)) {
        return error;
    }
    if (access_of(path.view()) < needed) {
        return refuse_path(call, path.view(),
                           needed == Access::Write ? "may not be written" : "hidden by the policy");
    }
    LockGuard guard(process.fd_lock);
    const long fd = open_canonical(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (is_error(fd)) {
        return fd;
    }
    char proc_path[32];
    snprintf(proc_path, sizeof(proc_path), "/proc/self/fd/%ld", fd);
    const long result = action(call, proc_path);
    host_call(SYS_close, fd);
    return result;
}

long do_mkdir(Call& call, int dirfd, uint64_t path) {
    return on_name(call, dirfd, path, false, [](const Call& c, long dir, const char* name) {
        return host_call(SYS_mkdirat, dir, name, c.args[c.number == SYS_mkdir ? 1 : 2]);
    });
}

long do_mknod(Call& call, int dirfd, uint64_t path) {
    const uint64_t mode = call.args[call.number == SYS_mknod ? 1 : 2];
    const uint64_t type = mode & S_IFMT;
    if (type != 0 && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) {
        return -EPERM;  // a device node would be a way around the kernel's own protection
    }
    return on_name(call, dirfd, path, false, [](const Call& c, long dir, const char* name) {
        return host_call(SYS_mknodat, dir, name, c.args[c.number == SYS_mknod ? 1 : 2], 0);
    });
}

long do_unlink(Call& call, int dirfd, uint64_t path, uint64_t flags) {
    if ((flags & ~static_cast<uint64_t>(AT_REMOVEDIR)) != 0) {
        return -EINVAL;
    }
    call.args[5] = flags;
    return on_name(call, dirfd, path, true, [](const Call& c, long dir, const char* name) {
        return host_call(SYS_unlinkat, dir, name, c.args[5]);
    });
}

long do_symlink(Call& call, int dirfd, uint64_t path) {
    return on_name(call, dirfd, path, false, [](const Call& c, long dir, const char* name) {
        return host_call(SYS_symlinkat, c.args[0], dir, name);
    });
}

// rename and link: two names.
struct TwoNames {
    int from_dir;
    uint64_t from;
    int to_dir;
    uint64_t to;
    uint64_t flags;
    bool link;
};

long do_two_names(Call& call, const TwoNames& names) {
    PathBuffer& from = call.thread.path[0];
    PathBuffer& to = call.thread.path[1];
    const bool follow = names.link && (names.flags & AT_SYMLINK_FOLLOW) != 0;
    if (names.link && (names.flags & ~static_cast<uint64_t>(AT_SYMLINK_FOLLOW)) != 0) {
        return -EINVAL;
    }
    // The old name must be writable for a link too: the new one would be.
    if (const long error = writable(call, names.from_dir, names.from, follow, from)) {
        return error;
    }
    if (const long error = writable(call, names.to_dir, names.to, false, to)) {
        return error;
    }
    if (!names.link && (holds_rules(from.view()) || holds_rules(to.view()))) {
        return refuse_path(call, holds_rules(from.view()) ? from.view() : to.view(),
                           "named in the policy");
    }
    const Parent from_parent(from);
    if (is_error(from_parent.fd())) {
        return from_parent.fd();
    }
    // The lock is held: the second directory is opened without it.
    const size_t slash = to.view().rfind('/');
    char* const name = to.text + slash + 1;
    to.c_str();
    PathBuffer& dir = call.thread.work;
    if (!dir.assign(slash == 0 ? "/" : to.view().substr(0, slash))) {
        return -ENAMETOOLONG;
    }
    const long fd = open_canonical(dir, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (is_error(fd)) {
        return fd;
    }
    const long result =
        names.link
            ? host_call(SYS_linkat, from_parent.fd(), from_parent.name(), fd, name, 0)
            : host_call(SYS_renameat2, from_parent.fd(), from_parent.name(), fd, name, names.flags);
    host_call(SYS_close, fd);
    return result;
}

long do_chdir(Call& call) {
    PathBuffer& path = call.thread.path[0];
    if (const long error = resolve(call.thread, AT_FDCWD, call.args[0], true, path)) {
        return error;
    }
    if (access_of(path.view()) == Access::Hidden &&
        !process.policy->leads_to_granted(path.view())) {
        return refuse_path(call, path.view(), "hidden by the policy");
    }
    LockGuard guard(process.fd_lock);
    const long fd = open_canonical(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (is_error(fd)) {
        return fd;
    }
    const long result = host_call(SYS_fchdir, fd);
    host_call(SYS_close, fd);
    return result;
}

long do_chmod(Call& call, int dirfd, uint64_t path, uint64_t mode, uint64_t flags) {
    if ((flags & ~static_cast<uint64_t>(AT_SYMLINK_NOFOLLOW)) != 0) {
        return -EINVAL;
    }
    if (flags != 0) {
        return -EOPNOTSUPP;  // as Linux before 6.6: links have no mode
    }
    call.args[5] = mode;
    return on_file(call, dirfd, path, true, Access::Write, [](const Call& c, const char* file) {
        return host_call(SYS_chmod, file, c.args[5]);
    });
}

long do_chown(Call& call, int dirfd, uint64_t path, unsigned first, uint64_t flags) {
    if ((flags & AT_EMPTY_PATH) != 0 && path != 0 && is_empty_path(path)) {
        return change_descriptor(call);
    }
    PathBuffer& out = call.thread.path[0];
    const bool follow = (flags & AT_SYMLINK_NOFOLLOW) == 0;
    if (const long error = writable(call, dirfd, path, follow, out)) {
        return error;
    }
    const Parent parent(out);
    return is_error(parent.fd())
               ? parent.fd()
               : host_call(SYS_fchownat, parent.fd(), parent.name(), call.args[first],
                           call.args[first + 1], AT_SYMLINK_NOFOLLOW);
}

// utime, utimes, futimesat and utimensat; `at_call` has the form of the last two.
long do_times(Call& call) {
    const bool at_call = call.number == SYS_utimensat || call.number == SYS_futimesat;
    const int dirfd = at_call ? static_cast<int>(call.args[0]) : AT_FDCWD;
    const uint64_t path = call.args[at_call ? 1 : 0];
    const uint64_t flags = call.number == SYS_utimensat ? call.args[3] : 0;
    if (call.number == SYS_utimensat && path == 0) {
        return change_descriptor(call);
    }
    call.args[5] = call.args[at_call ? 2 : 1];
    if ((flags & AT_SYMLINK_NOFOLLOW) != 0) {
        return on_name(call, dirfd, path, true, [](const Call& c, long dir, const char* name) {
            return host_call(SYS_utimensat, dir, name, c.args[5], AT_SYMLINK_NOFOLLOW);
        });
    }
    return on_file(call, dirfd, path, true, Access::Write, [](const Call& c, const char* file) {
        switch (c.number) {
            case SYS_utime:
                return host_call(SYS_utime, file, c.args[5]);
            case SYS_utimensat:
                return host_call(SYS_utimensat, AT_FDCWD, file, c.args[5], 0);
            default:
                return host_call(SYS_utimes, file, c.args[5]);
        }
    });
}

long do_truncate(Call& call) {
    PathBuffer& path = call.thread.path[0];
    if (const long error = writable(call, AT_FDCWD, call.args[0], true, path)) {
        return error;
    }
    LockGuard guard(process.fd_lock);
    const long fd = open_canonical(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (is_error(fd)) {
        return fd;
    }
    const long result = host_call(SYS_ftruncate, fd, call.args[1]);
    host_call(SYS_close, fd);
    return result;
}

long do_xattr(Call& call) {
    const bool follow = call.number == SYS_setxattr || call.number == SYS_removexattr;
    return on_file(call, AT_FDCWD, call.args[0], follow, Access::Write,
                   [](const Call& c, const char* file) {
                       const uint64_t* a = c.args;
                       return c.number == SYS_setxattr || c.number == SYS_lsetxattr
                                  ? host_call(SYS_setxattr, file, a[1], a[2], a[3], a[4])
                                  : host_call(SYS_removexattr, file, a[1]);
                   });
}

long do_watch(Call& call) {
    return on_file(call, AT_FDCWD, call.args[1], true, Access::Read,
                   [](const Call& c, const char* file) {
                       return host_call(SYS_inotify_add_watch, c.args[0], file, c.args[2]);
                   });
}

}  // namespace

long change_path(Call& call) {
    const uint64_t* a = call.args;
    const int fd = static_cast<int>(a[0]);
    const int fd2 = static_cast<int>(a[2]);
    switch (call.number) {
        case SYS_chdir:
            return do_chdir(call);
        case SYS_mkdir:
            return do_mkdir(call, AT_FDCWD, a[0]);
        case SYS_mkdirat:
            return do_mkdir(call, fd, a[1]);
        case SYS_mknod:
            return do_mknod(call, AT_FDCWD, a[0]);
        case SYS_mknodat:
            return do_mknod(call, fd, a[1]);
        case SYS_unlink:
            return do_unlink(call, AT_FDCWD, a[0], 0);
        case SYS_rmdir:
            return do_unlink(call, AT_FDCWD, a[0], AT_REMOVEDIR);
        case SYS_unlinkat:
            return do_unlink(call, fd, a[1], a[2]);
        case SYS_symlink:
            return do_symlink(call, AT_FDCWD, a[1]);
        case SYS_symlinkat:
            return do_symlink(call, static_cast<int>(a[1]), a[2]);
        case SYS_rename:
            return do_two_names(call, {AT_FDCWD, a[0], AT_FDCWD, a[1], 0, false});
        case SYS_renameat:
            return do_two_names(call, {fd, a[1], fd2, a[3], 0, false});
        case SYS_renameat2:
            return do_two_names(call, {fd, a[1], fd2, a[3], a[4], false});
        case SYS_link:
            return do_two_names(call, {AT_FDCWD, a[0], AT_FDCWD, a[1], 0, true});
        case SYS_linkat:
            return do_two_names(call, {fd, a[1], fd2, a[3], a[4], true});
        case SYS_chmod:
            return do_chmod(call, AT_FDCWD, a[0], a[1], 0);
        case SYS_fchmodat:
            return do_chmod(call, fd, a[1], a[2], 0);
        case SYS_fchmodat2:
            return do_chmod(call, fd, a[1], a[2], a[3]);
        case SYS_chown:
            return do_chown(call, AT_FDCWD, a[0], 1, 0);
        case SYS_lchown:
            return do_chown(call, AT_FDCWD, a[0], 1, AT_SYMLINK_NOFOLLOW);
        case SYS_fchownat:
            return do_chown(call, fd, a[1], 2, a[4]);
        case SYS_utime:
        case SYS_utimes:
        case SYS_futimesat:
        case SYS_utimensat:
            return do_times(call);
        case SYS_truncate:
            return do_truncate(call);
        case SYS_inotify_add_watch:
            return do_watch(call);
        case SYS_fchmod:
        case SYS_fchown:
        case SYS_fsetxattr:
        case SYS_fremovexattr:
            return change_descriptor(call);
        default:
            return do_xattr(call);
    }
}

}  // namespace dune::sandbox
