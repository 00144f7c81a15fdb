// SPDX-License-Identifier: MIT
//
// Several threads on one root, on several, and around fork().
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "fake_backing.h"
#include "mm/fault.h"
#include "mm/fork.h"
#include "vm_model.h"

namespace dune::test {
namespace {

constexpr std::uint64_t kVa = 0x1'0000'0000;
constexpr int kThreads = 4;

ptent_t* new_root() {
    return static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed()));
}

void in_threads(const std::function<void(unsigned)>& work) {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; ++t)
        threads.emplace_back(work, t);
    for (std::thread& thread : threads)
        thread.join();
}

TEST(VmThreads, OneRootPagesOfTheirOwn) {
    const FakeBacking backing;
    ptent_t* const root = new_root();
    in_threads([root](unsigned t) {
        std::mt19937 random(t);
        // Interleaved pages: all threads work in the same tables.
        const auto page = [t](std::uint64_t i) { return kVa + (i * kThreads + t) * k4K; };
        constexpr std::uint64_t kPages = 200;
        std::vector<int> perm(kPages, -1);
        for (int i = 0; i < 20'000; ++i) {
            const std::uint64_t n = random() % kPages;
            void* const va = at(page(n));
            const int wanted = random() % 2 == 0 ? PERM_R : PERM_R | PERM_W;
            switch (random() % 4) {
                case 0:
                    ASSERT_EQ(dune_vm_map_pages(root, va, k4K, wanted), 0);
                    perm[n] = wanted;
                    break;
                case 1:
                    ASSERT_EQ(dune_vm_unmap(root, va, k4K), perm[n] < 0 ? -EINVAL : 0);
                    perm[n] = -1;
                    break;
                case 2:
                    ASSERT_EQ(dune_vm_mprotect(root, va, k4K, wanted), perm[n] < 0 ? -EINVAL : 0);
                    if (perm[n] >= 0)
                        perm[n] = wanted;
                    break;
                default: {
                    ptent_t* slot = nullptr;
                    const int rc = dune_vm_lookup(root, va, CREATE_NONE, &slot);
                    ASSERT_EQ(rc, perm[n] < 0 ? -ENOENT : 0);
                    ASSERT_TRUE(rc != 0 ||
                                visible(mm::load(slot)) == (mm::perm_bits(perm[n]) | PTE_POOL));
                }
            }
        }
    });
    dune_vm_free(root);
}

TEST(VmThreads, RootsComeAndGo) {
    const FakeBacking backing;
    in_threads([](unsigned t) {
        for (int i = 0; i < 300; ++i) {
            ptent_t* const root = new_root();
            const physaddr_t pa = (t * 1000ULL + static_cast<unsigned>(i)) << 20;
            ASSERT_EQ(dune_vm_map_phys(root, at(kVa), 4 * k4K, at(pa), PERM_R), 0);
            for (int n = 0; n < 20; ++n) {
                ASSERT_EQ(
                    dune_vm_mprotect(root, at(kVa + k4K), k4K, n % 2 == 0 ? PERM_NONE : PERM_R), 0);
                ptent_t* slot = nullptr;
                ASSERT_EQ(dune_vm_lookup(root, at(kVa + k4K), CREATE_NONE, &slot), 0);
                ASSERT_EQ(PTE_ADDR(*slot), pa + k4K) << "another root's entry";
            }
            dune_vm_free(root);
        }
    });
}

TEST(VmThreads, ClonesWhileOthersProtectAndCopy) {
    const FakeBacking backing;
    ptent_t* const root = new_root();
    constexpr std::uint64_t kPages = 64;
    ASSERT_EQ(dune_vm_map_pages(root, at(kVa), kPages * k4K, PERM_R | PERM_W), 0);
    in_threads([root](unsigned t) {
        std::mt19937 random(t);
        for (int i = 0; i < 500; ++i) {
            if (t == 0) {
                ptent_t* const copy = dune_vm_clone(root);
                ASSERT_NE(copy, nullptr);
                for (std::uint64_t n = 0; n < kPages; ++n) {
                    ptent_t* slot = nullptr;
                    ASSERT_EQ(dune_vm_lookup(copy, at(kVa + n * k4K), CREATE_NONE, &slot), 0);
                    ASSERT_EQ(*slot & PTE_W, 0U) << "a page of the clone that is shared";
                }
                const std::uint64_t va = kVa + random() % kPages * k4K;
                const int rc = mm::resolve_fault(copy, va, FEC_P | FEC_W);
                ASSERT_TRUE(rc == 0 || rc == -EFAULT) << rc;  // read only in the original
                dune_vm_free(copy);
                continue;
            }
            const std::uint64_t va = kVa + random() % kPages * k4K;
            if (random() % 2 == 0) {
                ASSERT_EQ(dune_vm_mprotect(root, at(va), k4K,
                                           random() % 2 == 0 ? PERM_R : PERM_R | PERM_W),
                          0);
            } else {
                const int rc = mm::resolve_fault(root, va, FEC_P | FEC_W);
                ASSERT_TRUE(rc == 0 || rc == -EFAULT) << rc;
            }
        }
    });
    // Nobody shares any more: all can be made writable, and every page has one reference.
    ASSERT_EQ(dune_vm_mprotect(root, at(kVa), kPages * k4K, PERM_R | PERM_W), 0);
    for (std::uint64_t n = 0; n < kPages; ++n) {
        EXPECT_EQ(dune_vm_lookup_page(root, at(kVa + n * k4K))->ref, 1U);
        ptent_t* slot = nullptr;
        ASSERT_EQ(dune_vm_lookup(root, at(kVa + n * k4K), CREATE_NONE, &slot), 0);
        EXPECT_EQ(visible(*slot), PTE_P | PTE_W | PTE_NX | PTE_POOL);
    }
    dune_vm_free(root);
}

TEST(VmThreads, ForkGivesTheChildFreeLocks) {
    const FakeBacking backing;
    ptent_t* const root = new_root();
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 2; ++t)
        threads.emplace_back([root, t, &stop] {
            while (!stop) {
                ASSERT_EQ(dune_vm_map_pages(root, at(kVa + t * k2M), 16 * k4K, PERM_R), 0);
                ASSERT_EQ(dune_vm_unmap(root, at(kVa + t * k2M), 16 * k4K), 0);
            }
        });
    for (int i = 0; i < 50; ++i) {
        mm::lock_before_fork();
        const pid_t pid = fork();
        mm::unlock_after_fork();
        ASSERT_GE(pid, 0);
        if (pid == 0) {
            alarm(10);  // a lock that stays held must not hang the test
            const int rc = dune_vm_map_pages(root, at(kVa + k1G), 600 * k4K, PERM_R);
            page* const pg = dune_page_alloc();
            _exit(rc == 0 && pg != nullptr && dune_vm_clone(root) != nullptr ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_EQ(status, 0);
    }
    stop = true;
    for (std::thread& thread : threads)
        thread.join();
    dune_vm_free(root);
}

}  // namespace
}  // namespace dune::test
