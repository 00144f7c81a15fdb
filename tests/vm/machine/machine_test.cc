// SPDX-License-Identifier: MIT
//
// What every other test takes for granted of the machine that it runs in.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace {

std::string content_of(const char* path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

TEST(Machine, CpuHasVtx) {
    EXPECT_NE(content_of("/proc/cpuinfo").find(" vmx "), std::string::npos);
}

TEST(Machine, ModuleIsLoaded) {
    EXPECT_NE(("\n" + content_of("/proc/modules")).find("\ndune "), std::string::npos);
}

TEST(Machine, DeviceOpens) {
    struct stat status;
    ASSERT_EQ(stat("/dev/dune", &status), 0) << strerror(errno);
    EXPECT_TRUE(S_ISCHR(status.st_mode));
    const int fd = open("/dev/dune", O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0) << strerror(errno);
    close(fd);
}

TEST(Machine, TestsRunAsRoot) {
    EXPECT_EQ(geteuid(), 0U);
}

TEST(Machine, TemporaryFilesCanBeMade) {
    char path[] = "/tmp/dune-test-XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_GE(fd, 0) << strerror(errno);
    EXPECT_EQ(write(fd, path, sizeof(path)), static_cast<ssize_t>(sizeof(path)));
    close(fd);
    unlink(path);
}

}  // namespace
