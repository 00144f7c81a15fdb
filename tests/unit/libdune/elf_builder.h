// SPDX-License-Identifier: MIT
//
// Small ELF files for tests, and changes to them.
#pragma once

#include <elf.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace dune::test {

/// An ELF file under construction: header, program headers, contents, sections.
class ElfBuilder {
  public:
    explicit ElfBuilder(Elf64_Half type = ET_DYN) {
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_ident[EI_VERSION] = EV_CURRENT;
        header.e_type = type;
        header.e_machine = EM_X86_64;
        header.e_version = EV_CURRENT;
        header.e_ehsize = sizeof(Elf64_Ehdr);
        header.e_phentsize = sizeof(Elf64_Phdr);
        header.e_phoff = sizeof(Elf64_Ehdr);
    }

    Elf64_Phdr& add(Elf64_Word type, Elf64_Word flags, std::uint64_t offset, std::uint64_t vaddr,
                    std::uint64_t file_size, std::uint64_t mem_size) {
        segments.push_back({.p_type = type,
                            .p_flags = flags,
                            .p_offset = offset,
                            .p_vaddr = vaddr,
                            .p_paddr = vaddr,
                            .p_filesz = file_size,
                            .p_memsz = mem_size,
                            .p_align = 4096});
        return segments.back();
    }

    void put(std::uint64_t offset, std::string_view text) {
        if (content.size() < offset + text.size())
            content.resize(offset + text.size());
        std::memcpy(content.data() + offset, text.data(), text.size());
    }

    /// A null section, `.text` at [offset, offset + size) and the table of names.
    void add_sections(std::uint64_t offset, std::uint64_t size) {
        constexpr std::string_view kNames("\0.text\0.shstrtab\0", 17);
        const std::uint64_t names = (content.size() + 7) & ~std::uint64_t{7};
        put(names, kNames);
        header.e_shoff = (content.size() + 7) & ~std::uint64_t{7};
        header.e_shnum = 3;
        header.e_shentsize = sizeof(Elf64_Shdr);
        header.e_shstrndx = 2;
        Elf64_Shdr sections[3] = {};
        sections[1].sh_name = 1;
        sections[1].sh_type = SHT_PROGBITS;
        sections[1].sh_offset = offset;
        sections[1].sh_size = size;
        sections[2].sh_name = 7;
        sections[2].sh_type = SHT_STRTAB;
        sections[2].sh_offset = names;
        sections[2].sh_size = kNames.size();
        put(header.e_shoff, {reinterpret_cast<const char*>(sections), sizeof(sections)});
    }

    std::vector<unsigned char> bytes(std::size_t size = 0) const {
        Elf64_Ehdr filled = header;
        if (filled.e_phnum == 0)
            filled.e_phnum = static_cast<Elf64_Half>(segments.size());
        std::vector<unsigned char> file = content;
        const std::size_t headers = sizeof(filled) + segments.size() * sizeof(Elf64_Phdr);
        file.resize(std::max({file.size(), headers, size}));
        std::memcpy(file.data(), &filled, sizeof(filled));
        if (!segments.empty())
            std::memcpy(file.data() + sizeof(filled), segments.data(),
                        segments.size() * sizeof(Elf64_Phdr));
        return file;
    }

    Elf64_Ehdr header = {};
    std::vector<Elf64_Phdr> segments;
    std::vector<unsigned char> content;
};

/// A program of two segments with an interpreter, a stack mark and sections: nothing is wrong.
inline ElfBuilder good_program(Elf64_Half type = ET_DYN) {
    const std::uint64_t base = type == ET_EXEC ? 0x400000 : 0;
    constexpr std::string_view kInterpreter("/lib64/ld.so\0", 13);
    ElfBuilder elf(type);
    elf.add(PT_PHDR, PF_R, sizeof(Elf64_Ehdr), base + sizeof(Elf64_Ehdr), 5 * sizeof(Elf64_Phdr),
            5 * sizeof(Elf64_Phdr));
    elf.add(PT_INTERP, PF_R, 0x200, base + 0x200, kInterpreter.size(), kInterpreter.size());
    elf.add(PT_LOAD, PF_R | PF_X, 0, base, 0x300, 0x300);
    elf.add(PT_LOAD, PF_R | PF_W, 0x300, base + 0x1300, 0x20, 0x2000);
    elf.add(PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0);
    elf.header.e_entry = base + 0x280;
    elf.put(0x200, kInterpreter);
    elf.put(0x280, "\xf4");
    elf.put(0x300, "some data of this many (32) byte");
    elf.add_sections(0x280, 1);
    return elf;
}

}  // namespace dune::test
