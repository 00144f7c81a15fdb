// SPDX-License-Identifier: MIT
#include "maps_parser.h"

#include <cerrno>
#include <climits>

namespace dune::procmap {
namespace {

/** Value of a digit of lower-case hexadecimal, as Linux prints it; 16 for anything else. */
constexpr unsigned digit(char c) noexcept {
    if (c >= '0' && c <= '9')
        return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f')
        return static_cast<unsigned>(c - 'a') + 10;
    return 16;
}

}  // namespace

int type_of(std::string_view path) noexcept {
    if (path.empty())
        return PROCMAP_TYPE_ANONYMOUS;
    if (path.front() != '[' || path.back() != ']')
        return PROCMAP_TYPE_FILE;
    if (path == "[heap]")
        return PROCMAP_TYPE_HEAP;
    // Kernels before 4.5 also name the stacks of other threads, by their number.
    if (path == "[stack]" || path.starts_with("[stack:"))
        return PROCMAP_TYPE_STACK;
    if (path == "[vdso]")
        return PROCMAP_TYPE_VDSO;
    if (path == "[vvar]" || path == "[vvar_vclock]")
        return PROCMAP_TYPE_VVAR;
    if (path == "[vsyscall]")
        return PROCMAP_TYPE_VSYSCALL;
    if (path.starts_with("[anon:") || path.starts_with("[anon_shmem:"))
        return PROCMAP_TYPE_ANONYMOUS;
    return PROCMAP_TYPE_UNKNOWN;
}

int MapsParser::feed(std::string_view piece) noexcept {
    for (const char c : piece)
        if (const int rc = put(c); rc != 0)
            return rc;
    return 0;
}

int MapsParser::finish() const noexcept {
    return field_ == Field::Begin && digits_ == 0 ? 0 : -EINVAL;
}

int MapsParser::number(char c, unsigned base, char terminator, unsigned long* out,
                       Field next) noexcept {
    if (c == terminator && digits_ != 0) {
        *out = value_;
        value_ = 0;
        digits_ = 0;
        field_ = next;
        return 0;
    }
    const unsigned d = digit(c);
    if (d >= base || value_ > (ULONG_MAX - d) / base)
        return -EINVAL;
    value_ = value_ * base + d;
    ++digits_;
    return 0;
}

int MapsParser::perm(char c) noexcept {
    constexpr std::string_view kSet = "rwxp";
    const unsigned at = digits_++;
    if (at == kSet.size()) {
        digits_ = 0;
        field_ = Field::Offset;
        return c == ' ' ? 0 : -EINVAL;
    }
    const bool set = c == kSet[at];
    if (!set && c != (at == kSet.size() - 1 ? 's' : '-'))
        return -EINVAL;
    bool* const flags[] = {&entry_.r, &entry_.w, &entry_.x, &entry_.p};
    *flags[at] = set;
    return 0;
}

int MapsParser::put(char c) noexcept {
    unsigned long ignored;
    switch (field_) {
        case Field::Begin:
            return number(c, 16, '-', &entry_.begin, Field::End);
        case Field::End:
            return number(c, 16, ' ', &entry_.end, Field::Perms);
        case Field::Perms:
            return perm(c);
        case Field::Offset:
            return number(c, 16, ' ', &entry_.offset, Field::Major);
        case Field::Major:
            return number(c, 16, ':', &ignored, Field::Minor);
        case Field::Minor:
            return number(c, 16, ' ', &ignored, Field::Inode);
        case Field::Inode:
            if (c == '\n' && digits_ != 0) {
                value_ = 0;
                digits_ = 0;
                return line();
            }
            return number(c, 10, ' ', &ignored, Field::Gap);
        case Field::Gap:
            if (c == ' ')
                return 0;
            field_ = Field::Path;
            [[fallthrough]];
        case Field::Path:
            if (c == '\n')
                return line();
            if (path_len_ < kMaxPath)
                path_[path_len_++] = c;
            return 0;
    }
    return -EINVAL;
}

int MapsParser::line() noexcept {
    if (entry_.begin >= entry_.end)
        return -EINVAL;
    path_[path_len_] = '\0';
    entry_.path = path_;
    entry_.type = type_of({path_, path_len_});
    path_len_ = 0;
    field_ = Field::Begin;
    return callback_(context_, entry_);
}

}  // namespace dune::procmap
