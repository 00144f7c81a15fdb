// SPDX-License-Identifier: MIT
#include "libdune/procmap.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "dune/procmap.h"
#include "maps_parser.h"

namespace {

/** A handler may iterate: the interrupted code's errno is not its. */
class KeepErrno {
  public:
    KeepErrno() noexcept : saved_(errno) {}
    ~KeepErrno() { errno = saved_; }
    KeepErrno(const KeepErrno&) = delete;
    KeepErrno& operator=(const KeepErrno&) = delete;

  private:
    int saved_;
};

const char* type_name(int type) noexcept {
    switch (type) {
        case PROCMAP_TYPE_FILE:
            return "file";
        case PROCMAP_TYPE_ANONYMOUS:
            return "anonymous";
        case PROCMAP_TYPE_HEAP:
            return "heap";
        case PROCMAP_TYPE_STACK:
            return "stack";
        case PROCMAP_TYPE_VSYSCALL:
            return "vsyscall";
        case PROCMAP_TYPE_VDSO:
            return "vdso";
        case PROCMAP_TYPE_VVAR:
            return "vvar";
        default:
            return "unknown";
    }
}

void write_all(const char* text, std::size_t len) noexcept {
    while (len != 0) {
        const ssize_t n = write(STDOUT_FILENO, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        len -= static_cast<std::size_t>(n);
    }
}

int dump_area(void*, const dune_procmap_entry& e) {
    char line[dune::procmap::MapsParser::kMaxPath + 128];
    const int len = snprintf(line, sizeof(line), "%016lx-%016lx %c%c%c%c %08lx %-9s %s\n", e.begin,
                             e.end, e.r ? 'r' : '-', e.w ? 'w' : '-', e.x ? 'x' : '-',
                             e.p ? 'p' : 's', e.offset, type_name(e.type), e.path);
    if (len > 0)
        write_all(line, static_cast<std::size_t>(len));
    return 0;
}

}  // namespace

int dune::procmap_iterate(int (*call)(void* context, const dune_procmap_entry& area),
                          void* context) noexcept {
    const KeepErrno keep;
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    procmap::MapsParser parser(call, context);
    char buffer[4096];  // Linux gives whole lines, a page at a time
    int rc = 0;
    while (rc == 0) {
        const ssize_t n = read(fd, buffer, sizeof(buffer));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? -errno : parser.finish();
            break;
        }
        rc = parser.feed({buffer, static_cast<std::size_t>(n)});
    }
    close(fd);
    return rc;
}

int dune_procmap_iterate(dune_procmap_cb cb) {
    if (cb == nullptr)
        return -EINVAL;
    const auto call = [](void* context, const dune_procmap_entry& entry) {
        (*static_cast<dune_procmap_cb*>(context))(&entry);
        return 0;
    };
    return dune::procmap_iterate(call, &cb);
}

void dune_procmap_dump(void) {
    dune::procmap_iterate(dump_area, nullptr);
}
