// SPDX-License-Identifier: MIT
//
// execve(2). The new program needs an empty address space and a fresh runtime, so Linux executes
// the runtime's own file again, which finds in its reserved descriptors: the policy, the program's
// file, and its arguments and environment. The environment is not the process' real one, so that
// nothing in it (GLIBC_TUNABLES, say) acts on the runtime.

#include "monitor/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "loader/program.h"
#include "monitor/fd_limit.h"
#include "monitor/paths.h"

namespace dune::sandbox {

namespace {

constexpr size_t kMaxStrings = 1 << 16;

// Memory that lives until the execve, outside of the program's part.
struct Room {
    ExecImage image;
    ScriptWords words;
    PathBuffer program;
    char given[PATH_MAX];               // the path as the caller named it
    const char* argv[kMaxStrings + 2];  // of the process itself, for ps(1)
};

Room* make_room() {
    const long at = host_call(SYS_mmap, 0, sizeof(Room), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_error(at)) {
        return nullptr;
    }
    Room* const room = reinterpret_cast<Room*>(at);
    room->image.magic = ExecImage::kMagic;
    return room;
}

// Appends the program's string at `from`. 0, -EFAULT or -E2BIG.
long add_user_string(ExecImage& image, uint64_t from) {
    for (;;) {
        const size_t chunk = 256 - from % 256;
        if (ExecImage::kTextSize - image.used <= chunk) {
            return -E2BIG;
        }
        char* const to = image.text + image.used;
        if (!engine::copy_in(to, from, chunk)) {
            return -EFAULT;
        }
        if (const void* end = memchr(to, 0, chunk)) {
            image.used += static_cast<uint32_t>(static_cast<const char*>(end) - to + 1);
            return 0;
        }
        image.used += static_cast<uint32_t>(chunk);
        from += chunk;
    }
}

// Appends an array of strings that ends with NULL, without its first `skip`.
long add_user_strings(ExecImage& image, uint64_t array, uint32_t skip, uint32_t* count) {
    for (uint64_t i = 0; array != 0; i++) {
        uint64_t string;
        if (!engine::copy_in(&string, array + i * sizeof(string), sizeof(string))) {
            return -EFAULT;
        }
        if (string == 0) {
            break;
        }
        if (i < skip) {
            continue;
        }
        if (*count == kMaxStrings) {
            return -E2BIG;
        }
        if (const long error = add_user_string(image, string)) {
            return error;
        }
        (*count)++;
    }
    return 0;
}

bool add_counted(ExecImage& image, std::string_view string) {
    image.argc++;
    return image.add(string);
}

long fill_image(Room& room, uint64_t argv, uint64_t envp) {
    ExecImage& image = room.image;
    bool fits = image.add(room.program.view());
    image.set_comm(room.given);
    const bool script = room.words.count > 0;
    for (int i = 0; i < room.words.count; i++) {
        fits = fits && add_counted(image, room.words.text[i]);
    }
    if (script) {
        fits = fits && add_counted(image, room.given);
    }
    if (!fits) {
        return -E2BIG;
    }
    if (const long error = add_user_strings(image, argv, script ? 1 : 0, &image.argc)) {
        return error;
    }
    if (image.argc == 0) {
        add_counted(image, "");  // as Linux since 5.18
    }
    return add_user_strings(image, envp, 0, &image.envc);
}

// The image as a memory file with the number kImageFd.
long write_image(const ExecImage& image) {
    LockGuard guard(process.fd_lock);
    const long fd = host_call(SYS_memfd_create, "dune-sandbox", MFD_CLOEXEC);
    if (is_error(fd)) {
        return fd;
    }
    const long written = host_call(SYS_write, fd, &image, image.size());
    const long result = written == static_cast<long>(image.size())
                            ? host_call(SYS_dup3, fd, reserved_fd(kImageFd), 0)
                            : -ENOMEM;
    host_call(SYS_close, fd);
    return is_error(result) ? result : 0;
}

long replace_process(Room& room) {
    const char* at = room.image.text + strlen(room.image.text) + 1;
    for (uint32_t i = 0; i < room.image.argc; i++) {
        room.argv[i] = at;
        at += strlen(at) + 1;
    }
    room.argv[room.image.argc] = nullptr;
    char state[32];
    snprintf(state, sizeof(state), "%s=%d", kStateVariable, process.fd_base);
    const char* const envp[] = {state, nullptr};
    count_vm_exits();
    return host_call(SYS_execveat, reserved_fd(kSelfFd), "", room.argv, envp, AT_EMPTY_PATH);
}

// Replaces the process by the program that was opened, which had the result `error`.
long execute_opened(Call& call, Room& room, long error, uint64_t argv, uint64_t envp) {
    if (error != 0) {
        if (error == -EACCES && process.policy->access(room.program.view()) == Access::Hidden) {
            return refuse_path(call, room.program.view(), "hidden by the policy");
        }
        return error == kWrongMachine || error == kWrongClass ? -ENOEXEC : error;
    }
    if (const long failed = fill_image(room, argv, envp)) {
        return failed;
    }
    if (const long failed = write_image(room.image)) {
        return failed;
    }
    return replace_process(room);
}

// Replaces the process by the program whose path is in room.given.
long execute(Call& call, Room& room, int dirfd, uint64_t argv, uint64_t envp) {
    Thread& thread = call.thread;
    bool plain;
    bool directory;
    if (const long error =
            absolute_path(thread, dirfd, room.given, room.program, &plain, &directory)) {
        return error;
    }
    const long error = open_program(thread, room.program, room.words, &room.image.has_interp);
    return execute_opened(call, room, error, argv, envp);
}

}  // namespace

long do_exec(Call& call, int dirfd, uint64_t path, uint64_t argv, uint64_t envp) {
    LockGuard guard(process.exec_lock);
    const RuntimeNumbers numbers;
    Room* const room = make_room();
    if (room == nullptr) {
        return -ENOMEM;
    }
    PathBuffer& given = call.thread.work;
    long result = copy_path(path, given);
    if (result == 0) {
        memcpy(room->given, given.c_str(), given.length + 1);
        result = execute(call, *room, dirfd, argv, envp);
    }
    close_program();
    host_call(SYS_munmap, room, sizeof(Room));
    return result;
}

long do_exec_descriptor(Call& call) {
    LockGuard guard(process.exec_lock);
    const RuntimeNumbers numbers;
    Room* const room = make_room();
    if (room == nullptr) {
        return -ENOMEM;
    }
    const int fd = static_cast<int>(call.args[0]);
    snprintf(room->given, sizeof(room->given), "/proc/self/fd/%d", fd);
    long result =
        open_nameless_program(call.thread, fd, room->program, room->words, &room->image.has_interp);
    result = result == -ELOOP ? execute(call, *room, AT_FDCWD, call.args[2], call.args[3])
                              : execute_opened(call, *room, result, call.args[2], call.args[3]);
    close_program();
    host_call(SYS_munmap, room, sizeof(Room));
    return result;
}

}  // namespace dune::sandbox
