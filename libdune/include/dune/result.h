// SPDX-License-Identifier: MIT
/**
 * @file
 * dune::Result<T>: a value or an error number, where std::expected would be used in C++23.
 *
 * Nothing here throws or allocates: it may be used in trap handlers. Reading the value of
 * a failed result is a bug of the caller and traps.
 */
#pragma once

#include <cerrno>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace dune {

/** What went wrong: a negative errno, as the C functions return it. */
class [[nodiscard]] Error {
  public:
    /** @param code a negative errno, e.g. -ENOMEM */
    explicit constexpr Error(int code) noexcept : code_(code) {}
    constexpr int code() const noexcept { return code_; }
    friend constexpr bool operator==(Error, Error) noexcept = default;

  private:
    int code_;
};

/** A T, or the Error that prevented it. */
template <class T>
class [[nodiscard]] Result {
    static_assert(std::is_nothrow_move_constructible_v<T>, "a trap handler cannot unwind");

  public:
    using value_type = T;

    // NOLINTNEXTLINE(google-explicit-constructor): `return value;`
    constexpr Result(T value) noexcept : value_(std::move(value)), code_(0) {}
    // NOLINTNEXTLINE(google-explicit-constructor): `return Error(-EINVAL);`
    constexpr Result(Error error) noexcept : none_{}, code_(error.code()) {}

    constexpr Result(Result&& other) noexcept : none_{}, code_(other.code_) {
        if (other.ok())
            std::construct_at(std::addressof(value_), std::move(other.value_));
    }
    constexpr Result& operator=(Result&& other) noexcept {
        if (this != &other) {
            std::destroy_at(this);
            std::construct_at(this, std::move(other));
        }
        return *this;
    }
    Result(const Result&) = delete;
    Result& operator=(const Result&) = delete;
    constexpr ~Result() {
        if (ok())
            std::destroy_at(std::addressof(value_));
    }

    constexpr bool ok() const noexcept { return code_ == 0; }
    explicit constexpr operator bool() const noexcept { return ok(); }

    /** 0, or the negative errno: what a C function returns. */
    constexpr int code() const noexcept { return code_; }
    constexpr Error error() const noexcept { return Error(code_); }

    constexpr T& value() & noexcept {
        check();
        return value_;
    }
    constexpr const T& value() const& noexcept {
        check();
        return value_;
    }
    constexpr T&& value() && noexcept {
        check();
        return std::move(value_);
    }
    constexpr T value_or(T other) && noexcept {
        return ok() ? std::move(value_) : std::move(other);
    }
    constexpr T& operator*() & noexcept { return value(); }
    constexpr const T& operator*() const& noexcept { return value(); }
    constexpr T&& operator*() && noexcept { return std::move(*this).value(); }
    constexpr T* operator->() noexcept { return std::addressof(value()); }
    constexpr const T* operator->() const noexcept { return std::addressof(value()); }

  private:
    constexpr void check() const noexcept {
        if (!ok())
            __builtin_trap();
    }

    struct None {};
    union {
        T value_;
        None none_;
    };
    int code_;
};

/** Success, or an Error. */
template <>
class [[nodiscard]] Result<void> {
  public:
    using value_type = void;

    constexpr Result() noexcept = default;
    // NOLINTNEXTLINE(google-explicit-constructor): `return Error(-EINVAL);`
    constexpr Result(Error error) noexcept : code_(error.code()) {}
    /** From the result of a C function: 0 or a negative errno. */
    static constexpr Result from(int code) noexcept {
        return code == 0 ? Result() : Result(Error(code));
    }

    constexpr bool ok() const noexcept { return code_ == 0; }
    explicit constexpr operator bool() const noexcept { return ok(); }
    constexpr int code() const noexcept { return code_; }
    constexpr Error error() const noexcept { return Error(code_); }

  private:
    int code_ = 0;
};

}  // namespace dune
