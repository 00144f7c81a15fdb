// SPDX-License-Identifier: MIT
//
// The presets. What no policy can allow is not here but in syscalls.def (Never, Absent) and in
// kAlwaysHidden.

#include <array>
#include <cerrno>

#include "policy/policy.h"

namespace dune::sandbox {

namespace {

// Devices and files that reach around the kernel's own protection, which root could open.
constexpr std::array<std::string_view, 14> kAlwaysHidden = {
    "/dev/dune",
    "/dev/kvm",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/cpu",
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
    "/dev/uinput",
    "/dev/kmsg",
    "/proc/kmsg",
};

// What a dynamic program needs to begin.
constexpr std::array<std::string_view, 8> kLibraries = {
    "/lib",       "/lib32",     "/lib64",           "/usr/lib",
    "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/locale",
};

constexpr std::array<std::string_view, 7> kPlainDevices = {
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx",
};

constexpr std::array<std::string_view, 6> kSecrets = {
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/root/.ssh",
};

void set_paths(Policy& policy, auto& paths, Access access) {
    for (const std::string_view path : paths) {
        policy.set_path(path, access);
    }
}

void make_compute(Policy& policy) {
    set_paths(policy, kLibraries, Access::Read);
    policy.set_class(Class::Net, Action::Deny, EPERM);
    policy.set_class(Class::Ipc, Action::Deny, EPERM);
    for (const std::string_view name : {"kill", "tkill", "setpgid", "setsid", "pidfd_open"}) {
        policy.set_call(*syscall_number(name), Action::Deny, EPERM);
    }
    for (const std::string_view name :
         {"setuid", "setgid", "setreuid", "setregid", "setgroups", "setresuid", "setresgid",
          "setfsuid", "setfsgid", "capset"}) {
        policy.set_call(*syscall_number(name), Action::Deny, EPERM);
    }
}

void make_default(Policy& policy, std::string_view cwd) {
    policy.set_path("/", Access::Read);
    set_paths(policy, kSecrets, Access::Hidden);
    policy.set_path("/dev", Access::Hidden);  // disks have all files, secrets too
    set_paths(policy, kPlainDevices, Access::Write);
    for (const std::string_view path : {"/dev/pts", "/dev/shm", "/tmp", "/var/tmp"}) {
        policy.set_path(path, Access::Write);
    }
    if (cwd != "/") {
        policy.set_path(cwd, Access::Write);
    }
}

void make_permissive(Policy& policy) {
    policy.set_path("/", Access::Write);
    policy.set_path("/sys", Access::Read);
    policy.set_net(Net::All);
}

}  // namespace

std::optional<Policy> Policy::preset(std::string_view name, std::string_view cwd) {
    Policy policy;
    if (name == "compute") {
        make_compute(policy);
    } else if (name == "default") {
        make_default(policy, cwd);
    } else if (name == "permissive") {
        make_permissive(policy);
    } else {
        return std::nullopt;
    }
    set_paths(policy, kAlwaysHidden, Access::Hidden);
    return policy;
}

}  // namespace dune::sandbox
