// SPDX-License-Identifier: MIT
//
// examples/trace.cc, which is how people begin a monitor of their own: it prints each system call
// of an unmodified program in ring 3, and the program does what it does without.

#include <gtest/gtest.h>

#include <csignal>

#include "sandboxed.h"

namespace dune::sandbox_test {
namespace {

Outcome traced(std::vector<std::string> command) {
    command.insert(command.begin(), beside("example-trace"));
    return run(command);
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(Trace, StaticProgram) {
    const Outcome outcome = traced({beside("sandbox_subject"), "files"});
    EXPECT_EQ(outcome.status, 0) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "openat(0xffffff9c, \"dir/link\", ")) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "= -1 ELOOP\n")) << outcome.text();
    EXPECT_TRUE(has(outcome.err, "exit_group(0, ")) << outcome.text();
}

TEST(Trace, DynamicProgramThatForks) {
    const std::vector<std::string> command = {"/bin/sh", "-c", "echo $(echo inner); exit 4"};
    const Outcome outcome = traced(command);
    EXPECT_EQ(outcome.status, 4) << outcome.text();
    EXPECT_EQ(outcome.out, "inner\n");
    EXPECT_TRUE(has(outcome.err, "exit_group(0x4, ")) << outcome.text();
}

TEST(Trace, TellsHowAProgramDies) {
    const Outcome outcome = traced({"/bin/sh", "-c", "kill -SEGV $$"});
    EXPECT_EQ(outcome.signal, SIGSEGV) << outcome.text();
    EXPECT_EQ(traced({"/no/such/program"}).status, 2);
}

}  // namespace
}  // namespace dune::sandbox_test
