// SPDX-License-Identifier: MIT
//
// A file that no sandboxed program may see, and a witness of its changes.
#ifndef DUNE_TESTS_SANDBOX_SECRET_H
#define DUNE_TESTS_SANDBOX_SECRET_H

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace dune::sandbox_test {

inline std::string content_of(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

// A file outside of what the program may see, with a witness of changes.
class Secret : public ::testing::Test {
  protected:
    void SetUp() override {
        std::ofstream(path_) << "the secret\n";
        ASSERT_EQ(stat(path_.c_str(), &before_), 0);
    }
    void TearDown() override {
        struct stat after {};
        ASSERT_EQ(stat(path_.c_str(), &after), 0) << "the file is gone";
        EXPECT_EQ(content_of(path_), "the secret\n");
        EXPECT_EQ(after.st_mode, before_.st_mode);
        EXPECT_EQ(after.st_nlink, 1u);
        EXPECT_EQ(after.st_uid, before_.st_uid);
        EXPECT_EQ(after.st_gid, before_.st_gid);
        EXPECT_EQ(after.st_mtime, before_.st_mtime);
        unlink(path_.c_str());
    }
    std::string path_ = "/root/secret";
    struct stat before_ {};
};

}  // namespace dune::sandbox_test

#endif
