// SPDX-License-Identifier: MIT

#include "options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "policy/parser.h"

namespace dune::sandbox {

namespace {

constexpr int kUsageStatus = 125;  // as env(1), timeout(1) and their like: their own errors

constexpr char kFooter[] = R"(
Presets: "compute" reads only the program and its libraries, no network; "default" reads all files but
secrets, writes below the current directory and /tmp, no network; "permissive" keeps only what would
undo the sandbox. See dune-sandbox(1) for policy files.

Exit status: that of PROGRAM; 125 if dune-sandbox fails, 126 if PROGRAM cannot be executed, 127 if it
is not found.)";

std::string current_directory() {
    char room[PATH_MAX];
    return getcwd(room, sizeof(room)) == nullptr ? "/" : room;
}

std::string absolute(const std::string& path) {
    return path.starts_with('/') ? path : current_directory() + "/" + path;
}

// The rules are about canonical paths: links in the directories that the person named are followed
// now.
std::string real_path(const std::string& path) {
    char room[PATH_MAX];
    return realpath(path.c_str(), room) == nullptr ? absolute(path) : room;
}

void complain(const std::string& message) {
    fmt::print(stderr, "dune-sandbox: {}\n", message);
}

class Formatter : public CLI::Formatter {
  public:
    std::string make_usage(const CLI::App*, std::string) const override {
        return "Usage: dune-sandbox [OPTION]... [--] PROGRAM [ARGUMENT]...\n";
    }
};

bool parse_file(const Options& options, Policy& policy) {
    std::ifstream file(options.policy_file);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) {
        complain(
            fmt::format("cannot read the policy {}: {}", options.policy_file, strerror(errno)));
        return false;
    }
    const std::string content = text.str();
    auto result = parse_policy(content, options.preset, current_directory());
    if (const auto* error = std::get_if<PolicyError>(&result)) {
        complain(fmt::format("{}:{}:{}: {}", options.policy_file, error->line, error->column,
                             error->message));
        return false;
    }
    policy = std::get<Policy>(std::move(result));
    return true;
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options, int* status) {
    CLI::App app("Runs an unmodified program in ring 3; its system calls are decided in ring 0.",
                 "dune-sandbox");
    app.formatter(std::make_shared<Formatter>());
    app.footer(kFooter);
    app.prefix_command();
    app.set_version_flag("--version", "dune-sandbox " DUNE_VERSION);
    app.add_option("--policy", options.policy_file, "what is allowed, from FILE")
        ->option_text("FILE");
    app.add_option("--preset", options.preset, "what to start from (default)")
        ->option_text("compute|default|permissive")
        ->check(CLI::IsMember({"compute", "default", "permissive"}));
    app.add_option("--read", options.read, "files at and below PATH may be read")
        ->option_text("PATH")
        ->allow_extra_args(false);
    app.add_option("--write", options.write, "... may be read and written")
        ->option_text("PATH")
        ->allow_extra_args(false);
    app.add_option("--hide", options.hide, "... cannot be opened")
        ->option_text("PATH")
        ->allow_extra_args(false);
    app.add_option("--net", options.net, "sockets: none (default), loopback or all")
        ->option_text("none|loopback|all")
        ->check(CLI::IsMember({"none", "loopback", "all"}));
    app.add_flag("--trace", options.trace, "log every system call");
    app.add_flag("--stats", options.stats, "report counts of calls at the end");
    app.add_flag("--quiet", options.quiet, "do not report what was refused");
    app.add_option("--log", options.log_file, "log to FILE instead of stderr")->option_text("FILE");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        *status = error.get_exit_code() == 0 ? app.exit(error) : kUsageStatus;
        if (*status != 0) {
            complain(fmt::format("{} (see --help)", error.what()));
        }
        return false;
    }
    options.command = app.remaining();
    if (!options.command.empty() && options.command.front() == "--") {
        options.command.erase(options.command.begin());
    }
    if (options.command.empty()) {
        complain("no program given (see --help)");
        *status = kUsageStatus;
        return false;
    }
    return true;
}

bool make_policy(const Options& options, PolicyImage& image) {
    Policy policy = *Policy::preset(options.preset, current_directory());
    if (!options.policy_file.empty() && !parse_file(options, policy)) {
        return false;
    }
    for (const std::string& path : options.read) {
        policy.set_path(real_path(path), Access::Read);
    }
    for (const std::string& path : options.write) {
        policy.set_path(real_path(path), Access::Write);
    }
    for (const std::string& path : options.hide) {
        policy.set_path(real_path(path), Access::Hidden);
    }
    if (!options.net.empty()) {
        policy.set_net(options.net == "all"        ? Net::All
                       : options.net == "loopback" ? Net::Loopback
                                                   : Net::None);
    }
    if (options.trace) {
        policy.trace_all();
    }
    if (!policy.freeze(image)) {
        complain("the policy has too many path rules");
        return false;
    }
    return true;
}

}  // namespace dune::sandbox
