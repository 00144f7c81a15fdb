// SPDX-License-Identifier: MIT
/**
 * @file
 * Bounded reads out of a file in memory, and the check of the ELF header that everything
 * begins with.
 */
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "dune/result.h"

namespace dune::elf {

/** Are [offset, offset + size) bytes of a file of that length? */
constexpr bool within(std::uint64_t offset, std::uint64_t size, std::uint64_t length) noexcept {
    return offset <= length && size <= length - offset;
}

/** The T at an offset, which need not be aligned. The caller has checked that it is there. */
template <class T>
T read_at(std::span<const std::byte> file, std::uint64_t offset) noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, file.data() + offset, sizeof(T));
    return value;
}

/**
 * The ELF header of a 64-bit little-endian x86-64 file, whose program-header table is in `file`
 * and has entries of the known size.
 * @return -ENOEXEC for anything else
 */
Result<Elf64_Ehdr> read_header(std::span<const std::byte> file) noexcept;

}  // namespace dune::elf
