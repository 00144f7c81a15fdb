// SPDX-License-Identifier: MIT

#ifndef DUNE_TESTS_VM_SANDBOX_ATTACKER_H
#define DUNE_TESTS_VM_SANDBOX_ATTACKER_H

#include <cstddef>
#include <vector>

namespace dune::sandbox_test {

// Reports that something worked that must not.
void escaped(const char* what, unsigned long where);

// The same if a call did not answer -1.
inline void must_fail(const char* what, long result) {
    if (result != -1) {
        escaped(what, static_cast<unsigned long>(result));
    }
}

// A mapping of the runtime, as /proc/self/maps tells.
struct Target {
    unsigned long at;
    size_t size;
    bool readable, writable;
};
const std::vector<Target>& runtime_memory();

// attack_memory.cc
void attack_memory(const char*);
void attack_pointers(const char*);
void attack_mappings(const char*);
// attack_cpu.cc
void attack_instructions(const char* only);
void attack_single_step(const char*);
// attack_calls.cc
void attack_descriptors(const char*);
void attack_calls(const char*);
void attack_signals(const char*);
void attack_robust_list(const char*);
// attack_frames.cc
void attack_frames(const char*);
// attack_rseq.cc
void attack_rseq(const char*);
// attack_net.cc
void attack_network(const char*);
void attack_zero_copy(const char*);
void attack_message_race(const char* readable);
void attack_process_descriptor(const char* number);
// attack_kernel.cc
void attack_kernel(const char*);
// attack_outside.cc
void attack_outsiders(const char*);
void attack_other_mount(const char* where);
// attack_attributes.cc
void attack_attributes(const char* readable);
void attack_empty_path_race(const char* secret);
// attack_races.cc
void attack_paths(const char* secret);
void attack_path_race(const char* secret);
void attack_iovec_race(const char*);
// attack_random.cc
void attack_random(const char* seed);

}  // namespace dune::sandbox_test

#endif
