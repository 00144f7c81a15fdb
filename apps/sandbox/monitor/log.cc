// SPDX-License-Identifier: MIT
//
// What the sandbox tells the person who runs it: refusals, and the log of calls.

#include <errno.h>
#include <fmt/format.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "monitor/dispatch.h"

namespace dune::sandbox {

namespace {

// Messages already given, as hashes, so that a loop of refused calls is one line.
constexpr size_t kRemembered = 256;
std::atomic<uint64_t> remembered[kRemembered];

bool is_news(uint64_t hash) {
    std::atomic<uint64_t>& slot = remembered[hash % kRemembered];
    return slot.exchange(hash | 1, std::memory_order_relaxed) != (hash | 1);
}

uint64_t hash_of(unsigned number, std::string_view text) {
    uint64_t hash = 0xcbf29ce484222325 ^ number;
    for (const char c : text) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    }
    return hash;
}

void write_line(char* line, size_t length) {
    line[length++] = '\n';
    LockGuard guard(process.log_lock);
    host_call(SYS_write, reserved_fd(kLogFd), line, length);
}

// A writer into a fixed room that cuts what does not fit.
class Line {
  public:
    Line(char* room, size_t size) : at_(room), begin_(room), end_(room + size - 1) {}

    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        at_ = fmt::format_to_n(at_, end_ - at_, format, std::forward<Args>(args)...).out;
    }
    void send() { write_line(begin_, static_cast<size_t>(at_ - begin_)); }

    // The program's text at an address, in quotes, shortened.
    void add_text(uint64_t address, size_t length, bool ends_at_nul);
    void add_argument(char letter, const uint64_t args[6], unsigned i);

  private:
    char* at_;
    char* begin_;
    char* end_;
};

void Line::add_text(uint64_t address, size_t length, bool ends_at_nul) {
    char text[64];
    size_t n = 0;
    const size_t shown = std::min<size_t>(length, sizeof(text));
    bool complete = length <= shown;
    while (n < shown && engine::copy_in(text + n, address + n, 1)) {
        if (ends_at_nul && text[n] == 0) {
            complete = true;
            break;
        }
        n++;
    }
    if (n == 0 && length != 0 && !engine::copy_in(text, address, 1)) {
        add("{:#x}", address);
        return;
    }
    add("\"");
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        if (c == '\n') {
            add("\\n");
        } else if (c < ' ' || c > '~') {
            add("\\{:o}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else if (c == '"' || c == '\\') {
            add("\\{}", c);
        } else {
            add("{}", c);
        }
    }
    add("{}", complete ? "\"" : "\"...");
}

void Line::add_argument(char letter, const uint64_t args[6], unsigned i) {
    const uint64_t value = args[i];
    const int number = static_cast<int>(value);
    switch (letter) {
        case 'd':
            if (number == -100 /* AT_FDCWD */) {
                return add("AT_FDCWD");
            }
            return add("{}", number);
        case 'f':
            return add("{}", number);
        case 'i':
            return add("{}", static_cast<int64_t>(value));
        case 'g': {
            const char* name = sigabbrev_np(number);
            return name != nullptr ? add("SIG{}", name) : add("{}", number);
        }
        case 'u':
        case 'z':
            return add("{}", value);
        case 'o':
            return add("0{:o}", value);
        case 'p':
        case 's':
            return add_text(value, PATH_MAX, true);
        case 'b':
            return add_text(value, args[i + 1], false);
        default:
            return value == 0 ? add("0") : add("{:#x}", value);
    }
}

}  // namespace

void report_denied(Thread& thread, unsigned number, std::string_view object, std::string_view why,
                   int error) {
    if (process.quiet || !is_news(hash_of(number, object))) {
        return;
    }
    const SyscallInfo* info = syscall_info(number);
    const char* name = strerrorname_np(error);
    Line line(thread.line, sizeof(thread.line));
    line.add("dune-sandbox: denied: ");
    if (info != nullptr) {
        line.add("{}", info->name);
    } else {
        line.add("system call {}", static_cast<int64_t>(thread.number));
    }
    if (!object.empty()) {
        line.add(" \"{}\"", object);
    }
    line.add(": {} ({})", why, name != nullptr ? name : "?");
    line.send();
}

void trace_call(Thread& thread, const Call& call, long result) {
    const SyscallInfo* info = syscall_info(call.number);
    Line line(thread.line, sizeof(thread.line));
    line.add("[{}] {}(", thread.tid, info->name);
    for (unsigned i = 0; i < info->args.size(); i++) {
        if (i > 0) {
            line.add(", ");
        }
        line.add_argument(info->args[i], call.args, i);
    }
    if (result == kFrameIsSet) {
        line.add(")");
    } else if (is_error(result)) {
        const char* name = strerrorname_np(static_cast<int>(-result));
        line.add(") = -1 {}", name != nullptr ? name : "?");
    } else if (result > 0xffff) {
        line.add(") = {:#x}", result);
    } else {
        line.add(") = {}", result);
    }
    line.send();
}

long refuse_path(Call& call, std::string_view path, std::string_view why) {
    process.stats->denied.fetch_add(1, std::memory_order_relaxed);
    process.stats->denied_by_call[call.number].fetch_add(1, std::memory_order_relaxed);
    report_denied(call.thread, call.number, path, why, EACCES);
    return -EACCES;
}

bool PathBuffer::assign(std::string_view value) {
    length = 0;
    return append(value);
}

bool PathBuffer::append(std::string_view value) {
    if (value.size() >= sizeof(text) - length) {
        return false;
    }
    memmove(text + length, value.data(), value.size());
    length += value.size();
    return true;
}

}  // namespace dune::sandbox
