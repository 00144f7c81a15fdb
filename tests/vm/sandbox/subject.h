// SPDX-License-Identifier: MIT

#ifndef DUNE_TESTS_VM_SANDBOX_SUBJECT_H
#define DUNE_TESTS_VM_SANDBOX_SUBJECT_H

namespace dune::sandbox_test {

void failed(const char* file, int line, const char* what);

#define CHECK(condition)                            \
    do {                                            \
        if (!(condition))                           \
            failed(__FILE__, __LINE__, #condition); \
    } while (0)

// subject_memory.cc
void test_auxv();
void test_brk();
void test_mappings();
void test_jit();
void test_mremap();
// subject_signals.cc
void test_signals();
void test_altstack();
void test_segv();
void test_restart();
void test_longjmp();
void test_vectors();
void test_sigsuspend();
// subject_processes.cc
void test_threads();
void test_robust();
void test_processes();
void test_spawn();
void test_fexecve();
// subject_files.cc
void test_descriptors();
void test_files();
// subject_rseq.cc
void test_rseq();
// subject_proc.cc
void test_proc();
void test_start();
void test_limits();

}  // namespace dune::sandbox_test

#endif
