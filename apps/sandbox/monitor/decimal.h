// SPDX-License-Identifier: MIT
//
// Numbers in the names of files in /proc.

#ifndef DUNE_APPS_SANDBOX_MONITOR_DECIMAL_H
#define DUNE_APPS_SANDBOX_MONITOR_DECIMAL_H

#include <cstddef>
#include <string_view>

namespace dune::sandbox {

// `value` in decimal, somewhere in `room`. Context: any.
inline std::string_view to_text(unsigned value, char (&room)[16]) {
    char* at = room + sizeof(room);
    do {
        *--at = static_cast<char>('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return {at, static_cast<size_t>(room + sizeof(room) - at)};
}

}  // namespace dune::sandbox

#endif
