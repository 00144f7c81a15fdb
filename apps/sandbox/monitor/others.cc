// SPDX-License-Identifier: MIT

#include "monitor/others.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <string_view>

#include "monitor/decimal.h"
#include "monitor/state.h"

namespace dune::sandbox {

namespace {

// A name in /proc, part by part.
class Name {
  public:
    Name& operator<<(std::string_view part) {
        __builtin_memcpy(text_ + length_, part.data(), part.size());
        length_ += part.size();
        return *this;
    }
    Name& operator<<(uint64_t number) {
        DecimalRoom room;
        return *this << to_text(number, room);
    }
    const char* c_str() const { return text_; }

  private:
    char text_[64] = {};  // "/proc/", "/fd/" and two numbers at most
    size_t length_ = 0;
};

}  // namespace

Whose whose_process(int64_t pid) {
    if (pid == process.pid) {
        return Whose::Ours;
    }
    if (pid <= 0 || !process.stats->has_process(pid)) {
        return Whose::Foreign;
    }
    // The bit of a process that was killed stays, and its number may be another's by now, also of
    // one of another sandbox. Only those of this one have this sandbox's Stats open.
    const uint64_t number = static_cast<uint64_t>(pid);
    struct stat theirs {};
    struct stat own {};
    const long error =
        host_call(SYS_stat, (Name() << "/proc/" << number << "/exe").c_str(), &theirs);
    if (error != 0) {
        return error == -ENOENT ? Whose::Ended : Whose::Foreign;
    }
    const int stats = reserved_fd(kStatsFd);
    const Name name = Name() << "/proc/" << number << "/fd/" << static_cast<uint64_t>(stats);
    const bool same = host_call(SYS_stat, name.c_str(), &theirs) == 0 &&
                      host_call(SYS_fstat, stats, &own) == 0 && own.st_ino == theirs.st_ino &&
                      own.st_dev == theirs.st_dev;
    return same ? Whose::Ours : Whose::Foreign;
}

long check_pidfd(uint64_t fd) {
    const long info = host_call(
        SYS_openat, AT_FDCWD, (Name() << "/proc/self/fdinfo/" << fd).c_str(), O_RDONLY | O_CLOEXEC);
    if (is_error(info)) {
        return info == -ENOENT ? -EBADF : info;
    }
    char room[512];
    const long size = host_call(SYS_read, info, room, sizeof(room));
    host_call(SYS_close, info);
    const std::string_view text(room, is_error(size) ? 0 : static_cast<size_t>(size));
    constexpr std::string_view kField = "\nPid:\t";  // -1 when it has been waited for
    const size_t at = text.find(kField);
    if (at == std::string_view::npos) {
        return -EBADF;
    }
    const std::string_view rest = text.substr(at + kField.size());
    const long pid = parse_number(rest.substr(0, rest.find('\n')));
    if (pid < 0) {
        return 0;
    }
    return whose_process(pid) == Whose::Foreign ? -EPERM : 0;
}

bool is_our_thread(int64_t tid) {
    return tid == 0 || (tid > 0 && host_call(SYS_tgkill, process.pid, tid, 0) == 0) ||
           whose_process(tid) == Whose::Ours;
}

bool is_our_group(int64_t group) {
    return whose_process(group != 0 ? group : host_call(SYS_getpgid, 0)) != Whose::Foreign;
}

}  // namespace dune::sandbox
