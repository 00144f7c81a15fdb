// SPDX-License-Identifier: MIT

#include "loader/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>

#include "monitor/paths.h"

namespace dune::sandbox {

namespace {

Elf64_Phdr program_headers[kMaxHeaders];  // under process.exec_lock

// Opens a canonical path for execution and gives it the number of `which`.
long open_executable(PathBuffer& path, ReservedFd which) {
    if (process.policy->access(path.view()) == Access::Hidden) {
        return -EACCES;
    }
    LockGuard guard(process.fd_lock);
    const long fd = open_canonical(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (is_error(fd)) {
        return fd;
    }
    struct stat info {};
    long result = host_call(SYS_fstat, fd, &info);
    if (result == 0) {
        result = S_ISREG(info.st_mode)
                     ? host_call(SYS_faccessat2, fd, "", X_OK, AT_EMPTY_PATH | AT_EACCESS)
                     : -EACCES;
    }
    if (result == 0) {
        result = host_call(SYS_dup3, fd, reserved_fd(which), 0);
    }
    host_call(SYS_close, fd);
    return is_error(result) ? result : 0;
}

std::string_view cut_word(std::string_view& line) {
    const size_t start = std::min(line.find_first_not_of(" \t"), line.size());
    line.remove_prefix(start);
    const size_t end = std::min(line.find_first_of(" \t"), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end);
    return word;
}

void put_word(ScriptWords& words, int at, std::string_view word) {
    memmove(words.text[at + 1], words.text[at], static_cast<size_t>(words.count - at) * kHeadSize);
    memcpy(words.text[at], word.data(), word.size());
    words.text[at][word.size()] = 0;
    words.count++;
}

// Takes the #! line apart: the interpreter and at most one argument, which is the rest of the line.
long parse_script(const char* head, size_t size, ScriptWords& words) {
    std::string_view line(head + 2, size - 2);
    const size_t end = line.find('\n');
    if (end == std::string_view::npos && size == kHeadSize) {
        // Linux takes a cut line only if the interpreter's name is complete.
        std::string_view probe = line;
        cut_word(probe);
        if (probe.empty()) {
            return -ENOEXEC;
        }
    }
    line = line.substr(0, std::min(end, line.size()));
    line = line.substr(0, std::min(line.find('\0'), line.size()));
    const std::string_view interpreter = cut_word(line);
    if (interpreter.empty()) {
        return -ENOEXEC;
    }
    const size_t first = line.find_first_not_of(" \t");
    int at = 0;
    put_word(words, at++, interpreter);
    if (first != std::string_view::npos) {
        const size_t last = line.find_last_not_of(" \t");
        put_word(words, at, line.substr(first, last - first + 1));
    }
    return 0;
}

// The ELF interpreter that the program names, opened as kInterpFd.
long open_interpreter(Thread& thread, const Elf64_Phdr& header) {
    PathBuffer& path = thread.path[1];
    if (header.p_filesz < 2 || header.p_filesz > PATH_MAX) {
        return -ENOEXEC;
    }
    const long n = host_call(SYS_pread64, reserved_fd(kProgramFd), path.text, header.p_filesz,
                             header.p_offset);
    if (n != static_cast<long>(header.p_filesz) || path.text[n - 1] != 0) {
        return is_error(n) ? n : -ENOEXEC;
    }
    path.length = strlen(path.text);
    if (!path.view().starts_with('/')) {
        return -ENOENT;
    }
    if (const long error = canonical_path(thread, path, true)) {
        return error;
    }
    if (const long error = open_executable(path, kInterpFd)) {
        return error;
    }
    Elf64_Ehdr interp{};
    const long error = read_elf(reserved_fd(kInterpFd), interp, program_headers);
    return error != 0 ? -ELIBBAD : 0;
}

long open_elf(Thread& thread, bool* has_interp) {
    Elf64_Ehdr header{};
    *has_interp = false;
    if (const long error = read_elf(reserved_fd(kProgramFd), header, program_headers)) {
        return error;
    }
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (program_headers[i].p_type == PT_INTERP) {
            *has_interp = true;
            return open_interpreter(thread, program_headers[i]);
        }
    }
    return 0;
}

long open_by_path(Thread& thread, PathBuffer& path) {
    const long error = canonical_path(thread, path, true);
    return error != 0 ? error : open_executable(path, kProgramFd);
}

// From the file that is open as kProgramFd to the program that is loaded: that of a script is its
// interpreter.
long follow(Thread& thread, PathBuffer& path, ScriptWords& words, bool* has_interp) {
    words.count = 0;
    for (int depth = 0; depth <= kMaxScripts; depth++) {
        char head[kHeadSize] = {};
        const long n = host_call(SYS_pread64, reserved_fd(kProgramFd), head, kHeadSize, 0);
        if (is_error(n)) {
            return n;
        }
        if (n < 2 || head[0] != '#' || head[1] != '!') {
            return open_elf(thread, has_interp);
        }
        if (depth == kMaxScripts) {
            break;
        }
        if (const long error = parse_script(head, static_cast<size_t>(n), words)) {
            return error;
        }
        bool plain;
        bool directory;
        if (const long error =
                absolute_path(thread, AT_FDCWD, words.text[0], path, &plain, &directory)) {
            return error;
        }
        if (const long error = open_by_path(thread, path)) {
            return error;
        }
    }
    return -ELOOP;
}

}  // namespace

bool ExecImage::add(std::string_view string) {
    if (string.size() >= kTextSize - used) {
        return false;
    }
    memcpy(text + used, string.data(), string.size());
    text[used + string.size()] = 0;
    used += static_cast<uint32_t>(string.size() + 1);
    return true;
}

bool ExecImage::is_whole() const {
    constexpr uint32_t kMost = kTextSize;
    if (used == 0 || used > kMost || text[used - 1] != 0 || argc > kMost || envc > kMost) {
        return false;
    }
    return std::count(text, text + used, '\0') == 1 + static_cast<ptrdiff_t>(argc) + envc &&
           memchr(comm, 0, sizeof(comm)) != nullptr;
}

void ExecImage::set_comm(std::string_view path) {
    const std::string_view name = path.substr(path.rfind('/') + 1);
    memset(comm, 0, sizeof(comm));
    memcpy(comm, name.data(), std::min(name.size(), sizeof(comm) - 1));
}

long read_elf(long fd, Elf64_Ehdr& header, Elf64_Phdr* headers) {
    long n = host_call(SYS_pread64, fd, &header, sizeof(header), 0);
    if (is_error(n)) {
        return n;
    }
    if (n < 20 || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
        return -ENOEXEC;
    }
    if (header.e_ident[EI_CLASS] == ELFCLASS32) {
        return kWrongClass;
    }
    if (header.e_machine != EM_X86_64) {
        return kWrongMachine;
    }
    if (n < static_cast<long>(sizeof(header)) ||
        (header.e_type != ET_EXEC && header.e_type != ET_DYN) ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
        header.e_phnum > kMaxHeaders) {
        return -ENOEXEC;
    }
    const size_t size = header.e_phnum * sizeof(Elf64_Phdr);
    n = host_call(SYS_pread64, fd, headers, size, header.e_phoff);
    if (n != static_cast<long>(size)) {
        return is_error(n) ? n : -ENOEXEC;
    }
    for (unsigned i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr& p = headers[i];
        if (p.p_type != PT_LOAD) {
            continue;
        }
        if (p.p_filesz > p.p_memsz || p.p_vaddr >= kMapEnd || p.p_memsz > kMapEnd - p.p_vaddr ||
            (p.p_vaddr - p.p_offset) % kPageSize != 0 || p.p_offset + p.p_filesz < p.p_offset) {
            return -ENOEXEC;
        }
    }
    return 0;
}

long open_program(Thread& thread, PathBuffer& path, ScriptWords& words, bool* has_interp) {
    if (const long error = open_by_path(thread, path)) {
        return error;
    }
    return follow(thread, path, words, has_interp);
}

long open_nameless_program(Thread& thread, int fd, PathBuffer& path, ScriptWords& words,
                           bool* has_interp) {
    char link[32];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    {
        LockGuard guard(process.fd_lock);
        struct stat info {};
        if (const long error = host_call(SYS_fstat, fd, &info)) {
            return error;
        }
        if (!S_ISREG(info.st_mode) || info.st_nlink != 0) {
            return -ELOOP;
        }
        const long flags = host_call(SYS_fcntl, fd, F_GETFL);
        if ((flags & O_PATH) != 0 || (flags & O_ACCMODE) == O_WRONLY ||
            host_call(SYS_faccessat2, fd, "", X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) {
            return -EACCES;
        }
        const long length = host_call(SYS_readlink, link, path.text, sizeof(path.text) - 1);
        path.length = is_error(length) ? 0 : static_cast<size_t>(length);
        const long copy = host_call(SYS_dup3, fd, reserved_fd(kProgramFd), 0);
        if (is_error(copy)) {
            return copy;
        }
    }
    return follow(thread, path, words, has_interp);
}

void close_program() {
    LockGuard guard(process.fd_lock);
    host_call(SYS_close, reserved_fd(kProgramFd));
    host_call(SYS_close, reserved_fd(kInterpFd));
    host_call(SYS_close, reserved_fd(kImageFd));
}

}  // namespace dune::sandbox
