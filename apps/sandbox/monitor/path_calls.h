// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_MONITOR_PATH_CALLS_H
#define DUNE_APPS_SANDBOX_MONITOR_PATH_CALLS_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

// stat, access, readlink and their like: what a path is, without opening it. path_query.cc
long query_path(Call& call);

// mkdir, rename, unlink, chmod, chdir and their like. path_change.cc
long change_path(Call& call);

}  // namespace dune::sandbox

#endif
