// SPDX-License-Identifier: MIT
//
// Numbers in /proc: in the names of its files, and in what they say.

#ifndef DUNE_APPS_SANDBOX_MONITOR_DECIMAL_H
#define DUNE_APPS_SANDBOX_MONITOR_DECIMAL_H

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dune::sandbox {

using DecimalRoom = char[20];

// `value` in decimal, somewhere in `room`. Context: any.
inline std::string_view to_text(uint64_t value, DecimalRoom& room) {
    char* at = room + sizeof(room);
    do {
        *--at = static_cast<char>('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return {at, static_cast<size_t>(room + sizeof(room) - at)};
}

// The number that a text is; -1 if it is none, or has more than nine digits. Context: any.
inline long parse_number(std::string_view text) {
    long value = 0;
    if (text.empty() || text.size() > 9) {
        return -1;
    }
    for (const char c : text) {
        if (c < '0' || c > '9') {
            return -1;
        }
        value = value * 10 + (c - '0');
    }
    return value;
}

}  // namespace dune::sandbox

#endif
