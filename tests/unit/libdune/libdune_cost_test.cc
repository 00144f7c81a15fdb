// SPDX-License-Identifier: MIT
//
// What the functions cost that programs call in their traps, in instructions: a child is
// single-stepped through each. Only of an optimised build does the number mean anything.
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "libdune/vm.h"
#include "mm/pool.h"
#include "mm/slots.h"

namespace dune::test {
namespace {

#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeaningful = false;
#else
constexpr bool kMeaningful = true;
#endif

constexpr std::uint64_t k4K = 1 << 12;
constexpr std::uint64_t kVa = 0x1'0000'0000;

void* at(std::uint64_t va) {
    return reinterpret_cast<void*>(va);
}

/// Instructions between two breakpoints that `work` is called between, in a child.
long steps(const std::function<void()>& work) {
    const pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        asm volatile("int3");
        work();
        asm volatile("int3");
        _exit(0);
    }
    long count = 0;
    int status = 0;
    constexpr long kInt3 = 0xcc;
    waitpid(child, &status, 0);
    while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) {
        const long rip = ptrace(PTRACE_PEEKUSER, child, offsetof(user_regs_struct, rip), nullptr);
        if ((ptrace(PTRACE_PEEKTEXT, child, rip, nullptr) & 0xff) == kInt3)
            break;
        ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
        waitpid(child, &status, 0);
        ++count;
    }
    const bool finished = WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return finished ? count : -1;
}

/// Without what it takes to call `work`; per unit.
double cost(const std::function<void()>& work, double units = 1) {
    static const long empty = steps([] {});
    const long all = steps(work);
    EXPECT_GE(all, empty) << "the child died";
    return static_cast<double>(all - empty) / units;
}

class Cost : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const auto bind = [](void*, std::uint32_t, std::uint32_t) noexcept { return 0; };
        ASSERT_TRUE(mm::slots().init(1 << 10, bind, nullptr).ok());
    }
    void SetUp() override {
        if (!kMeaningful)
            GTEST_SKIP() << "not optimised";
        root_ = static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed()));
    }
    void TearDown() override {
        if (root_ != nullptr)
            dune_vm_free(root_);
    }
    void expect(const char* what, double instructions, double limit) {
        std::printf("%-44s %7.1f instructions (at most %g)\n", what, instructions, limit);
        EXPECT_LE(instructions, limit) << what;
    }
    ptent_t* root_ = nullptr;
};

TEST_F(Cost, ProtectAndLookUpOnePage) {
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), 512 * k4K, at(1 << 30), PERM_R | PERM_W), 0);
    ASSERT_EQ(dune_vm_mprotect(root_, at(kVa), k4K, PERM_R), 0);  // now the tables are known
    ptent_t* const root = root_;
    // The function: its inline part is ring 0's. There INVLPG takes the place of four instructions.
    expect("dune_vm_mprotect of a page",
           cost([root] { (dune_vm_mprotect)(root, at(kVa + 5 * k4K), k4K, PERM_R | PERM_W); }), 45);
    expect("dune_vm_lookup of a page", cost([root] {
               ptent_t* slot;
               dune_vm_lookup(root, at(kVa + 5 * k4K), CREATE_NONE, &slot);
           }),
           30);
    ptent_t* const other = static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed()));
    ASSERT_EQ(dune_vm_map_phys(other, at(kVa), 512 * k4K, at(1 << 30), PERM_R | PERM_W), 0);
    expect("the same in a root that has no map",
           cost([other] { dune_vm_mprotect(other, at(kVa + 5 * k4K), k4K, PERM_R | PERM_W); }),
           400);
    dune_vm_free(other);
}

TEST_F(Cost, ProtectManyPages) {
    constexpr std::uint64_t kPages = 100;
    ASSERT_EQ(dune_vm_map_phys(root_, at(kVa), kPages * k4K, at(1 << 30), PERM_R | PERM_W), 0);
    ptent_t* const root = root_;
    expect("dune_vm_mprotect of 100 pages, a page",
           cost([root] { dune_vm_mprotect(root, at(kVa), kPages * k4K, PERM_R); }, kPages), 25);
}

TEST_F(Cost, CloneOf100MiB) {
    // Stepping through all of it takes long: twice 512 pages tell what it comes to.
    constexpr double kStep = 512;
    constexpr double kPages = 100 << 8;
    const auto per_page = [](int (*map)(ptent_t * root, void* va)) {
        auto* const root = static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed()));
        double total[2];
        for (unsigned i = 0; i < 2; ++i) {
            EXPECT_EQ(map(root, at(kVa + i * 512 * k4K)), 0);
            total[i] = cost([root] { dune_vm_clone(root); });
        }
        dune_vm_free(root);
        return (total[0] + (total[1] - total[0]) * (kPages / kStep - 1)) / kPages;
    };
    expect("dune_vm_clone of Linux' memory, a page", per_page([](ptent_t* root, void* va) {
               return dune_vm_map_phys(root, va, 512 * k4K, at(1 << 30), PERM_R | PERM_W);
           }),
           25);
    expect("dune_vm_clone of pages of the pool, a page", per_page([](ptent_t* root, void* va) {
               return dune_vm_map_pages(root, va, 512 * k4K, PERM_R | PERM_W);
           }),
           25);
}

TEST_F(Cost, PagesOfThePool) {
    dune_page_put(dune_page_alloc());
    expect("dune_page_alloc", cost([] { dune_page_alloc(); }), 24);
    page* const pg = dune_page_alloc();
    expect("dune_page_put", cost([pg] { dune_page_put(pg); }), 40);
    dune_page_put(pg);
}

TEST_F(Cost, Addresses) {
    static char here;
    dune_va_to_pa(&here);
    expect("dune_va_to_pa", cost([] { dune_va_to_pa(&here); }), 40);
}

}  // namespace
}  // namespace dune::test
