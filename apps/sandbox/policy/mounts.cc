// SPDX-License-Identifier: MIT

#include "policy/mounts.h"

#include <algorithm>
#include <array>

namespace dune::sandbox {

namespace {

// Each with the only place where its rules are known.
struct Special {
    std::string_view type, home;
};
constexpr std::array<Special, 8> kSpecial = {{
    {"proc", "/proc"},
    {"sysfs", "/sys"},
    {"devtmpfs", "/dev"},
    {"debugfs", "/sys/kernel/debug"},
    {"tracefs", "/sys/kernel/tracing"},
    {"securityfs", "/sys/kernel/security"},
    {"configfs", "/sys/kernel/config"},
    {"bpf", "/sys/fs/bpf"},
}};

std::string_view cut(std::string_view& text, char end) {
    const size_t at = std::min(text.find(end), text.size());
    const std::string_view part = text.substr(0, at);
    text.remove_prefix(std::min(at + 1, text.size()));
    return part;
}

// A space, tab, newline or backslash is three octal digits behind a backslash.
std::string without_escapes(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 |
                                     (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

}  // namespace

void hide_other_mounts(Policy& policy, std::string_view mountinfo) {
    while (!mountinfo.empty()) {
        std::string_view line = cut(mountinfo, '\n');
        for (int field = 0; field < 4; field++) {
            cut(line, ' ');
        }
        const std::string_view place = cut(line, ' ');
        // Fields of no fixed number end with "-".
        while (!line.empty() && cut(line, ' ') != "-") {
        }
        const std::string_view type = cut(line, ' ');
        const auto* const special =
            std::find_if(kSpecial.begin(), kSpecial.end(),
                         [type](const Special& entry) { return entry.type == type; });
        if (special == kSpecial.end()) {
            continue;
        }
        const std::string path = without_escapes(place);
        if (!is_at_or_below(path, special->home)) {
            policy.set_path(path, Access::Hidden);
        }
    }
}

}  // namespace dune::sandbox
