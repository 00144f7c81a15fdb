// SPDX-License-Identifier: MIT
//
// Names that change between the look at them and their use.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "attacker.h"

namespace dune::sandbox_test {

namespace {

// True if a file opens and shows anything.
bool reads(const char* path, int flags = O_RDONLY) {
    char text[16];
    const int fd = open(path, flags);
    const bool got = fd >= 0 && read(fd, text, sizeof(text)) > 0;
    if (fd >= 0) {
        close(fd);
    }
    return got;
}

}  // namespace

// `secret` is a file that the policy hides.
void attack_paths(const char* secret) {
    const std::string name = secret;
    const std::string up = "/tmp/../tmp/.." + name;
    char room[] = "/tmp/attack-XXXXXX";
    if (mkdtemp(room) == nullptr || chdir(room) != 0) {
        return;
    }
    const auto must_hide = [](const char* what, const std::string& path) {
        if (reads(path.c_str())) {
            escaped(what, 0);
        }
    };
    must_hide("plain", name);
    must_hide("dots", up);
    must_hide("slashes", "//" + name);
    must_hide("root by /proc", "/proc/self/root" + name);
    must_hide("root by /proc, indirectly", "/proc/self/cwd/../.." + name);
    if (symlink(secret, "absolute") == 0) {
        must_hide("link", "absolute");
    }
    if (symlink(("../.." + name).c_str(), "relative") == 0) {
        must_hide("relative link", "relative");
    }
    if (symlink("absolute", "twice") == 0) {
        must_hide("link to link", "twice");
    }
    if (symlink(name.substr(0, name.rfind('/')).c_str(), "dir") == 0) {
        must_hide("link to directory", "dir/" + name.substr(name.rfind('/') + 1));
    }
    if (link(secret, "hard") == 0) {
        escaped("hard link", 0);
    }
    if (rename(secret, "moved") == 0) {
        escaped("rename", 0);
    }
    const int dir = open(name.substr(0, name.rfind('/')).c_str(), O_PATH | O_DIRECTORY);
    if (dir >= 0 && openat(dir, secret + name.rfind('/') + 1, O_RDONLY) >= 0) {
        escaped("openat", 0);
    }
    const int path_only = open(secret, O_PATH);
    if (path_only >= 0) {
        must_hide("O_PATH descriptor", "/proc/self/fd/" + std::to_string(path_only));
    }
    if (truncate(secret, 0) == 0 || chmod(secret, 0777) == 0 || unlink(secret) == 0) {
        escaped("changed", 0);
    }
    for (const char* const file : {"absolute", "relative", "twice", "dir"}) {
        unlink(file);
    }
    rmdir(room);
}

// Another thread turns a file of the program's own into a link to the secret and back.
void attack_path_race(const char* secret) {
    char room[] = "/tmp/attack-XXXXXX";
    if (mkdtemp(room) == nullptr || chdir(room) != 0) {
        return;
    }
    const std::string file = std::string(room) + "/file";
    const std::string own = std::string(room) + "/own";
    const std::string evil = std::string(room) + "/evil";
    std::atomic<bool> done{false};
    close(open(own.c_str(), O_CREAT | O_WRONLY, 0600));
    std::thread flipper([&] {
        while (!done) {
            if (symlink(secret, evil.c_str()) == 0) {
                rename(evil.c_str(), file.c_str());
            }
            link(own.c_str(), evil.c_str());
            rename(evil.c_str(), file.c_str());
            unlink(evil.c_str());
        }
    });
    for (int i = 0; i < 500; i++) {
        if (reads(file.c_str())) {
            escaped("read in a race", static_cast<unsigned long>(i));
            break;
        }
        const int fd = open(file.c_str(), O_WRONLY | O_TRUNC);
        if (fd >= 0) {
            close(fd);
        }
        chmod(file.c_str(), 0666);
    }
    done = true;
    flipper.join();
    for (const std::string& path : {file, own, evil}) {
        unlink(path.c_str());
    }
    rmdir(room);
}

// Another thread turns the pointer of an iovec to the runtime and back. The kernel may refuse the
// call or fill the buffer, never anything else.
void attack_iovec_race(const char*) {
    static char buffer[8];
    const int zero = open("/dev/zero", O_RDONLY);
    for (const Target& target : runtime_memory()) {
        if (!target.writable) {
            continue;
        }
        static volatile iovec vector;
        std::atomic<bool> done{false};
        std::thread flipper([&] {
            while (!done) {
                vector.iov_base = buffer;
                vector.iov_base = reinterpret_cast<void*>(target.at);
            }
        });
        vector.iov_len = sizeof(buffer);
        for (int i = 0; i < 300; i++) {
            memset(buffer, 1, sizeof(buffer));
            const ssize_t n = readv(zero, const_cast<iovec*>(&vector), 1);
            if (n > 0 && buffer[0] != 0) {
                escaped("readv in a race", target.at);
                break;
            }
        }
        done = true;
        flipper.join();
    }
}

}  // namespace dune::sandbox_test
