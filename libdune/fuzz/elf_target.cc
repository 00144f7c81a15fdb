// SPDX-License-Identifier: MIT
//
// Any bytes as an ELF file, through the checked layer and the published functions.
#include "elf_target.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "dune/elf.h"
#include "libdune/elf.h"

namespace {

void require(bool promise) {
    if (!promise)
        abort();
}

/// What a loader relies on.
void check_image(const dune::elf::Image& image, std::size_t file_size) {
    using dune::elf::Image;
    require(!image.segments().empty() && image.segments().size() <= Image::kMaxSegments);
    std::uint64_t end = 0;
    bool entry_found = image.entry() == 0 && image.relocatable();
    for (const dune::elf::Segment& s : image.segments()) {
        require(s.mem_size != 0 && s.file_size <= s.mem_size);
        require(s.offset <= file_size && s.file_size <= file_size - s.offset);
        require(s.vaddr < Image::kAddressEnd && s.mem_size <= Image::kAddressEnd - s.vaddr);
        require(s.offset % 4096 == s.vaddr % 4096);
        require(s.first_page() >= end && s.end_page() > s.first_page());
        require((s.align & (s.align - 1)) == 0 && image.align() % s.align == 0);
        end = s.end_page();
        entry_found |= (s.prot & PROT_EXEC) != 0 && image.entry() >= s.vaddr &&
                       image.entry() - s.vaddr < s.mem_size;
    }
    require(entry_found);
    require(image.fits(0) || image.relocatable());
    require(image.end_page() > image.first_page());
    if (image.interpreter())
        require(image.interpreter()->find('\0') == std::string_view::npos &&
                !image.interpreter()->empty());
}

std::size_t seen;

int touch_segment(dune_elf* elf, Elf64_Phdr* phdr) {
    seen += phdr->p_type;
    // The segments of such a file may be loaded anywhere: only see that bad ones are refused.
    if (phdr->p_type != PT_LOAD)
        require(dune_elf_load_ph(elf, phdr, 0) == -EINVAL);
    require(dune_elf_load_ph(elf, phdr, 1) == -EINVAL);
    require(dune_elf_load_ph(elf, phdr, off_t{1} << 62) == -EINVAL);
    return 0;
}

int touch_section(dune_elf* elf, const char* name, int number, Elf64_Shdr* shdr) {
    seen += std::strlen(name) + static_cast<std::size_t>(number);
    if (shdr->sh_type != SHT_NULL && shdr->sh_type != SHT_NOBITS && shdr->sh_size != 0)
        seen += elf->mem[shdr->sh_offset] + elf->mem[shdr->sh_offset + shdr->sh_size - 1];
    return 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
    if (const auto image = dune::elf::Image::parse(file))
        check_image(*image, size);
    // Only the beginning of a longer file.
    if (const auto image = dune::elf::Image::parse(file, size + 100'000))
        check_image(*image, size + 100'000);

    std::vector<std::uint8_t> copy(data, data + size);
    copy.push_back(0);  // so that there is an address even of nothing
    dune_elf elf = {};
    const int rc = dune_elf_open_mem(&elf, copy.data(), static_cast<int>(size));
    if (rc == 0) {
        require(dune_elf_iter_ph(&elf, touch_segment) == 0);
        require(dune_elf_iter_sh(&elf, touch_section) == 0);
        require(dune_elf_close(&elf) == 0);
    } else {
        require(rc == -ENOEXEC || rc == -ENOMEM);
    }
    require(elf.mem == nullptr && elf.phdr == nullptr && elf.shdr == nullptr &&
            elf.shdrstr == nullptr);
    return 0;
}
