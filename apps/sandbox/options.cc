// SPDX-License-Identifier: MIT
//
// The command line. By getopt_long(3) and without iostreams: those would be initialised again at
// each execve of a sandboxed program, for 400,000 instructions.

#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy/mounts.h"
#include "policy/parser.h"

namespace dune::sandbox {

namespace {

constexpr int kUsageStatus = 125;  // as env(1), timeout(1) and their like: their own errors

constexpr char kHelp[] = R"(Usage: dune-sandbox [OPTION]... [--] PROGRAM [ARGUMENT]...
Runs an unmodified program in ring 3 of a Dune process; its system calls are decided in ring 0.

  --policy FILE    what is allowed, from FILE; see dune-sandbox(1) for how to write one
  --preset NAME    what to start from: compute, default or permissive
  --read PATH      files at and below PATH may be read
  --write PATH     ... may be read and written
  --hide PATH      ... cannot be opened
  --net WHAT       sockets: none (the default), loopback or all
  --trace          log every system call
  --stats          report counts of calls at the end
  --quiet          do not report what was refused
  --log FILE       log to FILE instead of stderr
  --help, --version

Presets: "compute" reads only the program's libraries, and has no network; "default" reads all files
but secrets, writes below the current directory and /tmp, and has no network; "permissive" keeps only
what would undo the sandbox.

Exit status: that of PROGRAM; 125 if dune-sandbox fails, 126 if PROGRAM cannot be executed, 127 if it
is not found.
)";

enum Option {
    kPolicy = 1,
    kPreset,
    kRead,
    kWrite,
    kHide,
    kNet,
    kTrace,
    kStats,
    kQuiet,
    kLog,
    kHelpOption,
    kVersion
};

constexpr option kOptions[] = {
    {"policy", required_argument, nullptr, kPolicy},
    {"preset", required_argument, nullptr, kPreset},
    {"read", required_argument, nullptr, kRead},
    {"write", required_argument, nullptr, kWrite},
    {"hide", required_argument, nullptr, kHide},
    {"net", required_argument, nullptr, kNet},
    {"trace", no_argument, nullptr, kTrace},
    {"stats", no_argument, nullptr, kStats},
    {"quiet", no_argument, nullptr, kQuiet},
    {"log", required_argument, nullptr, kLog},
    {"help", no_argument, nullptr, kHelpOption},
    {"version", no_argument, nullptr, kVersion},
    {nullptr, 0, nullptr, 0},
};

std::string current_directory() {
    char room[PATH_MAX];
    return getcwd(room, sizeof(room)) == nullptr ? "/" : room;
}

// The rules are about canonical paths: links in the directories that the person named are followed
// now.
std::string real_path(const std::string& path) {
    char room[PATH_MAX];
    if (realpath(path.c_str(), room) != nullptr) {
        return room;
    }
    return path.starts_with('/') ? path : current_directory() + "/" + path;
}

void complain(const std::string& message) {
    fmt::print(stderr, "dune-sandbox: {}\n", message);
}

int usage(const std::string& message) {
    complain(message + " (see --help)");
    return kUsageStatus;
}

bool read_file(const std::string& name, std::string& content) {
    const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    char room[4096];
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0) {
        n = read(fd, room, sizeof(room));
        content.append(room, n > 0 ? static_cast<size_t>(n) : 0);
    }
    const int error = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = error;
    return n == 0;
}

bool parse_file(const Options& options, Policy& policy) {
    std::string content;
    if (!read_file(options.policy_file, content)) {
        complain(
            fmt::format("cannot read the policy {}: {}", options.policy_file, strerror(errno)));
        return false;
    }
    auto result = parse_policy(content, options.preset, current_directory());
    if (const auto* error = std::get_if<PolicyError>(&result)) {
        complain(fmt::format("{}:{}:{}: {}", options.policy_file, error->line, error->column,
                             error->message));
        return false;
    }
    policy = std::get<Policy>(std::move(result));
    return true;
}

bool is_one_of(std::string_view value, std::initializer_list<std::string_view> list) {
    for (const std::string_view one : list) {
        if (value == one) {
            return true;
        }
    }
    return false;
}

// Takes one option. True to go on; otherwise *status is what to exit with.
bool take(int option, const char* value, Options& options, int* status) {
    switch (option) {
        case kPolicy:
            options.policy_file = value;
            return true;
        case kPreset:
            options.preset = value;
            if (!is_one_of(options.preset, {"compute", "default", "permissive"})) {
                *status = usage(
                    fmt::format("no preset \"{}\"; there are {}", value, Policy::kPresetNames));
                return false;
            }
            return true;
        case kRead:
            options.read.emplace_back(value);
            return true;
        case kWrite:
            options.write.emplace_back(value);
            return true;
        case kHide:
            options.hide.emplace_back(value);
            return true;
        case kNet:
            options.net = value;
            if (!is_one_of(options.net, {"none", "loopback", "all"})) {
                *status = usage(fmt::format("--net: \"{}\" is not none, loopback or all", value));
                return false;
            }
            return true;
        case kTrace:
            return options.trace = true;
        case kStats:
            return options.stats = true;
        case kQuiet:
            return options.quiet = true;
        case kLog:
            options.log_file = value;
            return true;
        case kHelpOption:
            fmt::print("{}", kHelp);
            *status = 0;
            return false;
        case kVersion:
            fmt::print("dune-sandbox {}\n", DUNE_VERSION);
            *status = 0;
            return false;
        default:
            *status = kUsageStatus;  // getopt has said why
            return false;
    }
}

// False if it is not to be had.
bool hide_mounts(Policy& policy) {
    std::string mounts;
    if (!read_file("/proc/self/mountinfo", mounts)) {
        return false;
    }
    hide_other_mounts(policy, mounts);
    return true;
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options, int* status) {
    char name[] = "dune-sandbox";
    if (argc > 0) {
        argv[0] = name;
    }
    // "+": options end at the first word that is none, since the rest is the program's.
    for (int option; (option = getopt_long(argc, argv, "+", kOptions, nullptr)) != -1;) {
        if (!take(option, optarg, options, status)) {
            return false;
        }
    }
    options.command.assign(argv + optind, argv + argc);
    if (options.command.empty()) {
        *status = usage("no program given");
        return false;
    }
    return true;
}

bool make_policy(const Options& options, const std::string& program, PolicyImage& image) {
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
    if (const std::string path = real_path(program);
        !program.empty() && policy.access(path) == Access::Hidden) {
        policy.set_path(path, Access::Read);
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
    if (!hide_mounts(policy)) {
        complain("cannot read /proc/self/mountinfo: mount /proc");
        return false;
    }
    if (!policy.freeze(image)) {
        complain("the policy has too many path rules");
        return false;
    }
    return true;
}

}  // namespace dune::sandbox
