// SPDX-License-Identifier: MIT
// Output that works anywhere: no lock, no buffer of the C library's, no allocation.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>

#include "libdune/dune.h"
#include "process.h"
#include "sys.h"

namespace dune::rt {
namespace {

constexpr std::size_t kLine = 1024;

long write_all(int fd, const char* text, std::size_t len) noexcept {
    std::size_t done = 0;
    while (done < len) {
        const long n = sys(SYS_write, fd, text + done, len - done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        done += static_cast<std::size_t>(n);
    }
    return static_cast<long>(done);
}

}  // namespace

void complain(const char* format, ...) noexcept {
    char line[kLine] = "dune: ";
    constexpr std::size_t kPrefix = 6;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line + kPrefix, sizeof(line) - kPrefix - 1, format, args);
    va_end(args);
    if (n < 0)
        return;
    std::size_t len = kPrefix + static_cast<std::size_t>(n);
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    line[len++] = '\n';
    write_all(STDERR_FILENO, line, len);
}

}  // namespace dune::rt

extern "C" {

int dune_vprintf(const char* fmt, va_list args) {
    char line[dune::rt::kLine];
    // For a string, the C library takes no lock and, but for huge precisions, no memory.
    const int n = vsnprintf(line, sizeof(line), fmt, args);
    if (n < 0)
        return n;
    const auto len =
        static_cast<std::size_t>(n) < sizeof(line) ? static_cast<std::size_t>(n) : sizeof(line) - 1;
    return static_cast<int>(dune::rt::write_all(STDOUT_FILENO, line, len));
}

int dune_printf(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const int ret = dune_vprintf(fmt, args);
    va_end(args);
    return ret;
}

void dune_die(void) {
    for (;;)
        dune::rt::sys(SYS_exit_group, 1);
}

}  // extern "C"
