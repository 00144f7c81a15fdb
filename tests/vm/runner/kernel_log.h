// SPDX-License-Identifier: MIT
//
// The kernel's log as a part of every test's result.

#ifndef DUNE_TESTS_VM_RUNNER_KERNEL_LOG_H
#define DUNE_TESTS_VM_RUNNER_KERNEL_LOG_H

#include <string>
#include <string_view>
#include <vector>

namespace dune::vmtest {

// The text of one record as read from /dev/kmsg ("prio,seq,usec,flags;text\n
// KEY=value..."): its first line, without the prefix.
std::string_view record_text(std::string_view record);

// Reads what the kernel logs from the moment of construction on.
class KernelLog {
  public:
    // With no readable /dev/kmsg, ok() is false and drain() returns nothing.
    KernelLog();
    ~KernelLog();
    KernelLog(const KernelLog&) = delete;
    KernelLog& operator=(const KernelLog&) = delete;

    bool ok() const { return fd_ >= 0; }

    // The lines logged since the last call.
    std::vector<std::string> drain();

    // Puts a line into the log, so that a console shows which test ran last.
    void mark(const std::string& text);

  private:
    int fd_;
};

}  // namespace dune::vmtest

#endif
