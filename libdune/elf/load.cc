// SPDX-License-Identifier: MIT
// dune_elf_load_ph: put a segment into memory.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "dune/elf.h"
#include "libdune/elf.h"
#include "libdune/vm.h"
#include "mm/process_map.h"
#include "read.h"

namespace {

constexpr std::uint64_t kPage = 4096;

/** Where a segment is to stand, checked. */
struct Place {
    char* start;           // page aligned
    std::uint64_t before;  // bytes of the first page that are not the segment's
    std::uint64_t len;     // in memory, whole pages
};

bool place_segment(const dune_elf* elf, const Elf64_Phdr* phdr, off_t off, Place* place) noexcept {
    using dune::elf::Image;
    const std::uint64_t start = phdr->p_vaddr + static_cast<std::uint64_t>(off);
    // A negative bias moves down: the sum is right then, too, unless it passes 0.
    const bool overflow = off < 0 ? start > phdr->p_vaddr : start < phdr->p_vaddr;
    if (phdr->p_type != PT_LOAD || overflow || start >= Image::kAddressEnd ||
        phdr->p_memsz > Image::kAddressEnd - start || phdr->p_filesz > phdr->p_memsz ||
        !dune::elf::within(phdr->p_offset, phdr->p_filesz, static_cast<std::uint64_t>(elf->len)))
        return false;
    if (off % static_cast<off_t>(kPage) != 0 || (phdr->p_vaddr - phdr->p_offset) % kPage != 0)
        return false;
    place->before = start % kPage;
    place->start = reinterpret_cast<char*>(start - place->before);
    place->len = (place->before + phdr->p_memsz + kPage - 1) / kPage * kPage;
    return true;
}

int prot_of(Elf64_Word flags) noexcept {
    return ((flags & PF_R) != 0 ? PROT_READ : 0) | ((flags & PF_W) != 0 ? PROT_WRITE : 0) |
           ((flags & PF_X) != 0 ? PROT_EXEC : 0);
}

int perm_of(Elf64_Word flags) noexcept {
    // x86 has no pages that can be written or executed, but not read.
    int perm = (flags & (PF_R | PF_W | PF_X)) != 0 ? PERM_R : PERM_NONE;
    perm |= (flags & PF_W) != 0 ? PERM_W : 0;
    perm |= (flags & PF_X) != 0 ? PERM_X : 0;
    return perm;
}

/** The file's pages, and zeroed ones after them. */
int map_file(const dune_elf* elf, const Elf64_Phdr* phdr, const Place& place) noexcept {
    const std::uint64_t used = place.before + phdr->p_filesz;
    const std::uint64_t file_len = phdr->p_filesz == 0 ? 0 : (used + kPage - 1) / kPage * kPage;
    if (file_len != 0 &&
        mmap(place.start, file_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, elf->fd,
             static_cast<off_t>(phdr->p_offset - place.before)) == MAP_FAILED)
        return -errno;
    if (place.len > file_len &&
        mmap(place.start + file_len, place.len - file_len, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -errno;
    // What follows in the file is not the segment's: it would be what a program takes for zeros.
    if (file_len > used && phdr->p_memsz > phdr->p_filesz)
        std::memset(place.start + used, 0, file_len - used);
    return 0;
}

/** From a file in memory. */
int map_copy(const dune_elf* elf, const Elf64_Phdr* phdr, const Place& place) noexcept {
    if (mmap(place.start, place.len, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -errno;
    std::memcpy(place.start + place.before, elf->mem + phdr->p_offset, phdr->p_filesz);
    return 0;
}

}  // namespace

int dune_elf_load_ph(dune_elf* elf, Elf64_Phdr* phdr, off_t off) {
    Place place;
    if (elf == nullptr || elf->mem == nullptr || phdr == nullptr ||
        !place_segment(elf, phdr, off, &place))
        return -EINVAL;
    if (phdr->p_memsz == 0)
        return 0;
    // In ring 0 the page tables come first: the code below writes to the memory.
    if (pgroot != nullptr)
        if (const int rc =
                dune::mm::map_process_memory(pgroot, place.start, place.len, PERM_R | PERM_W);
            rc != 0)
            return rc;
    const int rc = elf->fd >= 0 ? map_file(elf, phdr, place) : map_copy(elf, phdr, place);
    if (rc != 0)
        return rc;
    if (mprotect(place.start, place.len, prot_of(phdr->p_flags)) != 0)
        return -errno;
    if (pgroot != nullptr)
        return dune_vm_mprotect(pgroot, place.start, place.len, perm_of(phdr->p_flags));
    return 0;
}
