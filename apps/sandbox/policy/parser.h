// SPDX-License-Identifier: MIT
//
// The policy file. One statement a line, '#' begins a comment:
//
//   preset  NAME                     compute, default or permissive; only as the first statement
//   allow   CALL...                  CALL is a system call's name or @CLASS
//   deny    CALL...                  fails with EPERM
//   errno   NAME CALL...             fails with that error, as in: errno ENOENT readlink
//   trace   CALL...                  logged; `trace @all` logs every call
//   read    PATH                     the files at and below PATH may be read and executed
//   write   PATH                     ... and also written, made and removed
//   hide    PATH                     ... cannot be opened
//   net     none|loopback|all
//
// Of several path statements the one with the longest PATH decides; of several about the same call
// or path, the last. A PATH is absolute and may stand in double quotes, where \ escapes.

#ifndef DUNE_APPS_SANDBOX_POLICY_PARSER_H
#define DUNE_APPS_SANDBOX_POLICY_PARSER_H

#include <string>
#include <string_view>
#include <variant>

#include "policy/policy.h"

namespace dune::sandbox {

struct PolicyError {
    unsigned line;    // from 1
    unsigned column;  // of the first character that is wrong, from 1
    std::string message;
};

// Parses the text of a policy file. `preset` is the preset to start from if the text names none;
// `cwd` as for Policy::preset().
std::variant<Policy, PolicyError> parse_policy(std::string_view text, std::string_view preset,
                                               std::string_view cwd);

// "ENOENT" → 2.
std::optional<uint16_t> errno_from_name(std::string_view name);

}  // namespace dune::sandbox

#endif
