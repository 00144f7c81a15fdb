// SPDX-License-Identifier: MIT

#ifndef DUNE_APPS_SANDBOX_OPTIONS_H
#define DUNE_APPS_SANDBOX_OPTIONS_H

#include <string>
#include <vector>

#include "policy/policy.h"

namespace dune::sandbox {

struct Options {
    std::string policy_file;           // --policy
    std::string preset = "default";    // --preset
    std::vector<std::string> read;     // --read
    std::vector<std::string> write;    // --write
    std::vector<std::string> hide;     // --hide
    std::string net;                   // --net: empty, none, loopback or all
    std::string log_file;              // --log: messages go there instead of stderr
    bool trace = false;                // --trace: log each call
    bool stats = false;                // --stats: report counts at the end
    bool quiet = false;                // --quiet: no messages about refusals
    std::vector<std::string> command;  // the program and its arguments
};

// Parses the command line. Returns true to go on; otherwise *status is what to exit with (help was
// printed, or a message).
bool parse_options(int argc, char** argv, Options& options, int* status);

// The policy that the options ask for. `program` is the file of the command, empty if it was not
// found: it may be read in any case. On an error prints one line and returns false.
bool make_policy(const Options& options, const std::string& program, PolicyImage& image);

}  // namespace dune::sandbox

#endif
