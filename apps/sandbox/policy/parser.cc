// SPDX-License-Identifier: MIT

#include "policy/parser.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace dune::sandbox {

namespace {

struct Word {
    std::string text;
    unsigned column;
};

using Words = std::vector<Word>;

bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

// Reads a word in double quotes that begins at `at`; leaves `at` behind it.
std::optional<PolicyError> quoted(std::string_view line, size_t& at, Word& word) {
    for (at++; at < line.size() && line[at] != '"'; at++) {
        if (line[at] == '\\' && at + 1 < line.size()) {
            at++;
        }
        word.text += line[at];
    }
    if (at == line.size()) {
        return PolicyError{0, word.column, "the closing \" is missing"};
    }
    at++;
    if (at < line.size() && !is_blank(line[at]) && line[at] != '#') {
        return PolicyError{0, static_cast<unsigned>(at + 1), "a blank must follow the closing \""};
    }
    return std::nullopt;
}

std::optional<PolicyError> split(std::string_view line, Words& words) {
    size_t at = 0;
    for (;;) {
        while (at < line.size() && is_blank(line[at])) {
            at++;
        }
        if (at == line.size() || line[at] == '#') {
            return std::nullopt;
        }
        Word word{"", static_cast<unsigned>(at + 1)};
        if (line[at] == '"') {
            if (auto error = quoted(line, at, word)) {
                return error;
            }
        } else {
            while (at < line.size() && !is_blank(line[at]) && line[at] != '#') {
                word.text += line[at++];
            }
        }
        words.push_back(std::move(word));
    }
}

class Parser {
  public:
    Parser(Policy policy, std::string_view cwd) : policy_(std::move(policy)), cwd_(cwd) {}

    std::optional<PolicyError> statement(const Words& words);
    Policy take() { return std::move(policy_); }

  private:
    using Error = std::optional<PolicyError>;

    static Error at(const Word& word, std::string message) {
        return PolicyError{0, word.column, std::move(message)};
    }
    static Error missing(const Words& words, std::string_view what) {
        const Word& last = words.back();
        return PolicyError{0, static_cast<unsigned>(last.column + last.text.size()),
                           fmt::format("{} must follow \"{}\"", what, last.text)};
    }
    Error preset(const Words& words);
    Error calls(const Words& words, size_t first, Action action, uint16_t error, bool trace);
    Error one_call(const Word& word, Action action, uint16_t error, bool trace);
    Error path(const Words& words, Access access);
    Error net(const Words& words);

