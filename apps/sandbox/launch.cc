// SPDX-License-Identifier: MIT

#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "loader/loader.h"
#include "monitor/dispatch.h"
#include "monitor/fd_limit.h"
#include "monitor/paths.h"
#include "monitor/signals.h"
#include "options.h"
#include "report.h"

namespace dune::sandbox {

bool huge_pages_were_on = false;

namespace {

constexpr int kFailed = 125;
constexpr int kNotExecutable = 126;
constexpr int kNotFound = 127;
// Numbers of descriptors: at least so many for each, and no more for the program, so that the
// kernel's table of them stays small. Threads can be as many as are left.
constexpr rlim_t kFewestFds = 256;
constexpr rlim_t kMostFds = 1024;

Thread first_thread;
ExecImage image;

int fail(int status, const std::string& message) {
    fmt::print(stderr, "dune-sandbox: {}\n", message);
    return status;
}

// Gives a descriptor its reserved number; the old one is closed.
bool reserve_fd(int fd, ReservedFd which) {
    if (fd < 0 || dup3(fd, reserved_fd(which), 0) < 0) {
        return false;
    }
    close(fd);
    return true;
}

// Shares the numbers of descriptors between the program and the runtime, which gets those above.
bool choose_fd_base() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    process.fd_limit = std::min<rlim_t>(limit.rlim_max, INT_MAX);
    if (process.fd_limit < 2 * kFewestFds) {
        return false;
    }
    process.fd_base =
        static_cast<int>(std::min({limit.rlim_cur, kMostFds, process.fd_limit - kFewestFds}));
    set_fd_limit(process.fd_limit);
    return true;
}

// A memory file of the size of T with its first contents; nullptr if there is no memory.
template <class T>
T* make_shared_file(ReservedFd which, const char* name) {
    const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, sizeof(T)) != 0) {
        return nullptr;
    }
    void* const at = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at != MAP_FAILED && reserve_fd(fd, which) ? static_cast<T*>(at) : nullptr;
}

template <class T>
T* map_file(ReservedFd which, int protection, int flags) {
    void* const at = mmap(nullptr, sizeof(T), protection, flags, reserved_fd(which), 0);
    return at == MAP_FAILED ? nullptr : static_cast<T*>(at);
}

// From now on nobody can change the policy in its memory file.
bool publish_policy(PolicyImage* policy) {
    munmap(policy, sizeof(*policy));
    fcntl(reserved_fd(kPolicyFd), F_ADD_SEALS,
          F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    process.policy = map_file<PolicyImage>(kPolicyFd, PROT_READ, MAP_SHARED);
    return process.policy != nullptr;
}

// Of root's capabilities, those that are about files, processes and sockets as any user has them.
// With the others (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_MKNOD and the like) a call that a policy
// allows could change the whole machine. Linux gives none back: there are no new privileges.
constexpr int kKeptCapabilities[] = {
    CAP_CHOWN,        CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,   CAP_FSETID,
    CAP_KILL,         CAP_SETGID,       CAP_SETUID,          CAP_NET_RAW,  CAP_NET_BIND_SERVICE,
    CAP_LEASE,        CAP_IPC_LOCK,     CAP_IPC_OWNER,       CAP_SYS_NICE, CAP_SYS_CHROOT,
    CAP_SYS_RESOURCE,
};

bool drop_capabilities() {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
    uint32_t kept[_LINUX_CAPABILITY_U32S_3] = {};
    for (const int capability : kKeptCapabilities) {
        kept[CAP_TO_INDEX(capability)] |= CAP_TO_MASK(capability);
    }
    if (syscall(SYS_capget, &header, sets) != 0) {
        return false;
    }
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        sets[i].permitted &= kept[i];
        sets[i].effective &= kept[i];
        sets[i].inheritable &= kept[i];
    }
    return syscall(SYS_capset, &header, sets) == 0;
}

bool open_log(const Options& options) {
    if (options.log_file.empty()) {
        return dup3(STDERR_FILENO, reserved_fd(kLogFd), 0) >= 0 || errno == EBADF;
    }
    return reserve_fd(
        open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666), kLogFd);
}

// The name of a program as execvp(3) finds it.
std::string find_in_path(const std::string& name) {
    if (name.find('/') != std::string::npos) {
        return name;
    }
    const char* const variable = getenv("PATH");
    const std::string path = variable == nullptr ? "/usr/local/bin:/usr/bin:/bin" : variable;
    for (size_t at = 0; at <= path.size();) {
        const size_t end = std::min(path.find(':', at), path.size());
        const std::string dir = path.substr(at, end - at);
        std::string candidate = (dir.empty() ? "." : dir) + "/" + name;
        if (access(candidate.c_str(), X_OK) == 0) {
            return candidate;
        }
        at = end + 1;
    }
    return {};
}

int explain(const std::string& name, long error) {
    switch (error) {
        case -ENOENT:
            return fail(kNotFound, fmt::format("{}: not found, or its interpreter is not", name));
        case kWrongClass:
            return fail(kNotExecutable, fmt::format("{}: a 32-bit program; only 64-bit ones can be "
                                                    "sandboxed",
                                                    name));
        case kWrongMachine:
            return fail(kNotExecutable, fmt::format("{}: made for another processor", name));
        case -ENOEXEC:
            return fail(kNotExecutable, fmt::format("{}: not an executable file", name));
        case -EACCES:
            return fail(kNotExecutable,
                        process.policy->access(first_thread.path[0].view()) == Access::Hidden
                            ? fmt::format("{}: hidden by the policy", name)
                            : fmt::format("{}: not executable", name));
        default:
            return fail(kNotExecutable,
                        fmt::format("{}: {}", name, strerror(static_cast<int>(-error))));
    }
}

