// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_MONITOR_VECTORS_H
#define DUNE_APPS_SANDBOX_MONITOR_VECTORS_H

#include <sys/uio.h>

#include "monitor/dispatch.h"

namespace dune::sandbox {

constexpr size_t kMaxIovec = sizeof(Thread::bytes) / sizeof(iovec);
static_assert(kMaxIovec >= 1024, "IOV_MAX vectors must fit");

// Copies an array of iovec and checks each: 0, -EFAULT or -EINVAL.
long copy_iovec(uint64_t from, uint64_t count, iovec* to, size_t room);

}  // namespace dune::sandbox

#endif
