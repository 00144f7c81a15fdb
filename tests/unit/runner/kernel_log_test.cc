// SPDX-License-Identifier: MIT

#include "kernel_log.h"

#include <gtest/gtest.h>

namespace {

using dune::vmtest::is_complaint;
using dune::vmtest::record_text;

TEST(KernelLog, RecordTextDropsPrefixAndDictionary) {
    EXPECT_EQ(record_text("4,1234,5678901,-;dune: hello\n SUBSYSTEM=misc\n"), "dune: hello");
    EXPECT_EQ(record_text("6,1,2,-;a; b\n"), "a; b");
    EXPECT_EQ(record_text("no prefix"), "no prefix");
}

class Complaint : public testing::TestWithParam<const char*> {};

TEST_P(Complaint, IsFound) {
    EXPECT_TRUE(is_complaint(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(
    KernelLines, Complaint,
    testing::Values("BUG: kernel NULL pointer dereference, address: 0000000000000008",
                    "kernel BUG at kern/ept.c:12!",
                    "WARNING: CPU: 0 PID: 61 at kern/vcpu.c:88 dune_run+0x1/0x20 [dune]",
                    "WARNING: possible circular locking dependency detected",
                    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
                    "general protection fault, probably for non-canonical address 0xdead: 0000",
                    "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [test:70]",
                    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                    "INFO: task test:70 blocked for more than 120 seconds.",
                    "BUG dune_vcpu (Tainted: G  O): Objects remaining in dune_vcpu on "
                    "__kmem_cache_shutdown()",
                    "unchecked MSR access error: WRMSR to 0x48 at rIP: 0xffffffffc0001000",
                    "BUG: Bad page state in process test  pfn:01234"));

class Harmless : public testing::TestWithParam<const char*> {};

TEST_P(Harmless, IsNotAComplaint) {
    EXPECT_FALSE(is_complaint(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(
    KernelLines, Harmless,
    testing::Values("dune: loading out-of-tree module taints kernel.",
                    "dune: module verification failed: signature and/or required key missing",
                    "traps: trap_test[77] general protection fault ip:401136 sp:7ffe error:0",
                    "trap_test[78]: segfault at 0 ip 0000000000401136 sp 00007ffe error 4",
                    "kvm: VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL does not work properly.", ""));

}  // namespace
