// SPDX-License-Identifier: MIT

#include "policy/syscalls.h"

#include <array>

namespace dune::sandbox {

namespace {

constexpr std::array<std::string_view, 10> kClassNames = {
    "file", "net", "process", "memory", "signal", "time", "ids", "ipc", "info", "admin",
};

constexpr std::array<SyscallInfo, kSyscallCount> make_table() {
    std::array<SyscallInfo, kSyscallCount> table{};
#define SYSCALL(number, name, cls, kind, args) \
    table[number] = SyscallInfo{#name, Class::cls, Kind::kind, args};
#include "policy/syscalls.def"
#undef SYSCALL
    return table;
}

constexpr std::array<SyscallInfo, kSyscallCount> kTable = make_table();

static_assert(kTable[kSyscallCount - 1].name.size() != 0, "kSyscallCount is too large");

}  // namespace

const SyscallInfo* syscall_info(uint64_t number) {
    if (number >= kSyscallCount || kTable[number].name.empty()) {
        return nullptr;
    }
    return &kTable[number];
}

std::optional<unsigned> syscall_number(std::string_view name) {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        if (!name.empty() && kTable[number].name == name) {
            return number;
        }
    }
    return std::nullopt;
}

std::optional<Class> class_from_name(std::string_view name) {
    for (size_t i = 0; i < kClassNames.size(); i++) {
        if (kClassNames[i] == name) {
            return static_cast<Class>(i);
        }
    }
    return std::nullopt;
}

std::string_view class_name(Class cls) {
    return kClassNames[static_cast<size_t>(cls)];
}

}  // namespace dune::sandbox
