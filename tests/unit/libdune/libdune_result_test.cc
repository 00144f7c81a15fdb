// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "dune/result.h"

namespace dune::test {
namespace {

TEST(Result, HoldsAValueOrAnError) {
    const Result<int> good = 5;
    EXPECT_TRUE(good.ok());
    EXPECT_TRUE(static_cast<bool>(good));
    EXPECT_EQ(*good, 5);
    EXPECT_EQ(good.code(), 0);
    const Result<int> bad = Error(-ENOMEM);
    EXPECT_FALSE(bad.ok());
    EXPECT_EQ(bad.code(), -ENOMEM);
    EXPECT_EQ(bad.error(), Error(-ENOMEM));
    EXPECT_NE(bad.error(), Error(-EINVAL));
    EXPECT_EQ(Result<int>(Error(-1)).value_or(7), 7);
    EXPECT_EQ(Result<int>(3).value_or(7), 3);
}

TEST(Result, MovesWhatCanOnlyBeMoved) {
    struct Counted {
        explicit Counted(int* count) : count_(count) { ++*count_; }
        ~Counted() { --*count_; }
        int* count_;
    };
    int alive = 0;
    {
        Result<std::unique_ptr<Counted>> a = std::make_unique<Counted>(&alive);
        Result<std::unique_ptr<Counted>> b = std::move(a);
        ASSERT_TRUE(b.ok());
        EXPECT_EQ(alive, 1);
        a = Error(-EIO);
        EXPECT_EQ(a.code(), -EIO);
        a = std::move(b);
        ASSERT_TRUE(a.ok());
        const std::unique_ptr<Counted> taken = *std::move(a);
        EXPECT_EQ(alive, 1);
        b = Error(-EIO);
        EXPECT_EQ(b.code(), -EIO);
    }
    EXPECT_EQ(alive, 0);
}

TEST(Result, OfNothing) {
    EXPECT_TRUE(Result<void>().ok());
    EXPECT_EQ(Result<void>::from(0).code(), 0);
    EXPECT_EQ(Result<void>::from(-EPERM).code(), -EPERM);
    EXPECT_FALSE(Result<void>(Error(-EPERM)));
}

TEST(ResultDeathTest, TheValueOfAnErrorTraps) {
    Result<int> bad = Error(-EINVAL);
    EXPECT_DEATH(static_cast<void>(bad.value()), "");
    EXPECT_DEATH(static_cast<void>(*bad), "");
}

constexpr int constant() {
    Result<int> r = 4;
    r = Result<int>(Error(-EINVAL));
    return r.ok() ? 1 : r.code();
}
static_assert(constant() == -EINVAL, "usable in constant expressions");

}  // namespace
}  // namespace dune::test
