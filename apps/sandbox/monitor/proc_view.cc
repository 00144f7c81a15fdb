// SPDX-License-Identifier: MIT

#include "monitor/proc_view.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "monitor/decimal.h"
#include "monitor/paths.h"

namespace dune::sandbox {

namespace {

constexpr size_t kNameColumn = 73;  // of a mapping's name

// Lines in, lines out, both through thread.bytes.
class Copier {
  public:
    Copier(Thread& thread, long from, long to)
        : from_(from), to_(to), in_(thread.bytes), out_(thread.bytes + kRoom) {}

    // The next line with its '\n', or an empty one at the end.
    std::string_view next();
    void put(std::string_view text);
    void put(uint64_t value);
    void flush();

  private:
    static constexpr size_t kRoom = sizeof(Thread::bytes) / 2;

    long from_, to_;
    uint8_t* in_;
    uint8_t* out_;
    size_t begin_ = 0, end_ = 0, used_ = 0;
};

std::string_view Copier::next() {
    for (;;) {
        const char* const text = reinterpret_cast<const char*>(in_ + begin_);
        if (const void* const end = memchr(text, '\n', end_ - begin_)) {
            const std::string_view line(text, static_cast<const char*>(end) - text + 1);
            begin_ += line.size();
            return line;
        }
        memmove(in_, in_ + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
        const long n = host_call(SYS_read, from_, in_ + end_, kRoom - end_);
        if (n <= 0) {
            return {};
        }
        end_ += static_cast<size_t>(n);
    }
}

void Copier::put(std::string_view text) {
    if (text.size() > kRoom - used_) {
        flush();
    }
    memcpy(out_ + used_, text.data(), text.size());
    used_ += text.size();
}

void Copier::put(uint64_t value) {
    DecimalRoom room;
    put(to_text(value, room));
}

void Copier::flush() {
    host_call(SYS_write, to_, out_, used_);
    used_ = 0;
}

// The hexadecimal number that a text begins with, cut off.
uint64_t cut_hex(std::string_view& text) {
    uint64_t value = 0;
    while (!text.empty()) {
        const char c = text[0];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) {
            break;
        }
        value = value << 4 | static_cast<uint64_t>(digit);
        text.remove_prefix(1);
    }
    return value;
}

// A mapping's line, with the name that Linux would give it: the runtime's stack and heap have it.
void put_mapping(Copier& copier, std::string_view line, uint64_t begin, uint64_t end) {
    const bool has_name = line.find_last_not_of(" \n") >= kNameColumn;
    const std::string_view name = has_name                                             ? ""
                                  : begin <= process.stack && process.stack < end      ? "[stack]"
                                  : begin < process.brk_now && process.brk_start < end ? "[heap]"
                                                                                       : "";
    if (name.empty()) {
        copier.put(line);
        return;
    }
    constexpr std::string_view kSpaces =
        "                                                                         ";
    static_assert(kSpaces.size() == kNameColumn);
    line.remove_suffix(1);
    line = line.substr(0, kNameColumn);
    copier.put(line);
    copier.put(kSpaces.substr(line.size()));
    copier.put(name);
    copier.put("\n");
}

void copy_maps(Copier& copier, bool details) {
    bool shown = false;
    for (std::string_view line = copier.next(); !line.empty(); line = copier.next()) {
        std::string_view rest = line;
        const uint64_t begin = cut_hex(rest);
        const bool is_mapping = rest.size() < line.size() && (rest[0] == '-' || rest[0] == ' ');
        if (!is_mapping && details) {
            if (shown) {
                copier.put(line);
            }
            continue;
        }
        shown = begin < kUserEnd;
        if (shown && rest[0] == '-') {
            rest.remove_prefix(1);
            put_mapping(copier, line, begin, cut_hex(rest));
        } else if (shown) {
            copier.put(line);
        }
    }
}

// The fields are numbered as in proc(5).
void copy_stat(Copier& copier, bool own) {
    const std::string_view line = copier.next();
    size_t at = line.rfind(')');
    if (at == std::string_view::npos) {
        return;
    }
    copier.put(line.substr(0, at + 1));
    std::string_view rest = line.substr(at + 1);
    for (int field = 3; !rest.empty(); field++) {
        const size_t end = std::min(rest.find_first_of(" \n", 1), rest.size());
        if ((field >= 26 && field <= 30) || (field >= 45 && field <= 51)) {
            copier.put(" ");
            copier.put(!own          ? 0
                       : field == 28 ? process.stack
                       : field == 47 ? process.brk_start
                                     : 0);
        } else {
            copier.put(rest.substr(0, end));
        }
        rest.remove_prefix(end);
    }
}

// What the program has there now: Linux, too, reads its memory, as far as it is there.
void copy_memory(Thread& thread, long to, StartInfo::Range range) {
    for (uint64_t at = range.begin; at < range.end;) {
        const size_t page = kPageSize - at % kPageSize;
        const size_t length = std::min<uint64_t>(page, range.end - at);
        if (!engine::copy_in(thread.bytes, at, length)) {
            return;
        }
        host_call(SYS_write, to, thread.bytes, length);
        at += length;
    }
}

void copy_start(Thread& thread, long to, std::string_view name) {
    const StartInfo& start = process.start;
    if (name == "auxv") {
        host_call(SYS_write, to, start.aux, start.aux_count * sizeof(start.aux[0]));
    } else {
        copy_memory(thread, to, name == "environ" ? start.environment : start.arguments);
    }
}

}  // namespace

ProcView proc_view(std::string_view canonical) {
    bool own;
    const std::string_view name = process_file(canonical, &own);
    if (name == "stat") {
        return ProcView::Stat;
    }
    if (own && (name == "cmdline" || name == "environ" || name == "auxv")) {
        return ProcView::Start;
    }
    if (own && (name == "maps" || name == "numa_maps")) {
        return ProcView::Maps;
    }
    return own && name == "smaps" ? ProcView::Smaps : ProcView::None;
}

long open_proc_view(Thread& thread, PathBuffer& path, ProcView view, uint64_t flags) {
    LockGuard guard(process.fd_lock);
    const long from = open_canonical(path, O_RDONLY | O_CLOEXEC, 0);
    if (is_error(from)) {
        return from;
    }
    bool own;
    const std::string_view name = process_file(path.view(), &own);
    const long copy =
        host_call(SYS_memfd_create, path.c_str() + (path.length - name.size()), MFD_CLOEXEC);
    if (is_error(copy)) {
        host_call(SYS_close, from);
        return copy;
    }
    Copier copier(thread, from, copy);
    if (view == ProcView::Start) {
        copy_start(thread, copy, name);
    } else if (view == ProcView::Stat) {
        copy_stat(copier, own);
    } else {
        copy_maps(copier, view == ProcView::Smaps);
    }
    copier.flush();
    host_call(SYS_close, from);
    // Another file description, which can only be read. Its number is the lowest, as of any open.
    path.assign("/proc/self/fd/");
    DecimalRoom digits;
    path.append(to_text(static_cast<uint64_t>(copy), digits));
    const long result = host_call(SYS_openat, AT_FDCWD, path.c_str(),
                                  O_RDONLY | (flags & static_cast<uint64_t>(O_CLOEXEC)));
    host_call(SYS_close, copy);
    return result;
}

}  // namespace dune::sandbox
