// SPDX-License-Identifier: MIT
//
// What a sandboxed program may do. A Policy is put together from a preset, a file and the command
// line; freeze() makes the flat image of it that the monitor reads and that passes unchanged,
// in a sealed memory file, from program to program over execve.

#ifndef DUNE_APPS_SANDBOX_POLICY_POLICY_H
#define DUNE_APPS_SANDBOX_POLICY_POLICY_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/syscalls.h"

namespace dune::sandbox {

enum class Action : uint8_t { Allow, Deny };

// What to do with one system call.
struct Verdict {
    Action action = Action::Allow;
    bool trace = false;
    uint16_t error = 0;  // the errno that a denied call returns

    bool operator==(const Verdict&) const = default;
};

enum class Net : uint8_t { None, Loopback, All };

// What may be done to the files below a path. Write includes Read; Hidden files cannot be opened
// in any way.
enum class Access : uint8_t { Hidden, Read, Write };

struct PathRule {
    std::string path;  // absolute, without ".", ".." and doubled or trailing slashes
    Access access;

    bool operator==(const PathRule&) const = default;
};

// The frozen form. Everything is inside, nothing points out.
struct PolicyImage {
    static constexpr uint64_t kMagic = 0x31594c504e554400;  // "\0DUNPLY1"
    static constexpr size_t kMaxRules = 256;
    static constexpr size_t kTextSize = 16 * 1024;

    struct Rule {
        uint16_t offset;  // of the path in text
        uint16_t length;
        Access access;
        bool nested;  // a rule that allows less lies below this one
    };

    uint64_t magic = kMagic;
    std::array<Verdict, kSyscallCount> calls{};
    Verdict unknown{Action::Deny, false, 38 /* ENOSYS */};
    Net net = Net::None;
    bool strict_metadata = false;  // stat and the like need read access too
    bool trace = false;            // log every call
    bool quiet = false;            // no messages about refusals
    bool stats = false;            // there will be a report
    uint16_t rule_count = 0;
    std::array<Rule, kMaxRules> rules{};  // longest path first
    std::array<char, kTextSize> text{};

    std::string_view path(const Rule& rule) const {
        return {text.data() + rule.offset, rule.length};
    }
    // The nearest rule at or above an absolute, normal path, or nullptr. Context: any.
    const Rule* find(std::string_view path) const;
    Access access(std::string_view path) const;
    // True if some rule that grants anything lies strictly below the path.
    bool leads_to_granted(std::string_view path) const;
    const Verdict& verdict(uint64_t number) const {
        return number < kSyscallCount ? calls[number] : unknown;
    }
};

class Policy {
  public:
    // A policy that lets through what its preset does: "compute", "default", "permissive".
    // `cwd` is the absolute path that the preset's rules about the current directory mean.
    static std::optional<Policy> preset(std::string_view name, std::string_view cwd);
    static constexpr std::string_view kPresetNames = "compute, default, permissive";

    void set_call(unsigned number, Action action, uint16_t error);
    void set_class(Class cls, Action action, uint16_t error);
    void trace_call(unsigned number) { calls_[number].trace = true; }
    void trace_all();
    void set_net(Net net) { net_ = net; }
    // `path` must be absolute; it is made normal here ("..", "." and slashes by their text).
    void set_path(std::string_view path, Access access);

    const Verdict& call(unsigned number) const { return calls_[number]; }
    Net net() const { return net_; }
    const std::vector<PathRule>& rules() const { return rules_; }
    Access access(std::string_view path) const;

    // Fills `image`. False if there are more rules or longer paths than it has room for.
    bool freeze(PolicyImage& image) const;

  private:
    Policy();

    std::array<Verdict, kSyscallCount> calls_{};
    Net net_ = Net::None;
    std::vector<PathRule> rules_;
};

// "a//b/./c/../d/" of an absolute path as text: "/a/b/d".
std::string normal_path(std::string_view path);

// True if `path` is `dir` or lies below it; both normal.
constexpr bool is_at_or_below(std::string_view path, std::string_view dir) {
    return dir == "/" ||
           (path.starts_with(dir) && (path.size() == dir.size() || path[dir.size()] == '/'));
}

}  // namespace dune::sandbox

#endif
