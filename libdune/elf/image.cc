// SPDX-License-Identifier: MIT
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "dune/elf.h"
#include "read.h"

namespace dune::elf {
namespace {

constexpr std::uint64_t kPage = 4096;

constexpr std::uint64_t page_down(std::uint64_t n) noexcept {
    return n & ~(kPage - 1);
}

int prot_of(Elf64_Word flags) noexcept {
    return ((flags & PF_R) != 0 ? PROT_READ : 0) | ((flags & PF_W) != 0 ? PROT_WRITE : 0) |
           ((flags & PF_X) != 0 ? PROT_EXEC : 0);
}

}  // namespace

Result<Elf64_Ehdr> read_header(std::span<const std::byte> file) noexcept {
    if (file.size() < sizeof(Elf64_Ehdr))
        return Error(-ENOEXEC);
    const auto header = read_at<Elf64_Ehdr>(file, 0);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_ident[EI_VERSION] != EV_CURRENT || header.e_version != EV_CURRENT ||
        header.e_machine != EM_X86_64 || header.e_ehsize < sizeof(Elf64_Ehdr))
        return Error(-ENOEXEC);
    // PN_XNUM: the number is elsewhere. Linux loads no such file either.
    if (header.e_phnum == PN_XNUM ||
        (header.e_phnum != 0 &&
         (header.e_phentsize != sizeof(Elf64_Phdr) ||
          !within(header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr), file.size()))))
        return Error(-ENOEXEC);
    return header;
}

std::uint64_t Segment::first_page() const noexcept {
    return page_down(vaddr);
}

std::uint64_t Segment::end_page() const noexcept {
    return page_down(vaddr + mem_size + kPage - 1);
}

Result<Image> Image::parse(std::span<const std::byte> file, std::uint64_t file_size) noexcept {
    file = file.first(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), file_size)));
    const Result<Elf64_Ehdr> header = read_header(file);
    if (!header)
        return header.error();
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return Error(-ENOEXEC);

    Image image;
    image.relocatable_ = header->e_type == ET_DYN;
    image.entry_ = header->e_entry;
    image.phdr_count_ = header->e_phnum;
    bool stack_seen = false;
    for (unsigned i = 0; i < header->e_phnum; ++i) {
        const auto phdr = read_at<Elf64_Phdr>(file, header->e_phoff + i * sizeof(Elf64_Phdr));
        Result<void> rc;
        if (phdr.p_type == PT_LOAD) {
            rc = image.add_load(phdr, file_size);
        } else if (phdr.p_type == PT_INTERP) {
            rc = image.add_interpreter(phdr, file);
        } else if (phdr.p_type == PT_GNU_STACK) {
            if (stack_seen)
                return Error(-ENOEXEC);
            stack_seen = true;
            image.executable_stack_ = (phdr.p_flags & PF_X) != 0;
        }
        if (!rc)
            return rc.error();
    }
    if (image.count_ == 0 || !image.entry_is_good())
        return Error(-ENOEXEC);
    image.phdr_address_ = image.find_phdrs(*header);
    return image;
}

Result<void> Image::add_load(const Elf64_Phdr& phdr, std::uint64_t file_size) noexcept {
    if (phdr.p_memsz == 0)
        return phdr.p_filesz == 0 ? Result<void>() : Error(-ENOEXEC);
    if (phdr.p_filesz > phdr.p_memsz || !within(phdr.p_offset, phdr.p_filesz, file_size) ||
        phdr.p_vaddr >= kAddressEnd || phdr.p_memsz > kAddressEnd - phdr.p_vaddr)
        return Error(-ENOEXEC);
    // 0 and 1 mean none; less than a page cannot be had, more is for huge pages.
    const std::uint64_t align = std::max(phdr.p_align, kPage);
    if (!std::has_single_bit(align) || align > kAddressEnd ||
        (phdr.p_vaddr - phdr.p_offset) % kPage != 0)
        return Error(-ENOEXEC);
    const Segment segment = {.vaddr = phdr.p_vaddr,
                             .mem_size = phdr.p_memsz,
                             .offset = phdr.p_offset,
                             .file_size = phdr.p_filesz,
                             .align = align,
                             .prot = prot_of(phdr.p_flags)};
    // The ABI wants ascending order. On a shared page the later segment would wipe the earlier.
    if (count_ != 0 && segment.first_page() < segments_[count_ - 1].end_page())
        return Error(-ENOEXEC);
    if (count_ == kMaxSegments)
        return Error(-E2BIG);
    segments_[count_++] = segment;
    align_ = std::max(align_, align);
    return {};
}

Result<void> Image::add_interpreter(const Elf64_Phdr& phdr,
                                    std::span<const std::byte> file) noexcept {
    constexpr std::uint64_t kPathMax = 4096;
    if (interpreter_.has_value() || phdr.p_filesz < 2 || phdr.p_filesz > kPathMax ||
        !within(phdr.p_offset, phdr.p_filesz, file.size()))
        return Error(-ENOEXEC);
    const std::string_view name(reinterpret_cast<const char*>(file.data() + phdr.p_offset),
                                phdr.p_filesz);
    if (name.find('\0') != name.size() - 1)
        return Error(-ENOEXEC);
    interpreter_ = name.substr(0, name.size() - 1);
    return {};
}

bool Image::entry_is_good() const noexcept {
    if (entry_ == 0 && relocatable_)
        return true;
    return std::ranges::any_of(segments(), [this](const Segment& s) {
        return (s.prot & PROT_EXEC) != 0 && entry_ >= s.vaddr && entry_ - s.vaddr < s.mem_size;
    });
}

std::uint64_t Image::find_phdrs(const Elf64_Ehdr& header) const noexcept {
    // What AT_PHDR is in Linux, too. PT_PHDR says the same, where it is right.
    const std::uint64_t size = header.e_phnum * sizeof(Elf64_Phdr);
    for (const Segment& s : segments())
        if (header.e_phoff >= s.offset && within(header.e_phoff - s.offset, size, s.file_size))
            return s.vaddr + (header.e_phoff - s.offset);
    return 0;
}

bool Image::fits(std::uint64_t bias) const noexcept {
    if (!relocatable_)
        return bias == 0;
    return bias % align_ == 0 && bias < kAddressEnd && end_page() <= kAddressEnd - bias;
}

}  // namespace dune::elf
