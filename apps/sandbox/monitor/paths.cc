// SPDX-License-Identifier: MIT

#include "monitor/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "monitor/decimal.h"

namespace dune::sandbox {

namespace {

constexpr int kMaxLinks = 40;  // as Linux' MAXSYMLINKS
constexpr std::string_view kDeleted = " (deleted)";

// Cuts the next part off `rest`: "a/b" → "a", "b".
std::string_view next_part(std::string_view& rest) {
    while (rest.starts_with('/')) {
        rest.remove_prefix(1);
    }
    const size_t end = std::min(rest.find('/'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end);
    return part;
}

// If `path` is "/proc/self", "/proc/thread-self", "/proc/<own pid>" or a task below it, returns
// true and leaves in `rest` what follows ("fd/3"). Any other "/proc/<number>" sets *other.
bool own_proc(std::string_view path, std::string_view& rest, bool* other) {
    *other = false;
    if (!path.starts_with("/proc/")) {
        return false;
    }
    rest = path.substr(6);
    const std::string_view who = next_part(rest);
    const long pid = parse_number(who);
    if (who != "self" && who != "thread-self" && pid < 0) {
        return false;
    }
    const bool own = pid < 0 || pid == process.pid;
    *other = !own;
    for (;;) {
        std::string_view after = rest;
        if (next_part(after) != "task") {
            break;
        }
        next_part(after);
        rest = after;
    }
    while (rest.starts_with('/')) {
        rest.remove_prefix(1);
    }
    return own;
}

// The text of descriptor fd's path, in `out`. Not of the runtime's descriptors.
long descriptor_path(int fd, PathBuffer& out) {
    if (is_reserved(static_cast<unsigned>(fd))) {
        return -EBADF;
    }
    char name[40] = "/proc/self/fd/";
    DecimalRoom room;
    const std::string_view digits = to_text(static_cast<unsigned>(fd), room);
    memcpy(name + 14, digits.data(), digits.size());
    const long n = host_call(SYS_readlinkat, AT_FDCWD, name, out.text, sizeof(out.text) - 1);
    if (is_error(n)) {
        return n == -ENOENT ? -EBADF : n;
    }
    out.length = static_cast<size_t>(n);
    return 0;
}

long base_directory(int dirfd, PathBuffer& out) {
    if (dirfd == AT_FDCWD) {
        const long n = host_call(SYS_getcwd, out.text, sizeof(out.text));
        if (is_error(n)) {
            return n;
        }
        out.length = static_cast<size_t>(n) - 1;
        return out.view().starts_with('/') ? 0 : -ENOENT;
    }
    if (const long error = descriptor_path(dirfd, out)) {
        return error;
    }
    if (!out.view().starts_with('/')) {
        return -ENOTDIR;
    }
    return out.view().ends_with(kDeleted) ? -ENOENT : 0;
}

// The text of a link, in `text`, or a negative errno; -EINVAL if `path` is no link. Links of
// /proc that stand for the program itself are answered here.
long read_link(PathBuffer& path, char* text, size_t size) {
    std::string_view rest;
    bool other;
    if (own_proc(path.view(), rest, &other) && rest == "exe") {
        const size_t n = std::min(process.exe.length, size);
        memcpy(text, process.exe.text, n);
        return static_cast<long>(n);
    }
    return host_call(SYS_readlinkat, AT_FDCWD, path.c_str(), text, size);
}

}  // namespace

long copy_path(uint64_t from, PathBuffer& to) {
    if (!starts_in_user(from)) {
        return -EFAULT;
    }
    // Up to the end of each page: the next one may not be there.
    to.length = 0;
    while (to.length < sizeof(to.text)) {
        const uint64_t at = from + to.length;
        const size_t room = sizeof(to.text) - to.length;
        const size_t chunk = std::min<size_t>(std::min<size_t>(256 - at % 256, 256), room);
        char* const target = to.text + to.length;
        if (!engine::copy_in(target, at, chunk)) {
            return -EFAULT;
        }
        if (const void* end = memchr(target, 0, chunk)) {
            to.length += static_cast<size_t>(static_cast<const char*>(end) - target);
            return to.length == 0 ? -ENOENT : 0;
        }
        to.length += chunk;
    }
    return -ENAMETOOLONG;
}

long absolute_path(Thread&, int dirfd, std::string_view path, PathBuffer& out, bool* plain,
                   bool* directory) {
    out.length = 0;
    if (!path.starts_with('/')) {
        if (const long error = base_directory(dirfd, out)) {
            return error;
        }
        if (out.view() == "/") {
            out.length = 0;
        }
    }
    *plain = true;
    *directory = path.ends_with('/');
    for (std::string_view rest = path;;) {
        const std::string_view part = next_part(rest);
        if (part.empty()) {
            break;
        }
        if (part == ".") {
            *directory = rest.empty() || *directory;
            continue;
        }
        if (part == "..") {
            *plain = false;
        }
        if (!out.append("/") || !out.append(part)) {
            return -ENAMETOOLONG;
        }
    }
    return out.length == 0 && !out.append("/") ? -ENAMETOOLONG : 0;
}

long canonical_path(Thread& thread, PathBuffer& path, bool follow) {
    PathBuffer& done = thread.work;
    done.length = 0;
    int links = 0;
    // What is still to do is kept at the end of path's room, so that a link's text can be put
    // before it.
    size_t at = sizeof(path.text) - path.length;
    memmove(path.text + at, path.text, path.length);
    while (at < sizeof(path.text)) {
        std::string_view rest(path.text + at, sizeof(path.text) - at);
        const std::string_view part = next_part(rest);
        at = sizeof(path.text) - rest.size();
        if (part.empty() || part == ".") {
            continue;
        }
        if (part == "..") {
            const size_t slash = done.view().rfind('/');
            done.length = slash == std::string_view::npos ? 0 : slash;
            continue;
        }
        const size_t before = done.length;
        if (!done.append("/") || !done.append(part)) {
            return -ENAMETOOLONG;
        }
        const bool last = rest.find_first_not_of('/') == std::string_view::npos;
        if (last && !follow) {
            continue;
        }
        const int own = own_descriptor(done.view());
        if (own >= 0 && is_reserved(static_cast<unsigned>(own))) {
            return -ENOENT;
        }
        const long n = read_link(done, thread.link, sizeof(thread.link));
        if (n == -EINVAL || (n == -ENOENT && last)) {
            continue;
        }
        if (is_error(n)) {
            return n;
        }
        // A descriptor that has no path (a pipe, a deleted file) stays as its name in /proc.
        const std::string_view text(thread.link, static_cast<size_t>(n));
        if (own >= 0 && (!text.starts_with('/') || text.ends_with(kDeleted))) {
            if (!last) {
                return -ENOTDIR;
            }
            continue;
        }
        if (++links > kMaxLinks) {
            return -ELOOP;
        }
        if (text.size() + 1 > at) {
            return -ENAMETOOLONG;
        }
        path.text[--at] = '/';
        at -= text.size();
        memcpy(path.text + at, text.data(), text.size());
        done.length = text.starts_with('/') ? 0 : before;
    }
    if (done.length == 0) {
        done.append("/");
    }
    return path.assign(done.view()) ? 0 : -ENAMETOOLONG;
}

long resolve(Thread& thread, int dirfd, uint64_t user_path, bool follow, PathBuffer& out) {
    PathBuffer& given = thread.work;
    if (const long error = copy_path(user_path, given)) {
        return error;
    }
    bool plain;
    bool directory;
    if (const long error = absolute_path(thread, dirfd, given.view(), out, &plain, &directory)) {
        return error;
    }
    return canonical_path(thread, out, follow || directory);
}

bool is_nameless(std::string_view link) {
    return !link.starts_with('/') || (link.starts_with("/memfd:") && link.ends_with(kDeleted));
}

int own_descriptor(std::string_view canonical) {
    std::string_view rest;
    bool other;
    if (!own_proc(canonical, rest, &other) || !rest.starts_with("fd/")) {
        return -1;
    }
    return static_cast<int>(parse_number(rest.substr(3)));
}

std::string_view process_file(std::string_view canonical, bool* own) {
    std::string_view rest;
    bool other;
    *own = own_proc(canonical, rest, &other);
    return *own || other ? rest : std::string_view();
}

long open_canonical(PathBuffer& path, uint64_t flags, uint64_t mode) {
    open_how how{};
    how.flags = flags;
    const bool makes = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    how.mode = makes ? mode & 07777 : 0;
    how.resolve = RESOLVE_NO_SYMLINKS;
    const char* const relative = path.view() == "/" ? "." : path.c_str() + 1;
    return host_call(SYS_openat2, reserved_fd(kRootFd), relative, &how, sizeof(how));
}

bool proc_allows(std::string_view canonical, bool write) {
    std::string_view rest;
    bool other;
    const bool own = own_proc(canonical, rest, &other);
    if (!own && !other) {
        return !write;  // of the machine: /proc/meminfo, /proc/sys
    }
    static constexpr std::string_view kMemory[] = {
        "mem",  "pagemap", "clear_refs", "map_files", "syscall",       "stack",
        "attr", "root",    "cwd",        "fd",        "seccomp_cache", "smaps_rollup",
    };
    // Of the program's own process they are shown without the runtime: proc_view.h.
    static constexpr std::string_view kLayout[] = {"maps", "smaps", "numa_maps", "environ", "auxv"};
    static constexpr std::string_view kWritable[] = {
        "comm", "oom_score_adj", "coredump_filter", "timerslack_ns", "autogroup",
    };
    std::string_view after = rest;
    const std::string_view first = next_part(after);
    if (write) {
        return own &&
               std::find(std::begin(kWritable), std::end(kWritable), rest) != std::end(kWritable);
    }
    if (first == "fd" && own) {
        return after.empty() || own_descriptor(canonical) >= 0;  // the list of them
    }
    if (!own && std::find(std::begin(kLayout), std::end(kLayout), first) != std::end(kLayout)) {
        return false;
    }
    return std::find(std::begin(kMemory), std::end(kMemory), first) == std::end(kMemory);
}

Access access_of(std::string_view canonical) {
    const Access access = process.policy->access(canonical);
    if (access == Access::Hidden || !is_at_or_below(canonical, "/proc")) {
        return access;
    }
    if (!proc_allows(canonical, false) && !proc_allows(canonical, true)) {
        return Access::Hidden;
    }
    return proc_allows(canonical, true) ? Access::Write : Access::Read;
}

Parent::Parent(PathBuffer& path) {
    process.fd_lock.lock();
    const size_t slash = path.view().rfind('/');
    path.c_str();
    if (slash >= sizeof(path.text) || path.length == 1) {
        name_ = ".";
        fd_ = open_canonical(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        return;
    }
    name_ = path.text + slash + 1;
    open_how how{};
    how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_NO_SYMLINKS;
    path.text[slash] = 0;
    fd_ = host_call(SYS_openat2, reserved_fd(kRootFd), slash == 0 ? "." : path.text + 1, &how,
                    sizeof(how));
    path.text[slash] = '/';
}

Parent::~Parent() {
    if (fd_ >= 0) {
        host_call(SYS_close, fd_);
    }
    process.fd_lock.unlock();
}

}  // namespace dune::sandbox
