// SPDX-License-Identifier: MIT

#include "rseq_section.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

asm(R"(
    .text
    .globl rseq_wait, rseq_wait_begin, rseq_wait_end, rseq_wait_abort, rseq_wait_bad_abort
rseq_wait:
    mov %rsi, (%rdi)
rseq_wait_begin:
    dec %rdx
    jnz rseq_wait_begin
rseq_wait_end:
    xor %eax, %eax
    ret
    .long 0x53053053
rseq_wait_abort:
    mov $1, %eax
    ret
    .long 0x53053054
rseq_wait_bad_abort:
    mov $2, %eax
    ret
)");

namespace dune::vmtest {

rseq_cs rseq_wait_section() {
    rseq_cs section{};
    section.start_ip = reinterpret_cast<uint64_t>(rseq_wait_begin);
    section.post_commit_offset = reinterpret_cast<uint64_t>(rseq_wait_end) - section.start_ip;
    section.abort_ip = reinterpret_cast<uint64_t>(rseq_wait_abort);
    return section;
}

Rival::Rival() : pid_(fork()) {
    while (pid_ == 0) {
        sched_yield();
    }
    if (pid_ < 0) {
        perror("fork");
        abort();
    }
}

Rival::~Rival() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

}  // namespace dune::vmtest
