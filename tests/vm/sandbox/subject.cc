// SPDX-License-Identifier: MIT
//
// A program to be sandboxed: `sandbox_subject TEST` does what programs do and exits with 0 if all
// of it worked as on plain Linux (where it can be run as well). What failed is on stderr.

#include "subject.h"

#include <cstdio>
#include <cstring>

namespace dune::sandbox_test {

int failures;

void failed(const char* file, int line, const char* what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    failures++;
}

namespace {

constexpr struct {
    const char* name;
    void (*test)();
} kTests[] = {
    {"auxv", test_auxv},         {"brk", test_brk},         {"mappings", test_mappings},
    {"jit", test_jit},           {"mremap", test_mremap},   {"signals", test_signals},
    {"altstack", test_altstack}, {"segv", test_segv},       {"restart", test_restart},
    {"longjmp", test_longjmp},   {"vectors", test_vectors}, {"sigsuspend", test_sigsuspend},
    {"threads", test_threads},   {"robust", test_robust},   {"processes", test_processes},
    {"spawn", test_spawn},       {"fexecve", test_fexecve}, {"descriptors", test_descriptors},
    {"files", test_files},       {"rseq", test_rseq},       {"proc", test_proc},
    {"start", test_start},       {"limits", test_limits},
};

}  // namespace

}  // namespace dune::sandbox_test

int main(int argc, char** argv) {
    using namespace dune::sandbox_test;
    for (const auto& entry : kTests) {
        if (argc == 2 && strcmp(entry.name, argv[1]) == 0) {
            entry.test();
            return failures == 0 ? 0 : 1;
        }
    }
    fprintf(stderr, "no test \"%s\"\n", argc > 1 ? argv[1] : "");
    return 2;
}
