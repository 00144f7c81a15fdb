// SPDX-License-Identifier: MIT

#include "kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace dune::vmtest {

namespace {

constexpr std::array<std::string_view, 30> kComplaints = {
    "BUG: ",
    "kernel BUG at",
    "WARNING: ",
    "Oops: ",
    "general protection fault",
    "unable to handle",
    "stack segment: ",
    "invalid opcode: ",
    "double fault: ",
    "divide error: ",
    "Call Trace:",
    "unchecked MSR access",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "rcu_sched detected stalls",
    "rcu: INFO:",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "scheduling while atomic",
    "sleeping function called",
    "Objects remaining",
    "refcount_t: ",
    "Bad page state",
    "Bad rss-counter state",
    "list_add corruption",
    "list_del corruption",
    "non-zero pgtables_bytes",
};

// User programs that die of a signal are logged in the same words
// ("traps: name[pid] general protection fault ip:... sp:... error:0"), and
// tests kill such programs on purpose.
bool is_user_fault(std::string_view line) {
    return line.find(" ip:") != std::string_view::npos &&
           line.find(" sp:") != std::string_view::npos;
}

}  // namespace

bool is_complaint(std::string_view line) {
    if (is_user_fault(line)) {
        return false;
    }
    return std::any_of(kComplaints.begin(), kComplaints.end(), [line](std::string_view sign) {
        return line.find(sign) != std::string_view::npos;
    });
}

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
