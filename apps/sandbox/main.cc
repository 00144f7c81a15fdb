// SPDX-License-Identifier: MIT
//
// dune-sandbox: two ways in. From a shell, it makes the policy and opens the program; executed by
// the monitor for a sandboxed program's execve, it finds both in its reserved descriptors.

#include <cstdlib>
#include <cstring>

#include "launch.h"
#include "monitor/exec.h"

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
