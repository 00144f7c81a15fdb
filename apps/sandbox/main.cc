// SPDX-License-Identifier: MIT
//
// dune-sandbox: two ways in. From a shell, it makes the policy and opens the program; executed by
// the monitor for a sandboxed program's execve, it finds both in its reserved descriptors.

#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "launch.h"
#include "monitor/exec.h"

namespace {

// The runtime has large tables and uses little of them at once. Zeroing a huge page for each would
// cost more than everything else at the start, so there are none until the program runs.
void without_huge_pages() {
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0) {
        dune::sandbox::huge_pages_were_on = prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0;
    }
}

// Constructors of static objects touch the tables, so it has to be done before them.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const before_constructors)() = without_huge_pages;

}  // namespace

int main(int argc, char** argv) {
    // Exactly the environment that the monitor makes; a person's has more, and no such descriptors.
    if (environ[0] != nullptr && environ[1] == nullptr) {
        constexpr size_t kLength = sizeof(dune::sandbox::kStateVariable) - 1;
        if (strncmp(environ[0], dune::sandbox::kStateVariable, kLength) == 0 &&
            environ[0][kLength] == '=') {
            return dune::sandbox::resume(atoi(environ[0] + kLength + 1));
        }
    }
    return dune::sandbox::launch(argc, argv);
}
