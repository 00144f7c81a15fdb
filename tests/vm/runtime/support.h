// SPDX-License-Identifier: MIT
// What the tests of libdune's runtime share.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <string>

#include "libdune/dune.h"

namespace dune::test {

/** Tests that run in ring 0. */
class RuntimeTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(dune_init_and_enter(), 0);
        ASSERT_TRUE(dune_in_guest());
    }
};

struct Outcome {
    int status;           ///< of waitpid()
    std::string stderr_;  ///< what it wrote there

    bool exited(int code) const;
    bool killed(int sig) const;
};

/**
 * Run a function in a forked child, in Dune mode if the parent is, and see how it ends. What it
 * returns is its exit status.
 */
Outcome in_child(const std::function<int()>& body);

/** Memory of whole pages, unmapped at the end. */
class Pages {
  public:
    explicit Pages(std::size_t count, int prot = PROT_READ | PROT_WRITE, void* hint = nullptr);
    ~Pages();
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    char* at(std::size_t page = 0) const { return base_ + page * PGSIZE; }
    std::size_t size() const { return size_; }
    std::uintptr_t address(std::size_t page = 0) const {
        return reinterpret_cast<std::uintptr_t>(at(page));
    }

  private:
    char* base_;
    std::size_t size_;
};

/** Write to an address while the stack pointer is in a GiB where nothing was before. */
void write_on_new_stack(volatile char* address);

}  // namespace dune::test
