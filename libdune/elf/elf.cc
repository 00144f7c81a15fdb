// SPDX-License-Identifier: MIT
// The published ELF functions.
#include "libdune/elf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "read.h"

namespace {

using Bytes = std::span<const std::byte>;
using dune::elf::read_at;
using dune::elf::within;

Bytes bytes_of(const dune_elf* elf) noexcept {
    return {reinterpret_cast<const std::byte*>(elf->mem), static_cast<std::size_t>(elf->len)};
}

/** A copy of a part of the file: aligned, and not changed by whoever writes to the file. */
void* copy_part(Bytes file, std::uint64_t offset, std::uint64_t size) noexcept {
    void* const copy = malloc(size);
    if (copy != nullptr)
        std::memcpy(copy, file.data() + offset, size);
    return copy;
}

void free_tables(dune_elf* elf) noexcept {
    free(elf->phdr);
    free(elf->shdr);
    free(elf->shdrstr);
    elf->phdr = nullptr;
    elf->shdr = nullptr;
    elf->shdrstr = nullptr;
}

/** Section headers that lie in the file, and the table of their names. */
int copy_sections(dune_elf* elf) noexcept {
    const Bytes file = bytes_of(elf);
    const Elf64_Ehdr& header = elf->hdr;
    if (header.e_shnum == 0)  // none, or too many for the field
        return 0;
    const std::uint64_t size = header.e_shnum * sizeof(Elf64_Shdr);
    if (header.e_shentsize != sizeof(Elf64_Shdr) || !within(header.e_shoff, size, file.size()) ||
        header.e_shstrndx >= header.e_shnum)
        return -ENOEXEC;
    for (unsigned i = 0; i < header.e_shnum; ++i) {
        const auto section = read_at<Elf64_Shdr>(file, header.e_shoff + i * sizeof(Elf64_Shdr));
        if (section.sh_type != SHT_NULL && section.sh_type != SHT_NOBITS &&
            !within(section.sh_offset, section.sh_size, file.size()))
            return -ENOEXEC;
    }
    elf->shdr = static_cast<Elf64_Shdr*>(copy_part(file, header.e_shoff, size));
    if (elf->shdr == nullptr)
        return -ENOMEM;
    if (header.e_shstrndx == SHN_UNDEF)
        return 0;

    const Elf64_Shdr& names = elf->shdr[header.e_shstrndx];
    if (names.sh_type != SHT_STRTAB || names.sh_size == 0 ||
        read_at<char>(file, names.sh_offset + names.sh_size - 1) != '\0')
        return -ENOEXEC;
    for (unsigned i = 0; i < header.e_shnum; ++i)
        if (elf->shdr[i].sh_name >= names.sh_size)
            return -ENOEXEC;
    elf->shdrstr = static_cast<char*>(copy_part(file, names.sh_offset, names.sh_size));
    if (elf->shdrstr == nullptr)
        return -ENOMEM;
    elf->shdrstr[names.sh_size - 1] = '\0';  // whatever the file says by now
    return 0;
}

/** Fill in the headers of a file that is in memory. */
int read_tables(dune_elf* elf) noexcept {
    const Bytes file = bytes_of(elf);
    const dune::Result<Elf64_Ehdr> header = dune::elf::read_header(file);
    if (!header)
        return header.code();
    elf->hdr = *header;
    if (header->e_phnum != 0) {
        elf->phdr = static_cast<Elf64_Phdr*>(
            copy_part(file, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr)));
        if (elf->phdr == nullptr)
            return -ENOMEM;
    }
    const int rc = copy_sections(elf);
    if (rc != 0)
        free_tables(elf);
    return rc;
}

