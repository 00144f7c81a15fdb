// SPDX-License-Identifier: MIT
//
// Changes of a file's attributes by way of a right to read it, or of no right at all.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

void change(int fd, const std::string& what) {
    const auto must_fail = [&](const char* how, bool worked) {
        if (worked) {
            escaped((what + ": " + how).c_str(), 0);
        }
    };
    const timespec times[2] = {{1, 0}, {1, 0}};
    must_fail("fchmod", fchmod(fd, 04777) == 0);
    must_fail("fchown", fchown(fd, 7, 7) == 0);
    must_fail("fchownat", fchownat(fd, "", 7, 7, AT_EMPTY_PATH) == 0);
    must_fail("futimens", futimens(fd, times) == 0);
    must_fail("fsetxattr", fsetxattr(fd, "user.x", "y", 1, 0) == 0 || errno == EOPNOTSUPP);
    must_fail("fremovexattr",
              fremovexattr(fd, "user.x") == 0 || errno == ENODATA || errno == EOPNOTSUPP);
    const std::string name = "/proc/self/fd/" + std::to_string(fd);
    must_fail("chmod by /proc", chmod(name.c_str(), 04777) == 0);
    must_fail("chown by /proc", chown(name.c_str(), 7, 7) == 0);
}

}  // namespace

// `readable` is a file that the policy lets be read and not be written.
void attack_attributes(const char* readable) {
    const std::string path = readable;
    const std::string above = path.substr(0, path.rfind('/'));
    const int file = open(readable, O_RDONLY);
    const int name = open(readable, O_PATH);
    const int directory = open(above.c_str(), O_PATH | O_DIRECTORY);
    if (file < 0 || name < 0 || directory < 0) {
        escaped("nothing to attack", static_cast<unsigned long>(errno));
        return;
    }
    change(file, "file");
    const int copy = dup(file);
    change(copy, "copy");
    if (fchownat(name, "", 7, 7, AT_EMPTY_PATH) == 0) {
        escaped("O_PATH: fchownat", 0);
    }
    if (fchownat(directory, "", 7, 7, AT_EMPTY_PATH) == 0) {
        escaped("directory: fchownat", 0);
    }
    if (chdir(above.c_str()) == 0 && fchownat(AT_FDCWD, "", 7, 7, AT_EMPTY_PATH) == 0) {
        escaped("working directory: fchownat", 0);
    }
    // What is the program's own it may change, however it has it open.
    char own[] = "/tmp/attack-XXXXXX";
    close(mkstemp(own));
    const int mine = open(own, O_RDONLY);
    int pipes[2];
    if (mine < 0 || fchmod(mine, 0640) != 0 || pipe(pipes) != 0 || fchmod(pipes[0], 0600) != 0) {
        escaped("not even its own", static_cast<unsigned long>(errno));
    }
    unlink(own);
}

// Another thread turns an empty path, which means the descriptor, into the secret's and back.
void attack_empty_path_race(const char* secret) {
    static char path[256];
    strncpy(path, secret, sizeof(path) - 1);
    volatile char* const first = path;
    char own[] = "/tmp/attack-XXXXXX";
    const int fd = mkstemp(own);
    std::atomic<bool> done{false};
    std::thread flipper([&] {
        // Each for a while that varies: from one look to the next, and not always at the same one.
        for (int turn = 0; !done; turn++) {
            *first = turn % 2 == 0 ? '\0' : '/';
            for (int wait = 0; wait < turn * 7 % 61; wait++) {
                asm volatile("");
            }
        }
    });
    for (int i = 0; i < 5000; i++) {
        static_cast<void>(fchownat(fd, path, 7, 7, AT_EMPTY_PATH));
    }
    done = true;
    flipper.join();
    unlink(own);
}

}  // namespace dune::sandbox_test