// argv, the environment and the path of the program, as execve(2) would put them together.
bool fill_image(const Options& options, const std::string& found, PathBuffer& program,
                const ScriptWords& words) {
    bool fits = image.add(program.view());
    const auto add = [&fits](std::string_view word) {
        fits = fits && image.add(word);
        image.argc++;
    };
    image.set_comm(found);
    for (int i = 0; i < words.count; i++) {
        add(words.text[i]);
    }
    add(words.count > 0 ? found : options.command[0]);
    for (size_t i = 1; i < options.command.size(); i++) {
        add(options.command[i]);
    }
    for (char** variable = environ; *variable != nullptr; variable++) {
        fits = fits && image.add(*variable);
        image.envc++;
    }
    return fits;
}

int open_command(const Options& options, const std::string& found) {
    const std::string& name = options.command[0];
    if (found.empty()) {
        return fail(kNotFound, fmt::format("{}: not found", name));
    }
    PathBuffer& path = first_thread.path[0];
    bool plain;
    bool directory;
    long error = absolute_path(first_thread, AT_FDCWD, found, path, &plain, &directory);
    ScriptWords words;
    if (error == 0) {
        error = open_program(first_thread, path, words, &image.has_interp);
    }
    if (error != 0) {
        return explain(name, error);
    }
    return fill_image(options, found, path, words) ? 0
                                                   : fail(kFailed, "the arguments are too long");
}

// Loads the program and runs it. Returns only if that failed.
int run() {
    process.pid = getpid();
    process.stats->add_process(process.pid);
    first_thread.tid = process.pid;
    process.exe.assign(image.text);
    prctl(PR_SET_NAME, image.comm);
    prepare_signals(first_thread);
    prepare_dispatch();
    if (engine::start() != 0) {
        return kFailed;
    }
    const long error = load_program(first_thread, image, engine::vdso());
    close_program();
    if (error != 0) {
        return fail(kNotExecutable, fmt::format("cannot load {}: {}", image.text,
                                                strerror(static_cast<int>(-error))));
    }
    set_fd_limit(static_cast<rlim_t>(process.fd_base));
    if (huge_pages_were_on) {
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    }
    engine::enter(first_thread);
}

}  // namespace

int launch(int argc, char** argv) {
    Options options;
    int status = kFailed;
    if (!parse_options(argc, argv, options, &status)) {
        return status;
    }
    if (!choose_fd_base()) {
        return fail(kFailed,
                    "the hard limit of open files is too low: raise it with ulimit -n 1024");
    }
    auto* const policy = make_shared_file<PolicyImage>(kPolicyFd, "dune-sandbox-policy");
    if (policy == nullptr) {
        return fail(kFailed, fmt::format("no memory for the policy: {}", strerror(errno)));
    }
    const std::string found = find_in_path(options.command[0]);
    if (!make_policy(options, found, *policy)) {
        return kFailed;
    }
    if (!open_log(options)) {
        return fail(kFailed,
                    fmt::format("cannot write the log {}: {}", options.log_file, strerror(errno)));
    }
    process.stats = make_shared_file<Stats>(kStatsFd, "dune-sandbox-stats");
    policy->trace = options.trace;
    policy->quiet = options.quiet;
    policy->stats = options.stats;
    if (!reserve_fd(open("/", O_PATH | O_CLOEXEC), kRootFd) ||
        !reserve_fd(open("/proc/self/exe", O_PATH | O_CLOEXEC), kSelfFd) ||
        process.stats == nullptr || !publish_policy(policy)) {
        return fail(kFailed,
                    fmt::format("cannot prepare: {} (is /proc mounted?)", strerror(errno)));
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !drop_capabilities()) {
        return fail(kFailed, fmt::format("cannot give up privileges: {}", strerror(errno)));
    }
    process.quiet = options.quiet;
    process.trace = options.trace;
    process.stats->processes.store(1);
    process.stats->threads.store(1);
    if (const int error = open_command(options, found)) {
        return error;
    }
    if (options.stats) {
        if (const int result = follow_child(); result >= 0) {
            return result;
        }
    }
    return run();
}

int resume(int fd_base) {
    process.fd_base = fd_base;
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    process.fd_limit = std::min<rlim_t>(limit.rlim_max, INT_MAX);
    process.policy = map_file<PolicyImage>(kPolicyFd, PROT_READ, MAP_SHARED);
    process.stats = map_file<Stats>(kStatsFd, PROT_READ | PROT_WRITE, MAP_SHARED);
    const ssize_t size = pread(reserved_fd(kImageFd), &image, sizeof(image), 0);
    if (process.policy == nullptr || process.policy->magic != PolicyImage::kMagic ||
        process.stats == nullptr || size < static_cast<ssize_t>(offsetof(ExecImage, text)) ||
        image.magic != ExecImage::kMagic || static_cast<size_t>(size) != image.size() ||
        !image.is_whole()) {
        return fail(kFailed, "DUNE_SANDBOX_STATE is set, but not by a sandbox: unset it");
    }
    process.trace = process.policy->trace;
    process.quiet = process.policy->quiet;
    return run();
}

}  // namespace dune::sandbox