int open_fd(dune_elf* elf, int fd) noexcept {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size < static_cast<off_t>(sizeof(Elf64_Ehdr)))
        return -ENOEXEC;
    if (st.st_size > INT_MAX)
        return -EFBIG;
    void* const mem =
        mmap(nullptr, static_cast<std::size_t>(st.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (mem == MAP_FAILED)
        return -errno;
    elf->fd = fd;
    elf->mem = static_cast<unsigned char*>(mem);
    elf->len = static_cast<int>(st.st_size);
    const int rc = read_tables(elf);
    if (rc != 0)
        munmap(mem, static_cast<std::size_t>(st.st_size));
    return rc;
}

/** All fields but priv, which is the program's also before it opens. */
void reset(dune_elf* elf) noexcept {
    void* const priv = elf->priv;
    *elf = {};
    elf->fd = -1;
    elf->priv = priv;
}

bool is_open(const dune_elf* elf) noexcept {
    return elf != nullptr && elf->mem != nullptr;
}

const char* segment_name(Elf64_Word type) noexcept {
    switch (type) {
        case PT_NULL:
            return "NULL";
        case PT_LOAD:
            return "LOAD";
        case PT_DYNAMIC:
            return "DYNAMIC";
        case PT_INTERP:
            return "INTERP";
        case PT_NOTE:
            return "NOTE";
        case PT_PHDR:
            return "PHDR";
        case PT_TLS:
            return "TLS";
        case PT_GNU_EH_FRAME:
            return "EH_FRAME";
        case PT_GNU_STACK:
            return "STACK";
        case PT_GNU_RELRO:
            return "RELRO";
        default:
            return "?";
    }
}

int dump_segment(dune_elf*, Elf64_Phdr* phdr) {
    printf("  %-8s offset %#10lx address %#14lx file %#9lx memory %#9lx align %#lx %c%c%c\n",
           segment_name(phdr->p_type), phdr->p_offset, phdr->p_vaddr, phdr->p_filesz, phdr->p_memsz,
           phdr->p_align, (phdr->p_flags & PF_R) != 0 ? 'r' : '-',
           (phdr->p_flags & PF_W) != 0 ? 'w' : '-', (phdr->p_flags & PF_X) != 0 ? 'x' : '-');
    return 0;
}

int dump_section(dune_elf*, const char* name, int number, Elf64_Shdr* shdr) {
    printf("  [%2d] %-20s type %#10x address %#14lx offset %#10lx size %#9lx\n", number, name,
           shdr->sh_type, shdr->sh_addr, shdr->sh_offset, shdr->sh_size);
    return 0;
}

}  // namespace

int dune_elf_open(dune_elf* elf, const char* path) {
    if (elf == nullptr || path == nullptr)
        return -EINVAL;
    reset(elf);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const int rc = open_fd(elf, fd);
    if (rc != 0) {
        reset(elf);
        close(fd);
    }
    return rc;
}

int dune_elf_open_mem(dune_elf* elf, void* mem, int len) {
    if (elf == nullptr || mem == nullptr || len < 0)
        return -EINVAL;
    reset(elf);
    elf->mem = static_cast<unsigned char*>(mem);
    elf->len = len;
    const int rc = read_tables(elf);
    if (rc != 0)
        reset(elf);
    return rc;
}

int dune_elf_close(dune_elf* elf) {
    if (!is_open(elf))
        return -EINVAL;
    free_tables(elf);
    if (elf->fd >= 0) {
        munmap(elf->mem, static_cast<std::size_t>(elf->len));
        close(elf->fd);
    }
    reset(elf);
    return 0;
}

int dune_elf_iter_ph(dune_elf* elf, dune_elf_phcb cb) {
    if (!is_open(elf) || cb == nullptr)
        return -EINVAL;
    for (unsigned i = 0; elf->phdr != nullptr && i < elf->hdr.e_phnum; ++i)
        if (const int rc = cb(elf, &elf->phdr[i]); rc != 0)
            return rc;
    return 0;
}

int dune_elf_iter_sh(dune_elf* elf, dune_elf_shcb cb) {
    if (!is_open(elf) || cb == nullptr)
        return -EINVAL;
    for (unsigned i = 0; elf->shdr != nullptr && i < elf->hdr.e_shnum; ++i) {
        const char* const name = elf->shdrstr != nullptr ? elf->shdrstr + elf->shdr[i].sh_name : "";
        if (const int rc = cb(elf, name, static_cast<int>(i), &elf->shdr[i]); rc != 0)
            return rc;
    }
    return 0;
}

int dune_elf_dump(dune_elf* elf) {
    if (!is_open(elf))
        return -EINVAL;
    printf("ELF type %u, entry %#lx, %u program headers, %u sections\n", elf->hdr.e_type,
           elf->hdr.e_entry, elf->hdr.e_phnum, elf->shdr != nullptr ? elf->hdr.e_shnum : 0U);
    dune_elf_iter_ph(elf, dump_segment);
    return dune_elf_iter_sh(elf, dump_section);
}
