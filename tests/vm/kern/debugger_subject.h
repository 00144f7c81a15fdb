// SPDX-License-Identifier: MIT
//
// What kern_debugger_test and its subject tell each other, in a page that both map.

#ifndef DUNE_TESTS_VM_KERN_DEBUGGER_SUBJECT_H
#define DUNE_TESTS_VM_KERN_DEBUGGER_SUBJECT_H

#include <cstdint>

struct Shared {
    uint64_t rounds;     // that the guest has made
    uint64_t end;        // not 0: it is to leave
    uint64_t timer_us;   // wanted interval of SIGALRM, 0 for none
    uint64_t timer_set;  // the one it has
    uint64_t alarms;     // that its handler, in host mode, has seen
};

#endif
