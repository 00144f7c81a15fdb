// SPDX-License-Identifier: MIT
//
// Programs of the distribution that start many others: compiler and version control.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "same_as_plain.h"

namespace dune::sandbox_test {
namespace {

TEST(Development, GccCompilesAndLinks) {
    ASSERT_EQ(chdir("/tmp"), 0);
    std::ofstream("/tmp/root.c") << R"(
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char** argv) {
    for (int i = 1; i < argc; i++) printf("%.6f\n", sqrt(atof(argv[i])));
    return argc;
}
)";
    const Outcome compiled =
        sandboxed({"--quiet"}, {"gcc", "-O2", "-Wall", "-Werror", "root.c", "-o", "root", "-lm"});
    ASSERT_TRUE(compiled.ok()) << compiled.text();
    EXPECT_EQ(compiled.err, "");
    const Outcome plain = run({"/tmp/root", "2", "1e10"});
    const Outcome boxed = sandboxed({}, {"/tmp/root", "2", "1e10"});
    EXPECT_EQ(boxed.out, "1.414214\n100000.000000\n") << boxed.text();
    EXPECT_EQ(boxed.status, 3);
    EXPECT_EQ(plain.out, boxed.out);
    EXPECT_EQ(plain.status, boxed.status);
}

TEST(Development, GccReportsErrors) {
    std::ofstream("/tmp/bad.c") << "int f(void) { return undeclared; }\n";
    const Outcome outcome = sandboxed({"--quiet"}, {"gcc", "-c", "/tmp/bad.c", "-o", "/tmp/bad.o"});
    EXPECT_EQ(outcome.status, 1) << outcome.text();
    EXPECT_NE(outcome.err.find("undeclared"), std::string::npos) << outcome.text();
    EXPECT_NE(access("/tmp/bad.o", F_OK), 0);
}

TEST(Development, Git) {
    // The same hashes in both runs: they depend on names and dates.
    for (const char* who : {"GIT_AUTHOR_", "GIT_COMMITTER_"}) {
        const std::string prefix = who;
        setenv((prefix + "NAME").c_str(), "Nobody", 1);
        setenv((prefix + "EMAIL").c_str(), "nobody@example.org", 1);
        setenv((prefix + "DATE").c_str(), "2020-02-02T20:20:20Z", 1);
    }
    setenv("HOME", "/tmp", 1);
    std::ofstream("/tmp/git.sh") << R"(set -e
rm -rf one two
git init -q -b main one
cd one
seq 100 >numbers
git add numbers
git commit -q -m first
seq 3 100 >numbers
git commit -q -a -m second
git log --format='%H %s'
cd ..
git clone -q one two
cd two
git log --oneline
git diff --stat HEAD~1
git checkout -q -b other HEAD~1
wc -l <numbers
git gc -q
git fsck --strict
git status --short
)";
    same_as_plain({"sh", "/tmp/git.sh"});
}

}  // namespace
}  // namespace dune::sandbox_test
