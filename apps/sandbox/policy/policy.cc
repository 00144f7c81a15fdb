// SPDX-License-Identifier: MIT

#include "policy/policy.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace dune::sandbox {

std::string normal_path(std::string_view path) {
    std::string out;
    size_t at = 0;
    while (at < path.size()) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string_view part = path.substr(at, end - at);
        if (part == "..") {
            out.resize(out.empty() ? 0 : out.rfind('/'));
        } else if (!part.empty() && part != ".") {
            out += '/';
            out += part;
        }
        at = end + 1;
    }
    return out.empty() ? "/" : out;
}

const PolicyImage::Rule* PolicyImage::find(std::string_view path) const {
    for (size_t i = 0; i < rule_count; i++) {
        if (is_at_or_below(path, this->path(rules[i]))) {
            return &rules[i];  // the longest comes first
        }
    }
    return nullptr;
}

Access PolicyImage::access(std::string_view path) const {
    const Rule* rule = find(path);
    return rule == nullptr ? Access::Hidden : rule->access;
}

bool PolicyImage::leads_to_granted(std::string_view path) const {
    for (size_t i = 0; i < rule_count; i++) {
        if (rules[i].access != Access::Hidden && is_at_or_below(this->path(rules[i]), path)) {
            return true;
        }
    }
    return false;
}

Policy::Policy() {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        if (info == nullptr || info->kind == Kind::Absent) {
            calls_[number] = {Action::Deny, false, ENOSYS};
        } else if (info->kind == Kind::Never) {
            calls_[number] = {Action::Deny, false, EPERM};
        }
    }
}

void Policy::set_call(unsigned number, Action action, uint16_t error) {
    const SyscallInfo* info = syscall_info(number);
    Verdict& verdict = calls_[number];
    if (action == Action::Deny) {
        verdict.action = Action::Deny;
        verdict.error = error;
    } else if (info != nullptr && info->kind != Kind::Never && info->kind != Kind::Absent) {
        verdict.action = Action::Allow;
        verdict.error = 0;
    }
}

void Policy::set_class(Class cls, Action action, uint16_t error) {
    for (unsigned number = 0; number < kSyscallCount; number++) {
        const SyscallInfo* info = syscall_info(number);
        if (info != nullptr && info->cls == cls && info->kind != Kind::Absent) {
            set_call(number, action, error);
        }
    }
}

void Policy::trace_all() {
    for (Verdict& verdict : calls_) {
        verdict.trace = true;
    }
}

void Policy::set_path(std::string_view path, Access access) {
    std::string normal = normal_path(path);
    for (PathRule& rule : rules_) {
        if (rule.path == normal) {
            rule.access = access;
            return;
        }
    }
    rules_.push_back({std::move(normal), access});
}

Access Policy::access(std::string_view path) const {
    const PathRule* best = nullptr;
    for (const PathRule& rule : rules_) {
        if (is_at_or_below(path, rule.path) &&
            (best == nullptr || rule.path.size() > best->path.size())) {
            best = &rule;
        }
    }
    return best == nullptr ? Access::Hidden : best->access;
}

bool Policy::freeze(PolicyImage& image) const {
    std::construct_at(&image);  // in place: it is too large to be copied at each start
    image.calls = calls_;
    image.net = net_;
    image.strict_metadata = access("/") == Access::Hidden;

    std::vector<PathRule> sorted = rules_;
    std::stable_sort(sorted.begin(), sorted.end(), [](const PathRule& a, const PathRule& b) {
        return a.path.size() > b.path.size();
    });
    size_t used = 0;
    if (sorted.size() > PolicyImage::kMaxRules) {
        return false;
    }
    for (const PathRule& rule : sorted) {
        if (rule.path.size() > PolicyImage::kTextSize - used) {
            return false;
        }
        const bool nested =
            std::any_of(sorted.begin(), sorted.end(), [&rule](const PathRule& other) {
                return other.access < rule.access && is_at_or_below(other.path, rule.path);
            });
        image.rules[image.rule_count++] = {static_cast<uint16_t>(used),
                                           static_cast<uint16_t>(rule.path.size()), rule.access,
                                           nested};
        memcpy(image.text.data() + used, rule.path.data(), rule.path.size());
        used += rule.path.size();
    }
    return true;
}

}  // namespace dune::sandbox
