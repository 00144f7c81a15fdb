// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "mm/slots.h"

namespace dune::test {
namespace {

using mm::SlotMap;

constexpr std::uint64_t kGiB = SlotMap::kSize;

/// The kernel's side: which virtual slot each guest-physical one shows.
struct Kernel {
    std::map<std::uint32_t, std::uint32_t> shown;
    unsigned calls = 0;
    int refuse_with = 0;

    static int bind(void* context, std::uint32_t virt, std::uint32_t phys) noexcept {
        auto& kernel = *static_cast<Kernel*>(context);
        ++kernel.calls;
        if (kernel.refuse_with != 0)
            return kernel.refuse_with;
        EXPECT_TRUE(kernel.shown.emplace(phys, virt).second) << "bound twice: " << phys;
        return 0;
    }
};

class Slots : public ::testing::Test {
  protected:
    void init(std::uint64_t phys_slots) {
        ASSERT_TRUE(map_->init(phys_slots, Kernel::bind, &kernel_).ok());
    }
    Kernel kernel_;
    std::unique_ptr<SlotMap> map_ = std::make_unique<SlotMap>();
};

TEST_F(Slots, AddressesKeepTheirPlaceInTheSlot) {
    init(1 << 10);
    for (const std::uint64_t va : {0ULL, 0x1234ULL, 0x5555'5555'4321ULL, 0x7fff'ffff'efffULL}) {
        EXPECT_EQ(map_->find(va) != 0, va == 0x1234) << "looking takes no slot";
        const Result<physaddr_t> pa = map_->va_to_pa(va);
        ASSERT_TRUE(pa.ok());
        EXPECT_EQ(*pa % kGiB, va % kGiB);
        EXPECT_GE(*pa, kGiB) << "slot 0 stays empty";
        EXPECT_EQ(*map_->va_to_pa(va), *pa) << "stays where it is";
        EXPECT_EQ(map_->find(va), *pa);
        EXPECT_EQ(*map_->pa_to_va(*pa), va);
        EXPECT_EQ(kernel_.shown.at(static_cast<std::uint32_t>(*pa / kGiB)), va / kGiB);
    }
    EXPECT_EQ(kernel_.calls, 3U) << "the first two share a slot";
    EXPECT_EQ(map_->used(), 3U);
}

TEST_F(Slots, LowSlotsStandAtTheirOwnNumber) {
    init(64);
    EXPECT_EQ(*map_->va_to_pa(8 * kGiB + 5), 8 * kGiB + 5);
    EXPECT_EQ(*map_->va_to_pa(63 * kGiB), 63 * kGiB);
    EXPECT_EQ(*map_->va_to_pa(64 * kGiB), 62 * kGiB) << "from the top, where it is free";
    EXPECT_EQ(*map_->va_to_pa(62 * kGiB), 61 * kGiB) << "its own is taken";
    EXPECT_EQ(*map_->va_to_pa(5), 60 * kGiB + 5) << "slot 0 cannot be used";
}

TEST_F(Slots, BadAddressesAndArguments) {
    EXPECT_EQ(map_->va_to_pa(4096).code(), -ENOSPC) << "before init";
    EXPECT_EQ(map_->init(1, Kernel::bind, &kernel_).code(), -EINVAL);
    EXPECT_EQ(map_->init(64, nullptr, nullptr).code(), -EINVAL);
    init(64);
    for (const std::uint64_t va : {1ULL << 47, 1ULL << 48, 1ULL << 63, ~0ULL}) {
        EXPECT_EQ(map_->va_to_pa(va).code(), -EINVAL);
        EXPECT_EQ(map_->find(va), 0U);
    }
    for (const std::uint64_t pa : {0UL, 5UL, 3 * kGiB, 64 * kGiB, 1UL << 52, ~0UL})
        EXPECT_EQ(map_->pa_to_va(pa).code(), -EINVAL);
}

TEST_F(Slots, ExhaustionAndRefusalAreErrors) {
    init(64);
    EXPECT_EQ(map_->capacity(), 63U);
    for (std::uint64_t i = 0; i < 63; ++i)
        ASSERT_TRUE(map_->va_to_pa((1000 + i) * kGiB).ok());
    EXPECT_EQ(kernel_.shown.size(), 63U);
    EXPECT_FALSE(kernel_.shown.contains(0));
    EXPECT_EQ(map_->va_to_pa(5 * kGiB).code(), -ENOSPC);
    EXPECT_TRUE(map_->va_to_pa(1005 * kGiB).ok()) << "what is there stays";
    EXPECT_EQ(map_->used(), 63U);

    init(64);
    EXPECT_EQ(map_->find(1005 * kGiB), 0U) << "empty again";
    kernel_ = {};
    kernel_.refuse_with = -EIO;
    EXPECT_EQ(map_->va_to_pa(5 * kGiB).code(), -EIO);
    EXPECT_EQ(map_->used(), 0U);
    kernel_.refuse_with = 0;
    EXPECT_EQ(*map_->va_to_pa(5 * kGiB), 5 * kGiB) << "nothing was left behind";
}

TEST_F(Slots, WideSpacesAreCutToWhatTheTableHolds) {
    init(1ULL << 22);  // MAXPHYADDR 52
    EXPECT_EQ(map_->capacity(), SlotMap::kMaxPhysical - 1);
    EXPECT_EQ(*map_->va_to_pa(100'000 * kGiB), (SlotMap::kMaxPhysical - 1) * kGiB);
}

TEST_F(Slots, RunsAreContiguous) {
    init(64);
    EXPECT_EQ(*map_->take_run(8 * kGiB, 5), 8 * kGiB) << "at their own numbers";
    EXPECT_EQ(map_->take_run(12 * kGiB, 2).code(), -EBUSY);
    const std::uint64_t far = 0x1234 * kGiB;
    EXPECT_EQ(*map_->take_run(far, 4), 60 * kGiB);
    for (std::uint64_t i = 0; i < 4; ++i)
        EXPECT_EQ(*map_->va_to_pa(far + i * kGiB + 7), (60 + i) * kGiB + 7);
    EXPECT_EQ(map_->take_run(far + 100 * kGiB, 48).code(), -ENOSPC) << "47 in one piece";
    EXPECT_EQ(*map_->take_run(far + 100 * kGiB, 47), 13 * kGiB);
    EXPECT_EQ(map_->take_run(far + 1000 * kGiB, 64).code(), -ENOSPC);
    EXPECT_EQ(map_->take_run(1, 1).code(), -EINVAL);
    EXPECT_EQ(map_->take_run(1ULL << 47, 1).code(), -EINVAL);
    EXPECT_EQ(map_->take_run((1ULL << 47) - kGiB, 2).code(), -EINVAL);
    EXPECT_EQ(map_->take_run(kGiB, 0).code(), -EINVAL);
}

TEST_F(Slots, AForkedChildIsToldEverything) {
    init(64);
    for (const std::uint64_t slot : {3U, 0x1555U, 0x1ffffU, 0U})
        ASSERT_TRUE(map_->va_to_pa(slot * kGiB).ok());
    Kernel child;
    ASSERT_TRUE(map_->replay(Kernel::bind, &child).ok());
    EXPECT_EQ(child.shown, kernel_.shown);
    const unsigned before = kernel_.calls;
    ASSERT_TRUE(map_->va_to_pa(4 * kGiB).ok());
    EXPECT_EQ(kernel_.calls, before) << "new slots are the child's affair";
    EXPECT_TRUE(child.shown.contains(4));
    child = {};
    child.refuse_with = -EPERM;
    EXPECT_EQ(map_->replay(Kernel::bind, &child).code(), -EPERM);
    EXPECT_EQ(child.calls, 1U);
    EXPECT_EQ(map_->replay(nullptr, nullptr).code(), -EINVAL);
}

TEST_F(Slots, ThreadsAgree) {
    init(SlotMap::kMaxPhysical);
    constexpr int kThreads = 4;
    std::vector<std::vector<physaddr_t>> seen(kThreads);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([this, &mine = seen[static_cast<std::size_t>(t)]] {
            std::mt19937 random(1);  // all the same addresses, at about the same time
            for (int i = 0; i < 3000; ++i)
                mine.push_back(*map_->va_to_pa(random() % SlotMap::kVirtual * kGiB));
        });
    for (std::thread& thread : threads)
        thread.join();
    for (const auto& mine : seen)
        EXPECT_EQ(mine, seen[0]);
    EXPECT_EQ(map_->used(), kernel_.shown.size());
}

}  // namespace
}  // namespace dune::test
