// SPDX-License-Identifier: MIT
//
// A hostile program: `sandbox_attacker ATTACK [ARGUMENT]` tries to get at what a sandboxed program
// must not, and exits with 0 if it was refused in every way. What went through is on stderr.

#include "attacker.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sandboxed.h"

namespace dune::sandbox_test {

int escapes;

void escaped(const char* what, unsigned long where) {
    fprintf(stderr, "ESCAPED: %s (%#lx)\n", what, where);
    escapes++;
}

namespace {

// /proc/self/maps does not show it: somebody outside of the sandbox tells (sandboxed.h).
std::vector<Target> ask_for_memory() {
    constexpr unsigned long kUserEnd = 1ul << 46;
    std::vector<Target> targets;
    fputs(kWhere, stdout);
    fflush(stdout);
    char line[512];
    while (fgets(line, sizeof(line), stdin) != nullptr) {
        unsigned long begin;
        unsigned long end;
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, rights) == 3 && begin >= kUserEnd &&
            begin >> 47 == 0) {
            targets.push_back({begin, end - begin, rights[0] == 'r', rights[1] == 'w'});
        }
    }
    if (targets.empty()) {
        fprintf(stderr, "no memory of the runtime is to be seen\n");
        exit(2);
    }
    return targets;
}

}  // namespace

const std::vector<Target>& runtime_memory() {
    static const std::vector<Target> targets = ask_for_memory();
    return targets;
}

namespace {

constexpr struct {
    const char* name;
    void (*attack)(const char* argument);
} kAttacks[] = {
    {"memory", attack_memory},
    {"pointers", attack_pointers},
    {"mappings", attack_mappings},
    {"descriptors", attack_descriptors},
    {"instructions", attack_instructions},
    {"single-step", attack_single_step},
    {"calls", attack_calls},
    {"paths", attack_paths},
    {"attributes", attack_attributes},
    {"empty-path-race", attack_empty_path_race},
    {"path-race", attack_path_race},
    {"iovec-race", attack_iovec_race},
    {"signals", attack_signals},
    {"robust-list", attack_robust_list},
    {"frames", attack_frames},
    {"rseq", attack_rseq},
    {"network", attack_network},
    {"zero-copy", attack_zero_copy},
    {"message-race", attack_message_race},
    {"process-descriptor", attack_process_descriptor},
    {"kernel", attack_kernel},
    {"outsiders", attack_outsiders},
    {"other-mount", attack_other_mount},
    {"random", attack_random},
};

}  // namespace

}  // namespace dune::sandbox_test

int main(int argc, char** argv) {
    using namespace dune::sandbox_test;
    for (const auto& entry : kAttacks) {
        if (argc >= 2 && strcmp(entry.name, argv[1]) == 0) {
            entry.attack(argc > 2 ? argv[2] : "");
            return escapes == 0 ? 0 : 1;
        }
    }
    fprintf(stderr, "no attack \"%s\"\n", argc > 1 ? argv[1] : "");
    return 2;
}
