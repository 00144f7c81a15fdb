// SPDX-License-Identifier: MIT
//
// A critical section of rseq(2) that is there to be aborted.

#ifndef DUNE_TESTS_VM_COMMON_RSEQ_SECTION_H
#define DUNE_TESTS_VM_COMMON_RSEQ_SECTION_H

#include <linux/rseq.h>
#include <sys/types.h>

#include <cstdint>

namespace dune::vmtest {

constexpr uint32_t kRseqSignature = 0x53053053;  // the C library's

// The section, and handlers with this signature before them and with another one.
extern "C" const char rseq_wait_begin[], rseq_wait_end[], rseq_wait_abort[], rseq_wait_bad_abort[];

// Enters the section and stays for a number of turns; `pointer` is the area's rseq_cs. Returns 1
// when it was aborted, 0 when it came to its end, 2 by the handler with the wrong signature.
extern "C" uint64_t rseq_wait(volatile uint64_t* pointer, const void* section, uint64_t turns);

// The description of the section.
rseq_cs rseq_wait_section();

// A process that wants the CPU again and again, while this lives.
class Rival {
  public:
    Rival();
    ~Rival();
    Rival(const Rival&) = delete;
    Rival& operator=(const Rival&) = delete;

    pid_t pid() const { return pid_; }

  private:
    pid_t pid_;
};

}  // namespace dune::vmtest

#endif
