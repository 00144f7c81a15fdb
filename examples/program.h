// SPDX-License-Identifier: MIT
// Loads a program, with its dynamic linker, for ring 3 of this process: what execve(2) does.
#pragma once

#include <dune/elf.h>
#include <dune/process.h>
#include <libdune/elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

/** A file in memory. */
struct Loaded {
    std::uint64_t bias, entry, headers;
    std::uint64_t header_count;
    std::string interpreter;
};

/** Maps an ELF file with the rights that it asks for. Context: host mode. */
inline bool load_file(const std::string& path, Loaded& loaded) {
    dune_elf file;
    if (dune_elf_open(&file, path.c_str()) != 0)
        return false;
    const auto image = dune::elf::Image::parse(
        {reinterpret_cast<const std::byte*>(file.mem), static_cast<std::size_t>(file.len)});
    if (!image)
        return false;
    std::uint64_t bias = 0;
    if (image->relocatable()) {
        void* const room = mmap(nullptr, image->end_page() - image->first_page(), PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        bias = reinterpret_cast<std::uint64_t>(room) - image->first_page();
    }
    for (int i = 0; i < file.hdr.e_phnum; ++i)
        if (file.phdr[i].p_type == PT_LOAD &&
            dune_elf_load_ph(&file, &file.phdr[i], static_cast<off_t>(bias)) != 0)
            return false;
    loaded = {bias, image->entry() + bias, image->phdr_address() + bias, image->phdr_count(),
              std::string(image->interpreter().value_or(""))};
    dune_elf_close(&file);
    return true;
}

/**
 * Loads the program argv[0] and gives it this process' environment.
 * @param frame what ring 3 starts with. Context: host mode. @return whether it could be loaded
 */
inline bool load_program(char** argv, dune_tf& frame) {
    Loaded program;
    Loaded linker = {};
    if (!load_file(argv[0], program) ||
        (!program.interpreter.empty() && !load_file(program.interpreter, linker)))
        return false;

    // The stack as Linux makes it (System V ABI, AMD64 supplement, figure 3.9). The strings stay
    // where they are, and so does most of the auxiliary vector, behind our own environment.
    std::vector<std::uint64_t> words = {0};
    for (; *argv != nullptr; ++words[0])
        words.push_back(reinterpret_cast<std::uint64_t>(*argv++));
    words.push_back(0);
    char** variable = environ;
    for (; *variable != nullptr; ++variable)
        words.push_back(reinterpret_cast<std::uint64_t>(*variable));
    words.push_back(0);
    auto* own = reinterpret_cast<Elf64_auxv_t*>(variable + 1);
    for (; own->a_type != AT_NULL; ++own) {
        const std::uint64_t value = own->a_un.a_val;
        words.push_back(own->a_type);
        words.push_back(own->a_type == AT_PHDR    ? program.headers
                        : own->a_type == AT_PHNUM ? program.header_count
                        : own->a_type == AT_ENTRY ? program.entry
                        : own->a_type == AT_BASE  ? linker.bias
                                                  : value);
    }
    words.insert(words.end(), {AT_NULL, 0});

    constexpr std::size_t kStack = std::size_t{8} << 20;
    void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const std::size_t size = words.size() * sizeof(words[0]);
    frame = {};
    frame.rip = linker.entry != 0 ? linker.entry : program.entry;
    frame.rsp = (reinterpret_cast<std::uint64_t>(stack) + kStack - size) & ~std::uint64_t{15};
    std::memcpy(reinterpret_cast<void*>(frame.rsp), words.data(), size);
    return true;
}

/**
 * Lets ring 3 use the 2 MiB around an address, as far as Linux allows.
 * @return false if it could already: then the fault is the program's. Context: trap
 */
inline bool show_to_ring3(std::uint64_t address) {
    constexpr std::uint64_t kSize = BIG_PGSIZE;
    void* const start = reinterpret_cast<void*>(address & ~(kSize - 1));
    const auto entry = dune::Process::tables().lookup(start);
    if (address >> 47 != 0 || (entry && (entry->raw() & PTE_U) != 0))
        return false;
    return dune_vm_map_phys(pgroot, start, kSize, reinterpret_cast<void*>(dune_va_to_pa(start)),
                            PERM_R | PERM_W | PERM_X | PERM_U | PERM_BIG) == 0;
}

/** Copies the beginning of a text of ring 3's, which ends there at the latest. Context: trap. */
template <std::size_t N>
const char* copy_text(std::uint64_t address, char (&room)[N]) {
    const std::size_t left = PGSIZE - address % PGSIZE;  // the next page may be missing
    std::memset(room, 0, N);
    show_to_ring3(address);
    dune_copy_from_user(room, reinterpret_cast<void*>(address), left < N - 1 ? left : N - 1);
    return room;
}
