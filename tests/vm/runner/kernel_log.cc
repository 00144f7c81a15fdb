// SPDX-License-Identifier: MIT

#include "kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace dune::vmtest {

std::string_view record_text(std::string_view record) {
    const size_t start = record.find(';');
    if (start != std::string_view::npos) {
        record.remove_prefix(start + 1);
    }
    return record.substr(0, record.find('\n'));
}

KernelLog::KernelLog() : fd_(open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC)) {
    if (fd_ >= 0) {
        lseek(fd_, 0, SEEK_END);
    }
}

KernelLog::~KernelLog() {
    if (fd_ >= 0) {
        close(fd_);
    }
}

std::vector<std::string> KernelLog::drain() {
    std::vector<std::string> lines;
    std::array<char, 8192> buffer;
    while (fd_ >= 0) {
        const ssize_t n = read(fd_, buffer.data(), buffer.size());
        if (n > 0) {
            lines.emplace_back(record_text({buffer.data(), static_cast<size_t>(n)}));
        } else if (n < 0 && (errno == EPIPE || errno == EINTR)) {
            continue;  // EPIPE: records were overwritten before they were read; go on after them.
        } else {
            break;
        }
    }
    return lines;
}

void KernelLog::mark(const std::string& text) {
    if (fd_ >= 0) {
        // A log that takes no mark costs only a hint on the console.
        [[maybe_unused]] const ssize_t n = write(fd_, text.data(), text.size());
    }
}

}  // namespace dune::vmtest