    Policy policy_;
    std::string_view cwd_;
    bool begun_ = false;
};

Parser::Error Parser::preset(const Words& words) {
    if (begun_) {
        return at(words[0], "preset must be the first statement");
    }
    if (words.size() < 2) {
        return missing(words, "the name of a preset");
    }
    std::optional<Policy> made = Policy::preset(words[1].text, cwd_);
    if (!made) {
        return at(words[1], fmt::format("no preset \"{}\"; there are {}", words[1].text,
                                        Policy::kPresetNames));
    }
    policy_ = std::move(*made);
    return words.size() > 2 ? at(words[2], "nothing may follow the preset") : std::nullopt;
}

Parser::Error Parser::one_call(const Word& word, Action action, uint16_t error, bool trace) {
    if (word.text == "@all" && trace) {
        policy_.trace_all();
        return std::nullopt;
    }
    if (word.text.starts_with('@')) {
        const auto cls = class_from_name(std::string_view(word.text).substr(1));
        if (!cls) {
            return at(word, fmt::format("no class \"{}\"", word.text));
        }
        for (unsigned number = 0; trace && number < kSyscallCount; number++) {
            const SyscallInfo* info = syscall_info(number);
            if (info != nullptr && info->cls == *cls) {
                policy_.trace_call(number);
            }
        }
        if (!trace) {
            policy_.set_class(*cls, action, error);
        }
        return std::nullopt;
    }
    const auto number = syscall_number(word.text);
    if (!number) {
        return at(word, fmt::format("no system call \"{}\"", word.text));
    }
    const Kind kind = syscall_info(*number)->kind;
    if (trace) {
        policy_.trace_call(*number);
    } else if (action == Action::Allow && (kind == Kind::Never || kind == Kind::Absent)) {
        return at(word, fmt::format("{} cannot be allowed in a sandbox", word.text));
    } else {
        policy_.set_call(*number, action, error);
    }
    return std::nullopt;
}

Parser::Error Parser::calls(const Words& words, size_t first, Action action, uint16_t error,
                            bool trace) {
    if (words.size() <= first) {
        return missing(words, "a system call or @class");
    }
    for (size_t i = first; i < words.size(); i++) {
        if (auto problem = one_call(words[i], action, error, trace)) {
            return problem;
        }
    }
    return std::nullopt;
}

Parser::Error Parser::path(const Words& words, Access access) {
    if (words.size() < 2) {
        return missing(words, "a path");
    }
    for (size_t i = 1; i < words.size(); i++) {
        if (!words[i].text.starts_with('/')) {
            return at(words[i], "the path must begin with /");
        }
        policy_.set_path(words[i].text, access);
    }
    return std::nullopt;
}

Parser::Error Parser::net(const Words& words) {
    if (words.size() < 2) {
        return missing(words, "none, loopback or all");
    }
    const std::string& name = words[1].text;
    if (name == "none") {
        policy_.set_net(Net::None);
    } else if (name == "loopback") {
        policy_.set_net(Net::Loopback);
    } else if (name == "all") {
        policy_.set_net(Net::All);
    } else {
        return at(words[1], fmt::format("\"{}\" is not none, loopback or all", name));
    }
    return words.size() > 2 ? at(words[2], "nothing may follow here") : std::nullopt;
}

std::optional<PolicyError> Parser::statement(const Words& words) {
    const std::string& verb = words[0].text;
    if (verb == "preset") {
        Error error = preset(words);
        begun_ = true;
        return error;
    }
    begun_ = true;
    if (verb == "allow") {
        return calls(words, 1, Action::Allow, 0, false);
    }
    if (verb == "deny") {
        return calls(words, 1, Action::Deny, EPERM, false);
    }
    if (verb == "trace") {
        return calls(words, 1, Action::Allow, 0, true);
    }
    if (verb == "errno") {
        if (words.size() < 2) {
            return missing(words, "the name of an error");
        }
        const auto error = errno_from_name(words[1].text);
        if (!error) {
            return at(words[1], fmt::format("no error \"{}\"", words[1].text));
        }
        return calls(words, 2, Action::Deny, *error, false);
    }
    if (verb == "read") {
        return path(words, Access::Read);
    }
    if (verb == "write") {
        return path(words, Access::Write);
    }
    if (verb == "hide") {
        return path(words, Access::Hidden);
    }
    if (verb == "net") {
        return net(words);
    }
    return at(words[0], fmt::format("unknown statement \"{}\"", verb));
}

}  // namespace

std::optional<uint16_t> errno_from_name(std::string_view name) {
    for (int error = 1; error < 134; error++) {
        const char* known = strerrorname_np(error);
        if (known != nullptr && name == known) {
            return static_cast<uint16_t>(error);
        }
    }
    return std::nullopt;
}

std::variant<Policy, PolicyError> parse_policy(std::string_view text, std::string_view preset,
                                               std::string_view cwd) {
    std::optional<Policy> base = Policy::preset(preset, cwd);
    if (!base) {
        return PolicyError{
            0, 0, fmt::format("no preset \"{}\"; there are {}", preset, Policy::kPresetNames)};
    }
    Parser parser(std::move(*base), cwd);
    unsigned number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        Words words;
        number++;
        std::optional<PolicyError> error = split(text.substr(at, end - at), words);
        if (!error && !words.empty()) {
            error = parser.statement(words);
        }
        if (error) {
            error->line = number;
            return *error;
        }
        at = end + 1;
    }
    return parser.take();
}

}  // namespace dune::sandbox
