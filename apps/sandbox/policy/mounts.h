// SPDX-License-Identifier: MIT
//
// File systems that are a way to the kernel: /proc, /sys, /dev. Rules about them go by their names,
// so what is mounted at another place, as in a container's tree, is hidden.

#ifndef DUNE_APPS_SANDBOX_POLICY_MOUNTS_H
#define DUNE_APPS_SANDBOX_POLICY_MOUNTS_H

#include "policy/policy.h"

namespace dune::sandbox {

// Hides what /proc/self/mountinfo (proc_pid_mountinfo(5)) lists of such file systems and `policy`
// lets be opened. Context: host mode, before the program starts.
void hide_other_mounts(Policy& policy, std::string_view mountinfo);

}  // namespace dune::sandbox

#endif
