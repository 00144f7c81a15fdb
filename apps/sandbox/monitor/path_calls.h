// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_MONITOR_PATH_CALLS_H
#define DUNE_APPS_SANDBOX_MONITOR_PATH_CALLS_H

#include "monitor/dispatch.h"

namespace dune::sandbox {

// stat, access, readlink and their like: what a path is, without opening it. path_query.cc
long query_path(Call& call);

// mkdir, rename, unlink, chmod, chdir and their like. path_change.cc
long change_path(Call& call);

// fchmod, fchown and their like, and the forms of others that are about a descriptor: fchownat with
// an empty path, utimensat without a path. attributes.cc
long change_descriptor(Call& call);

// Is the path of a call with AT_EMPTY_PATH empty? Whoever passes the call on must pass a path of
// his own: the program's may be another one by then.
bool is_empty_path(uint64_t user_path);

}  // namespace dune::sandbox

#endif
