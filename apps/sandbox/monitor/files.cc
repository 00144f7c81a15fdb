// SPDX-License-Identifier: MIT
//
// Calls that name files. See paths.h for how a name becomes a file.

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "monitor/path_calls.h"
#include "monitor/paths.h"
#include "monitor/proc_view.h"

namespace dune::sandbox {

namespace {

constexpr uint64_t kOpenFlags = 0x7fffff;  // what openat(2) takes; openat2(2) refuses others

bool wants_write(uint64_t flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0 ||
           (flags & O_TMPFILE) == O_TMPFILE;
}

// openat(2) ignores what openat2(2) refuses.
uint64_t clean_flags(uint64_t flags) {
    flags &= kOpenFlags;
    if ((flags & O_PATH) != 0) {
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    }
    return flags;
}

bool allows_open(std::string_view path, uint64_t flags) {
    if ((flags & O_PATH) != 0 || (flags & O_DIRECTORY) != 0) {
        if (!wants_write(flags) && process.policy->leads_to_granted(path)) {
            return true;
        }
    }
    return access_of(path) >= (wants_write(flags) ? Access::Write : Access::Read);
}

// Opens anew what a descriptor of the program has open, which has no path of its own.
long reopen(Call& call, PathBuffer& path, int fd, uint64_t flags) {
    if (is_reserved(static_cast<unsigned>(fd))) {
        return -ENOENT;
    }
    LockGuard guard(process.fd_lock);  // so that the descriptor stays what it is
    const long n = host_call(SYS_readlinkat, AT_FDCWD, path.c_str(), call.thread.link,
                             sizeof(call.thread.link));
    if (is_error(n)) {
        return n;
    }
    if (!is_nameless({call.thread.link, static_cast<size_t>(n)})) {
        return -ENOENT;  // deleted, or no longer what it was
    }
    return host_call(SYS_openat, AT_FDCWD, path.c_str(), flags & ~static_cast<uint64_t>(O_CREAT));
}

long open_file(Call& call, int dirfd, uint64_t user_path, uint64_t flags, uint64_t mode) {
    Thread& thread = call.thread;
    PathBuffer& path = thread.path[0];
    flags = clean_flags(flags);
    if (const long error = copy_path(user_path, thread.work)) {
        return error;
    }
    bool plain;
    bool directory;
    if (const long error =
            absolute_path(thread, dirfd, thread.work.view(), path, &plain, &directory)) {
        return error;
    }
    if (directory && (flags & O_CREAT) == 0) {
        flags |= O_DIRECTORY;
    } else if (directory) {
        return -EISDIR;
    }
    // Most paths have no link in them: one call opens those.
    if (plain && !is_at_or_below(path.view(), "/proc") && allows_open(path.view(), flags)) {
        const long result = open_canonical(path, flags, mode);
        if (result != -ELOOP) {
            return result;
        }
    }
    const bool follow = directory || (flags & O_NOFOLLOW) == 0;
    const bool exclusive = (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
    if (const long error = canonical_path(thread, path, follow && !exclusive)) {
        return error;
    }
    if (const int fd = own_descriptor(path.view()); fd >= 0 && follow) {
        return reopen(call, path, fd, flags);
    }
    if (!allows_open(path.view(), flags)) {
        return refuse_path(call, path.view(),
                           access_of(path.view()) == Access::Hidden ? "hidden by the policy"
                                                                    : "may not be written");
    }
    const ProcView view = (flags & O_PATH) == 0 ? proc_view(path.view()) : ProcView::None;
    return view == ProcView::None ? open_canonical(path, flags, mode)
                                  : open_proc_view(thread, path, view, flags);
}

// openat2(2): its rules for resolution are its caller's to keep; only calls without any are done.
long do_openat2(Call& call) {
    open_how how;
    if (call.args[3] < sizeof(how)) {
        return -EINVAL;
    }
    if (!in_user(call.args[2], call.args[3])) {
        return -EFAULT;
    }
    if (call.args[3] > sizeof(how)) {
        return -E2BIG;
    }
    if (!engine::copy_in(&how, call.args[2], sizeof(how))) {
        return -EFAULT;
    }
    if (how.resolve != 0) {
        return -ENOSYS;
    }
    if ((how.flags & ~kOpenFlags) != 0) {
        return -EINVAL;
    }
    return open_file(call, static_cast<int>(call.args[0]), call.args[1], how.flags, how.mode);
}

}  // namespace

long do_path(Call& call) {
    const uint64_t* a = call.args;
    switch (call.number) {
        case SYS_open:
            return open_file(call, AT_FDCWD, a[0], a[1], a[2]);
        case SYS_creat:
            return open_file(call, AT_FDCWD, a[0], O_CREAT | O_WRONLY | O_TRUNC, a[1]);
        case SYS_openat:
            return open_file(call, static_cast<int>(a[0]), a[1], a[2], a[3]);
        case SYS_openat2:
            return do_openat2(call);
        case SYS_stat:
        case SYS_lstat:
        case SYS_newfstatat:
        case SYS_statx:
        case SYS_access:
        case SYS_faccessat:
        case SYS_faccessat2:
        case SYS_readlink:
        case SYS_readlinkat:
        case SYS_statfs:
        case SYS_getxattr:
        case SYS_lgetxattr:
        case SYS_listxattr:
        case SYS_llistxattr:
            return query_path(call);
        default:
            return change_path(call);
    }
}

}  // namespace dune::sandbox
