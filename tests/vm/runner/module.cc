// SPDX-License-Identifier: MIT

#include "module.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace dune::vmtest {

namespace {

constexpr const char* kName = "dune";

// A process that was killed drops its last reference a moment later, when the
// kernel gets to its deferred work.
constexpr auto kPatience = std::chrono::seconds(5);

int unload() {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
        if (syscall(SYS_delete_module, kName, O_NONBLOCK) == 0 || errno == ENOENT) {
            return 0;
        }
        const bool busy = errno == EWOULDBLOCK || errno == EBUSY;
        if (!busy || std::chrono::steady_clock::now() >= deadline) {
            return errno;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

int load(const std::string& path, const std::string& args) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    const int error = syscall(SYS_finit_module, fd, args.c_str(), 0) == 0 ? 0 : errno;
    close(fd);
    return error;
}

}  // namespace

std::string Module::cycle() {
    if (path_.empty()) {
        return {};
    }
    const char* step = "unload";
    int error = unload();
    if (error == 0) {
        step = "load";
        error = load(path_, args_);
    }
    if (error == 0) {
        return {};
    }
    path_.clear();
    return std::string("the module could not be ") + step + "ed: " + strerror(error);
}

}  // namespace dune::vmtest
