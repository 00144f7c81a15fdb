// SPDX-License-Identifier: MIT
//
// From the name of a program to open files that can be loaded: scripts, permissions, ELF headers.
// It is done before the old program is given up, so that execve(2) can still fail.

#ifndef DUNE_APPS_SANDBOX_LOADER_PROGRAM_H
#define DUNE_APPS_SANDBOX_LOADER_PROGRAM_H

#include <elf.h>

#include "monitor/state.h"

namespace dune::sandbox {

// What a program's start needs beside its files: strings one after the other, each with its NUL.
// It travels in a memory file through execve.
struct ExecImage {
    static constexpr uint64_t kMagic = 0x31434558454e5544;  // "DUNEXEC1"
    static constexpr size_t kTextSize = 6 << 20;

    uint64_t magic = kMagic;
    uint32_t argc = 0, envc = 0;
    uint32_t used = 0;  // bytes of text
    bool has_interp = false;
    char comm[16] = {};    // the name that ps(1) shows
    char text[kTextSize];  // the path of the executable, then argv, then envp

    bool add(std::string_view string);
    void set_comm(std::string_view path);
    size_t size() const { return offsetof(ExecImage, text) + used; }
    // True if text holds as many strings as the counts say. It comes by a memory file, to which
    // another thread of the program could write while it had no reserved number yet.
    bool is_whole() const;
};

constexpr int kMaxScripts = 5;     // #! after #!, as Linux
constexpr size_t kHeadSize = 256;  // of a file, in which the #! line must end
constexpr size_t kMaxHeaders = 65536 / sizeof(Elf64_Phdr);

// The words that scripts put before the program's own arguments.
struct ScriptWords {
    char text[kMaxScripts * 2][kHeadSize];
    int count = 0;
};

// Opens the program `path` (absolute, as text; made canonical here) and its interpreter, as
// kProgramFd and kInterpFd. If it is a script, the script's interpreter is opened and `words` are
// what argv[0] must be replaced by, in front of the script's path.
// Returns 0 or a negative errno as execve(2) gives it: -ENOENT, -EACCES, -ENOEXEC, -ELIBBAD,
// -ELOOP. Context: host mode, trap. process.exec_lock is held.
long open_program(Thread& thread, PathBuffer& path, ScriptWords& words, bool* has_interp);
// The same for a file that has no name (a memory file, one that was removed), by a descriptor that
// the program may read. `path` becomes what Linux calls it. -ELOOP: it has one.
long open_nameless_program(Thread& thread, int fd, PathBuffer& path, ScriptWords& words,
                           bool* has_interp);
void close_program();

// Reads the headers and checks what the loader depends on. `headers` has room for kMaxHeaders.
// -ENOEXEC: no ELF file for this machine, -EBADARCH (below): one for another.
constexpr long kWrongMachine = -ENOEXEC - 0x10000;
constexpr long kWrongClass = -ENOEXEC - 0x20000;
long read_elf(long fd, Elf64_Ehdr& header, Elf64_Phdr* headers);

}  // namespace dune::sandbox

#endif
