// SPDX-License-Identifier: MIT
//
// Unloads and loads the module: what tests leave behind in it (an object in a
// slab cache, a reference) shows at unload.

#ifndef DUNE_TESTS_VM_RUNNER_MODULE_H
#define DUNE_TESTS_VM_RUNNER_MODULE_H

#include <string>

namespace dune::vmtest {

class Module {
  public:
    // `path` is the module's file, or empty: then cycle() does nothing.
    Module(std::string path, std::string args) : path_(std::move(path)), args_(std::move(args)) {}

    // Unloads (if it is loaded) and loads the module. Returns an empty string, or
    // what went wrong; after that it does no more, so that one test alone is
    // blamed and the others go on with the module as it is.
    std::string cycle();

  private:
    std::string path_;
    std::string args_;
};

}  // namespace dune::vmtest

#endif
