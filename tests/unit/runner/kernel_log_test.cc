// SPDX-License-Identifier: MIT

#include "kernel_log.h"

#include <gtest/gtest.h>

namespace {

using dune::vmtest::record_text;

TEST(KernelLog, RecordTextDropsPrefixAndDictionary) {
    EXPECT_EQ(record_text("4,1234,5678901,-;dune: hello\n SUBSYSTEM=misc\n"), "dune: hello");
    EXPECT_EQ(record_text("6,1,2,-;a; b\n"), "a; b");
    EXPECT_EQ(record_text("no prefix"), "no prefix");
}

}  // namespace
