// SPDX-License-Identifier: MIT
//
// For programs of the distribution: each is to do in the sandbox what it does without.

#ifndef DUNE_TESTS_VM_SANDBOX_SAME_AS_PLAIN_H
#define DUNE_TESTS_VM_SANDBOX_SAME_AS_PLAIN_H

#include <gtest/gtest.h>
#include <unistd.h>

#include "sandboxed.h"

namespace dune::sandbox_test {

// Runs the command plain and sandboxed, in /tmp, and expects the same output and success.
inline void same_as_plain(const std::vector<std::string>& command) {
    ASSERT_EQ(chdir("/tmp"), 0);
    const Outcome plain = run(command);
    const Outcome boxed = sandboxed({"--quiet"}, command);
    EXPECT_EQ(plain.status, 0) << plain.text();
    EXPECT_EQ(boxed.status, plain.status) << boxed.text();
    EXPECT_EQ(boxed.out, plain.out) << boxed.text();
}

}  // namespace dune::sandbox_test

#endif
