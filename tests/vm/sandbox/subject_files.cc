// SPDX-License-Identifier: MIT

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "control_message.h"
#include "subject.h"

namespace dune::sandbox_test {

void test_descriptors() {
    rlimit limit{};
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 128);
    const int fd = open("/dev/null", O_RDWR);
    CHECK(fd >= 0 && fd < 16);
    CHECK(dup2(fd, 77) == 77 && close(77) == 0);
    // All from 3 on, as daemons do, around what the program cannot see.
    CHECK(dup2(fd, 50) == 50);
    CHECK(close_range(3, ~0u, 0) == 0);
    CHECK(fcntl(50, F_GETFD) == -1 && errno == EBADF);
    CHECK(open("/dev/null", O_RDWR) == 3);
    // A descriptor sent over a socket.
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    const int sent = 3;
    DescriptorMessage message(sent);
    CHECK(message.send(pair[0]));
    const int got = message.receive(pair[1]);
    struct stat a;
    struct stat b;
    CHECK(fstat(sent, &a) == 0 && fstat(got, &b) == 0 && a.st_rdev == b.st_rdev);
}

void test_files() {
    char room[] = "/tmp/sandbox-XXXXXX";
    CHECK(mkdtemp(room) != nullptr);
    CHECK(chdir(room) == 0);
    char cwd[256];
    CHECK(getcwd(cwd, sizeof(cwd)) != nullptr && strcmp(cwd, room) == 0);
    const int fd = open("file", O_CREAT | O_RDWR | O_EXCL, 0640);
    CHECK(fd >= 0);
    const iovec vectors[2] = {{const_cast<char*>("hello "), 6}, {const_cast<char*>("world"), 5}};
    CHECK(writev(fd, vectors, 2) == 11);
    CHECK(mkdir("dir", 0755) == 0);
    CHECK(symlink("../file", "dir/link") == 0);
    char text[32] = {};
    CHECK(readlink("dir/link", text, sizeof(text)) == 7 && strcmp(text, "../file") == 0);
    const int linked = open("dir/link", O_RDONLY);
    CHECK(linked >= 0 && read(linked, text, sizeof(text)) == 11 &&
          memcmp(text, "hello world", 11) == 0);
    CHECK(open("dir/link", O_RDONLY | O_NOFOLLOW) == -1 && errno == ELOOP);
    const int dir = open("dir", O_RDONLY | O_DIRECTORY);
    struct stat status;
    CHECK(fstatat(dir, "../file", &status, 0) == 0 && status.st_size == 11 &&
          (status.st_mode & 0777) == 0640);
    CHECK(openat(dir, "../dir/.././file", O_RDONLY) >= 0);
    CHECK(rename("file", "dir/moved") == 0);
    CHECK(access("file", F_OK) == -1 && errno == ENOENT);
    CHECK(link("dir/moved", "again") == 0 && stat("again", &status) == 0 && status.st_nlink == 2);
    CHECK(chmod("again", 0600) == 0 && truncate("again", 5) == 0);
    CHECK(stat("dir/moved", &status) == 0 && status.st_size == 5);
    DIR* const list = fdopendir(dir);
    int names = 0;
    while (readdir(list) != nullptr) {
        names++;
    }
    CHECK(names == 4);
    // By way of /proc.
    const std::string own = "/proc/self/fd/" + std::to_string(fd);
    CHECK(open(own.c_str(), O_RDONLY) >= 0);
    int pipe_fds[2];
    CHECK(pipe(pipe_fds) == 0);
    CHECK(open(("/dev/fd/" + std::to_string(pipe_fds[1])).c_str(), O_WRONLY) >= 0 ||
          access("/dev/fd", F_OK) != 0);
    CHECK(unlink("again") == 0 && unlink("dir/moved") == 0 && unlink("dir/link") == 0);
    CHECK(rmdir("dir") == 0 && chdir("/") == 0 && rmdir(room) == 0);
}

}  // namespace dune::sandbox_test
