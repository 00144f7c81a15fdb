// SPDX-License-Identifier: MIT
//
// What the sandbox knows about each system call of x86-64 Linux.

#ifndef DUNE_APPS_SANDBOX_POLICY_SYSCALLS_H
#define DUNE_APPS_SANDBOX_POLICY_SYSCALLS_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace dune::sandbox {

// The groups that a policy can name with @.
enum class Class : uint8_t {
    File,
    Net,
    Process,
    Memory,
    Signal,
    Time,
    Ids,
    Ipc,
    Info,
    Admin,
};

// Which part of the monitor carries the call out; syscalls.def explains each.
enum class Kind : uint8_t { Pass, Path, Desc, Mem, Vec, Sig, Proc, Net, Misc, Never, Absent };

struct SyscallInfo {
    std::string_view name;
    Class cls;
    Kind kind;
    std::string_view args;  // one letter each, see syscalls.def
};

// One more than the highest number that has an entry.
constexpr size_t kSyscallCount = 472;

// The entry of a number, or nullptr for a number that has none (or is out of range).
// Context: any, also in a trap: touches constant data only.
const SyscallInfo* syscall_info(uint64_t number);

// The number of a call by its kernel name, as in "openat".
std::optional<unsigned> syscall_number(std::string_view name);

// The class that "@name" names in a policy, as in "net".
std::optional<Class> class_from_name(std::string_view name);
std::string_view class_name(Class cls);

}  // namespace dune::sandbox

#endif
