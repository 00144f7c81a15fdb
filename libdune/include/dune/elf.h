// SPDX-License-Identifier: MIT
/**
 * @file
 * ELF images that may come from anywhere (System V ABI, "Object Files"; AMD64 supplement).
 *
 * Image::parse() reads the headers once and refuses whatever a loader could stumble over; all
 * that an Image says afterwards is consistent, lies within the file and cannot overflow. Section
 * headers play no part in loading and are not looked at.
 *
 * Context: any; nothing is allocated.
 */
#pragma once

#include <elf.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "dune/result.h"

namespace dune::elf {

/** A PT_LOAD segment. Addresses are as linked: add the bias. */
struct Segment {
    std::uint64_t vaddr;      ///< first byte
    std::uint64_t mem_size;   ///< bytes in memory, not 0
    std::uint64_t offset;     ///< of the first byte in the file; congruent to vaddr modulo a page
    std::uint64_t file_size;  ///< bytes in the file, at most mem_size; the rest is zero
    std::uint64_t align;      ///< a power of two, at least a page
    int prot;                 ///< PROT_READ, PROT_WRITE, PROT_EXEC

    std::uint64_t first_page() const noexcept;  ///< vaddr, rounded down to a page
    std::uint64_t end_page() const noexcept;    ///< vaddr + mem_size, rounded up
};

/** The checked headers of an executable or a shared object. */
class Image {
  public:
    /** PT_LOAD segments that are accepted. */
    static constexpr std::size_t kMaxSegments = 64;
    /** User addresses end here, less a page that Linux keeps free. */
    static constexpr std::uint64_t kAddressEnd = (std::uint64_t{1} << 47) - 4096;

    /**
     * Check a file.
     * @param file the whole file, or so much of its beginning that headers and the interpreter's
     *             name are in it, if file_size tells how much there is
     * @param file_size bytes of the file
     * @return -ENOEXEC if it is no 64-bit x86-64 executable or shared object, or a damaged one;
     *         -E2BIG if it has more than kMaxSegments PT_LOAD segments
     */
    static Result<Image> parse(std::span<const std::byte> file, std::uint64_t file_size) noexcept;
    /** The same of a whole file in memory. */
    static Result<Image> parse(std::span<const std::byte> file) noexcept {
        return parse(file, file.size());
    }

    /** In ascending order; no two share a page. Never empty. */
    std::span<const Segment> segments() const noexcept { return {segments_.data(), count_}; }

    /** May it stand at any address (ET_DYN)? */
    bool relocatable() const noexcept { return relocatable_; }
    /** Address of the first instruction; in an executable segment, or 0 for a library without. */
    std::uint64_t entry() const noexcept { return entry_; }
    /** Path of the dynamic linker (PT_INTERP), in the memory that was parsed. */
    std::optional<std::string_view> interpreter() const noexcept { return interpreter_; }
    /** Does it ask for an executable stack (PT_GNU_STACK, or none)? */
    bool executable_stack() const noexcept { return executable_stack_; }

    /** Address of the program headers in memory, for AT_PHDR; 0 if no segment holds them. */
    std::uint64_t phdr_address() const noexcept { return phdr_address_; }
    /** Number of program headers, for AT_PHNUM. */
    std::uint16_t phdr_count() const noexcept { return phdr_count_; }

    /** Pages from the first segment to the last: [first, end), holes included. */
    std::uint64_t first_page() const noexcept { return segments_[0].first_page(); }
    /** First address after the last page. */
    std::uint64_t end_page() const noexcept { return segments_[count_ - 1].end_page(); }
    /** Largest alignment of a segment, for the choice of the bias. */
    std::uint64_t align() const noexcept { return align_; }

    /**
     * May it stand with this bias? It must be a multiple of align(), 0 if not relocatable(), and
     * leave all segments within user addresses.
     */
    bool fits(std::uint64_t bias) const noexcept;

  private:
    Image() = default;
    Result<void> add_load(const Elf64_Phdr& phdr, std::uint64_t file_size) noexcept;
    Result<void> add_interpreter(const Elf64_Phdr& phdr, std::span<const std::byte> file) noexcept;
    bool entry_is_good() const noexcept;
    std::uint64_t find_phdrs(const Elf64_Ehdr& header) const noexcept;

    std::array<Segment, kMaxSegments> segments_;
    std::size_t count_ = 0;
    std::uint64_t entry_ = 0;
    std::uint64_t phdr_address_ = 0;
    std::uint64_t align_ = 0;
    std::optional<std::string_view> interpreter_;
    std::uint16_t phdr_count_ = 0;
    bool relocatable_ = false;
    bool executable_stack_ = true;
};

}  // namespace dune::elf
