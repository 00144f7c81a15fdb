// SPDX-License-Identifier: MIT

#include "monitor/others.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "monitor/state.h"

namespace dune::sandbox {

namespace {

// "/proc/<pid>/exe" in `room`.
const char* exe_of(int64_t pid, char (&room)[32]) {
    char* at = room + sizeof(room) - sizeof("/exe");
    __builtin_memcpy(at, "/exe", sizeof("/exe"));
    for (; pid != 0; pid /= 10) {
        *--at = static_cast<char>('0' + pid % 10);
    }
    at -= 6;
    __builtin_memcpy(at, "/proc/", 6);
    return at;
}

}  // namespace

Whose whose_process(int64_t pid) {
    if (pid == process.pid) {
        return Whose::Ours;
    }
    if (pid <= 0 || !process.stats->has_process(pid)) {
        return Whose::Foreign;
    }
    // The bit of a process that was killed stays, and its number may be another's by now: one that
    // does not execute the runtime's file.
    char room[32];
    struct stat theirs {};
    struct stat own {};
    const long error = host_call(SYS_stat, exe_of(pid, room), &theirs);
    if (error != 0) {
        return error == -ENOENT ? Whose::Ended : Whose::Foreign;
    }
    const bool same = host_call(SYS_fstat, reserved_fd(kSelfFd), &own) == 0 &&
                      own.st_ino == theirs.st_ino && own.st_dev == theirs.st_dev;
    return same ? Whose::Ours : Whose::Foreign;
}

bool is_our_thread(int64_t tid) {
    return tid == 0 || (tid > 0 && host_call(SYS_tgkill, process.pid, tid, 0) == 0) ||
           whose_process(tid) == Whose::Ours;
}

bool is_our_group(int64_t group) {
    return whose_process(group != 0 ? group : host_call(SYS_getpgid, 0)) != Whose::Foreign;
}

}  // namespace dune::sandbox
