// SPDX-License-Identifier: MIT
/**
 * @file
 * Parser of the lines of /proc/PID/maps (proc(5), "maps"), fed with pieces of any size:
 *
 *     begin-end perms offset major:minor inode          path
 *
 * Nothing is allocated. Linux puts no bound on the length of a path; of a longer one than fits
 * the first kMaxPath bytes are kept.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "libdune/procmap.h"

namespace dune::procmap {

/** PROCMAP_TYPE_* of an area that Linux gives this name. */
int type_of(std::string_view path) noexcept;

class MapsParser {
  public:
    static constexpr std::size_t kMaxPath = 4096;

    /** Called for each line; a result other than 0 ends the parsing. */
    using Callback = int (*)(void* context, const dune_procmap_entry& entry);

    MapsParser(Callback callback, void* context) noexcept
        : callback_(callback), context_(context) {}

    /** @return 0, what the callback ended with, or -EINVAL if the text has another format */
    int feed(std::string_view piece) noexcept;

    /** At the end of the text. @return 0, or -EINVAL if a line is unfinished */
    int finish() const noexcept;

  private:
    enum class Field : std::uint8_t {
        Begin,
        End,
        Perms,
        Offset,
        Major,
        Minor,
        Inode,
        Gap,
        Path,
    };

    int put(char c) noexcept;
    int number(char c, unsigned base, char terminator, unsigned long* out, Field next) noexcept;
    int perm(char c) noexcept;
    int line() noexcept;

    Callback callback_;
    void* context_;
    Field field_ = Field::Begin;
    unsigned digits_ = 0;  // of the field so far; characters of Perms
    unsigned long value_ = 0;
    std::size_t path_len_ = 0;
    dune_procmap_entry entry_ = {};
    char path_[kMaxPath + 1];
};

}  // namespace dune::procmap
