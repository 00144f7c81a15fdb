// SPDX-License-Identifier: MIT

#include <gtest/gtest.h>

#include "policy/mounts.h"

namespace dune::sandbox {
namespace {

TEST(Mounts, WhatLeadsToTheKernelIsHiddenElsewhere) {
    Policy policy = *Policy::preset("permissive", "/");
    hide_other_mounts(policy,
                      "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
                      "22 21 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n"
                      "23 22 0:20 /sys /proc/sys ro - proc proc rw\n"
                      "24 21 0:21 / /sys rw shared:7 master:3 - sysfs sysfs rw\n"
                      "25 21 0:20 / /srv/box/proc rw - proc none rw\n"
                      "26 21 0:6 / /srv/a\\040tab\\011/dev rw - devtmpfs udev rw\n"
                      "27 21 0:7 / /tracing rw shared:9 - tracefs tracefs rw\n"
                      "28 21 0:8 / /data rw - ext4 proc rw\n"
                      "29 21 0:21 /kernel /process rw - sysfs sysfs rw");
    EXPECT_EQ(policy.access("/proc/meminfo"), Access::Write);
    EXPECT_EQ(policy.access("/proc/sys/kernel"), Access::Write);
    EXPECT_EQ(policy.access("/sys/kernel"), Access::Read);
    EXPECT_EQ(policy.access("/srv/box/proc/self/mem"), Access::Hidden);
    EXPECT_EQ(policy.access("/srv/box"), Access::Write);
    EXPECT_EQ(policy.access("/srv/a tab\t/dev/sda"), Access::Hidden);
    EXPECT_EQ(policy.access("/tracing"), Access::Hidden);
    EXPECT_EQ(policy.access("/data"), Access::Write);
    EXPECT_EQ(policy.access("/process"), Access::Hidden);
}

TEST(Mounts, ABrokenListIsNoProblem) {
    Policy policy = *Policy::preset("default", "/");
    for (const char* const text : {"", "\n", "1 2 3", "1 2 3 4 /x", "1 2 3 4 /x - ", " - proc",
                                   "1 2 3 4 /x\\04 rw - proc p rw"}) {
        hide_other_mounts(policy, text);
    }
    EXPECT_EQ(policy.access("/etc/passwd"), Access::Read);
}

}  // namespace
}  // namespace dune::sandbox
