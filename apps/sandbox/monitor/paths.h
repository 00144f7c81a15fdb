// SPDX-License-Identifier: MIT
//
// From a path that the program names to a file, without a race. A path is first made canonical:
// every symbolic link in it replaced by its text, every ".." taken away. The policy looks at that
// text. Then the kernel opens exactly that text from the root on, and refuses any symbolic link
// that came into it meanwhile (openat2 with RESOLVE_NO_SYMLINKS): whatever another thread or
// process renames or links, the file that is opened is one that the policy allowed, or none.

#ifndef DUNE_APPS_SANDBOX_MONITOR_PATHS_H
#define DUNE_APPS_SANDBOX_MONITOR_PATHS_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

// Copies a path of the program. 0, -EFAULT, -ENAMETOOLONG or -ENOENT (empty).
long copy_path(uint64_t from, PathBuffer& to);

// Makes `out` the absolute path of `path`, taken from descriptor `dirfd` if it is relative, as
// text: doubled slashes and "." are gone; `..` and links are still in it. *plain: there is no ".."
// in it. *directory: it ended in "/" or "/.".
long absolute_path(Thread& thread, int dirfd, std::string_view path, PathBuffer& out, bool* plain,
                   bool* directory);

// Makes the absolute `path` canonical, in place. follow: also if its last part is a link. The last
// part need not exist.
long canonical_path(Thread& thread, PathBuffer& path, bool follow);

// Both for an argument of a call, copied from the program, with `trailing slash` meaning follow.
long resolve(Thread& thread, int dirfd, uint64_t user_path, bool follow, PathBuffer& out);

// Does what /proc/self/fd/N links to have no path: a pipe, a socket, a memfd?
bool is_nameless(std::string_view link);

// The descriptor that "/proc/self/fd/N" or another name of it means, or -1.
int own_descriptor(std::string_view canonical);

// Opens a canonical path; no link is followed. Descriptor or negative errno.
long open_canonical(PathBuffer& path, uint64_t flags, uint64_t mode);

// If the canonical path is below a process' directory in /proc, its part below that (or below the
// thread's directory there), and whether the process is the calling one; else an empty text.
std::string_view process_file(std::string_view canonical, bool* own);

// What files below /proc the program may not even read, or not write: those that lead to the
// runtime's memory and to other processes.
bool proc_allows(std::string_view canonical, bool write);

// What the policy and the rules for /proc allow for a canonical path.
Access access_of(std::string_view canonical);

// The directory of a canonical path, open for the *at calls, and the last part's name. Holds
// process.fd_lock.
class Parent {
  public:
    explicit Parent(PathBuffer& path);
    ~Parent();
    Parent(const Parent&) = delete;
    Parent& operator=(const Parent&) = delete;

    // The descriptor, or a negative errno.
    long fd() const { return fd_; }
    const char* name() const { return name_; }

  private:
    long fd_;
    const char* name_;
};

}  // namespace dune::sandbox

#endif
