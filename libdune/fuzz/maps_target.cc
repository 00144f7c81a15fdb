// SPDX-License-Identifier: MIT
//
// Any text as /proc/self/maps; the first byte says in what pieces it comes.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "procmap/maps_parser.h"

namespace {

using dune::procmap::MapsParser;

void require(bool promise) {
    if (!promise)
        abort();
}

int check_entry(void* context, const dune_procmap_entry& entry) {
    ++*static_cast<std::size_t*>(context);
    require(entry.begin < entry.end);
    require(std::strlen(entry.path) <= MapsParser::kMaxPath);
    require(entry.type >= PROCMAP_TYPE_UNKNOWN && entry.type <= PROCMAP_TYPE_VVAR);
    return 0;
}

struct Outcome {
    int rc;
    std::size_t lines;
    friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome parse(std::string_view text, std::size_t piece) {
    std::size_t lines = 0;
    MapsParser parser(check_entry, &lines);
    int rc = 0;
    for (; rc == 0 && !text.empty(); text.remove_prefix(std::min(piece, text.size())))
        rc = parser.feed(text.substr(0, piece));
    return {rc == 0 ? parser.finish() : rc, lines};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0)
        return 0;
    const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
    require(parse(text, data[0] % 64 + 1U) == parse(text, 4096));
    return 0;
}
