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
    /** The negative errno. */
    constexpr int code() const noexcept { return code_; }
    /** The same error? */
    friend constexpr bool operator==(Error, Error) noexcept = default;

  private:
    int code_;
};

/** A T, or the Error that prevented it. */
template <class T>
class [[nodiscard]] Result {
    static_assert(std::is_nothrow_move_constructible_v<T>, "a trap handler cannot unwind");

  public:
    /** What it holds on success. */
    using value_type = T;

    /** Success. */
    // NOLINTNEXTLINE(google-explicit-constructor): `return value;`
    constexpr Result(T value) noexcept : value_(std::move(value)), code_(0) {}
    /** Failure. */
    // NOLINTNEXTLINE(google-explicit-constructor): `return Error(-EINVAL);`
    constexpr Result(Error error) noexcept : none_{}, code_(error.code()) {}

    /** The other stays what it is, its value moved from. */
    constexpr Result(Result&& other) noexcept : none_{}, code_(other.code_) {
        if (other.ok())
            std::construct_at(std::addressof(value_), std::move(other.value_));
    }
    /** The same. */
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

    /** Is there a value? */
    constexpr bool ok() const noexcept { return code_ == 0; }
    /** Is there a value? */
    explicit constexpr operator bool() const noexcept { return ok(); }

    /** 0, or the negative errno: what a C function returns. */
    constexpr int code() const noexcept { return code_; }
    /** What went wrong, if not ok(). */
    constexpr Error error() const noexcept { return Error(code_); }

    /** The value; without one the program ends. */
    constexpr T& value() & noexcept {
        check();
        return value_;
    }
    /** The value; without one the program ends. */
    constexpr const T& value() const& noexcept {
        check();
        return value_;
    }
    /** The value; without one the program ends. */
    constexpr T&& value() && noexcept {
        check();
        return std::move(value_);
    }
    /** The value, or the other. */
    constexpr T value_or(T other) && noexcept {
        return ok() ? std::move(value_) : std::move(other);
    }
    /** As value(). */
    constexpr T& operator*() & noexcept { return value(); }
    /** As value(). */
    constexpr const T& operator*() const& noexcept { return value(); }
    /** As value(). */
    constexpr T&& operator*() && noexcept { return std::move(*this).value(); }
    /** As value(). */
    constexpr T* operator->() noexcept { return std::addressof(value()); }
    /** As value(). */
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
    /** Nothing. */
    using value_type = void;

    constexpr Result() noexcept = default;
    /** Failure. */
    // NOLINTNEXTLINE(google-explicit-constructor): `return Error(-EINVAL);`
    constexpr Result(Error error) noexcept : code_(error.code()) {}
    /** From the result of a C function: 0 or a negative errno. */
    static constexpr Result from(int code) noexcept {
        return code == 0 ? Result() : Result(Error(code));
    }

    /** Did it work? */
    constexpr bool ok() const noexcept { return code_ == 0; }
    /** Did it work? */
    explicit constexpr operator bool() const noexcept { return ok(); }
    /** 0, or the negative errno. */
    constexpr int code() const noexcept { return code_; }
    /** What went wrong, if not ok(). */
    constexpr Error error() const noexcept { return Error(code_); }

  private:
    int code_ = 0;
};

}  // namespace dune
