// SPDX-License-Identifier: MIT
//
// Calls of which some commands are harmless and others are not.

#include <asm/prctl.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/ioprio.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>

#include "monitor/dispatch.h"
#include "monitor/others.h"

namespace dune::sandbox {

namespace {

// ioctl(2) commands that the kernel answers with a value, a plain structure or nothing. Others may
// take structures with pointers, act on devices, or (TIOCSTI, TIOCLINUX) type into the terminal of
// the person who runs the sandbox. Their macros need struct termios2, whose header cannot be
// included beside <sys/ioctl.h>.
constexpr uint32_t kTcgets2 = 0x802c542a;
constexpr uint32_t kTcsets2 = 0x402c542b;
constexpr uint32_t kTcsetsw2 = 0x402c542c;
constexpr uint32_t kTcsetsf2 = 0x402c542d;

bool is_plain_ioctl(uint32_t command) {
    switch (command) {
        case TCGETS:
        case TCSETS:
        case TCSETSW:
        case TCSETSF:
        case TCGETA:
        case TCSETA:
        case TCSETAW:
        case TCSETAF:
        case TCSBRK:
        case TCSBRKP:
        case TCXONC:
        case TCFLSH:
        case kTcgets2:
        case kTcsets2:
        case kTcsetsw2:
        case kTcsetsf2:
        case TIOCGWINSZ:
        case TIOCSWINSZ:
        case TIOCGPGRP:
        case TIOCSPGRP:
        case TIOCGSID:
        case TIOCOUTQ:
        case TIOCSCTTY:
        case TIOCNOTTY:
        case TIOCGPTN:
        case TIOCSPTLCK:
        case TIOCGPTLCK:
        case TIOCGPTPEER:
        case TIOCGETD:
        case TIOCEXCL:
        case TIOCNXCL:
        case TIOCPKT:
        case TIOCGPKT:
        case FIONREAD:
        case FIONBIO:
        case FIOASYNC:
        case FIOCLEX:
        case FIONCLEX:
        case FIOQSIZE:
        case SIOCATMARK:
        case SIOCOUTQNSD:
        case SIOCGIFINDEX:
        case SIOCGIFNAME:
        case SIOCGIFFLAGS:
        case SIOCGIFADDR:
        case SIOCGIFNETMASK:
        case SIOCGIFBRDADDR:
        case SIOCGIFHWADDR:
        case SIOCGIFMTU:
        case SIOCGSTAMP_OLD:
        case FS_IOC_GETFLAGS:
        case FS_IOC_GETVERSION:
        case BLKGETSIZE64:
        case BLKSSZGET:
            return true;
        default:
            return false;
    }
}

long do_ioctl(Call& call) {
    const uint32_t command = static_cast<uint32_t>(call.args[1]);
    if (!is_plain_ioctl(command)) {
        report_denied(call.thread, call.number, {}, "not an ioctl that sandboxed programs may use",
                      ENOTTY);
        return -ENOTTY;
    }
    if (command == TIOCSCTTY) {
        call.args[2] = 0;  // 1: with privilege, also the terminal of another session
    }
    // Some take a number instead of a pointer: none that large.
    return starts_in_user(call.args[2]) ? pass(call) : -EFAULT;
}

long do_prctl(Call& call) {
    const int option = static_cast<int>(call.args[0]);
    switch (option) {
        case PR_SET_NAME:
        case PR_GET_NAME:
        case PR_GET_PDEATHSIG:
        case PR_GET_CHILD_SUBREAPER:
        case PR_GET_TID_ADDRESS:
            return starts_in_user(call.args[1]) ? pass(call) : -EFAULT;
        case PR_SET_PDEATHSIG:
        case PR_GET_DUMPABLE:
        case PR_GET_KEEPCAPS:
        case PR_SET_KEEPCAPS:
        case PR_GET_TIMERSLACK:
        case PR_SET_TIMERSLACK:
        case PR_CAPBSET_READ:
        case PR_GET_SECUREBITS:
        case PR_SET_CHILD_SUBREAPER:
        case PR_GET_NO_NEW_PRIVS:
        case PR_SET_NO_NEW_PRIVS:
        case PR_GET_THP_DISABLE:
        case PR_SET_THP_DISABLE:
        case PR_CAP_AMBIENT:
        case PR_MCE_KILL_GET:
        case PR_GET_SPECULATION_CTRL:
            return pass(call);
        case PR_GET_SECCOMP:
            return 0;
        case PR_SET_VMA:  // names of anonymous mappings: nothing is lost without them
        case PR_SET_SECCOMP:
        default:
            return -EINVAL;
    }
}

long do_arch_prctl(Call& call) {
    const uint64_t value = call.args[1];
    uint64_t base;
    switch (static_cast<int>(call.args[0])) {
        case ARCH_SET_FS:
        case ARCH_SET_GS:
            if (value >= 1ull << 47) {
                return -EPERM;  // as Linux for addresses outside of user space
            }
            call.args[0] == ARCH_SET_FS ? engine::set_fs_base(value) : engine::set_gs_base(value);
            return 0;
        case ARCH_GET_FS:
        case ARCH_GET_GS:
            base = call.args[0] == ARCH_GET_FS ? engine::fs_base() : engine::gs_base();
            return engine::copy_out(value, &base, sizeof(base)) ? 0 : -EFAULT;
        case ARCH_GET_CPUID:
            return 1;
        default:
            return -EINVAL;
    }
}

// The program's descriptors end where the runtime's begin, whatever the limit says.
void hide_reserved(int resource, rlimit& limit) {
    if (resource == RLIMIT_NOFILE) {
        const rlim_t most = static_cast<rlim_t>(process.fd_base);
        limit.rlim_cur = std::min(limit.rlim_cur, most);
        limit.rlim_max = std::min(limit.rlim_max, most);
    }
}

long set_limit(int pid, int resource, uint64_t from) {
    rlimit limit;
    if (!engine::copy_in(&limit, from, sizeof(limit))) {
        return -EFAULT;
    }
    if (pid != 0 && pid != process.pid) {
        return -EPERM;
    }
    if (resource == RLIMIT_NOFILE) {
        // The real limit stays above the runtime's descriptors; the kernel enforces the program's
        // only as far as its numbers go.
        return limit.rlim_cur > limit.rlim_max                         ? -EINVAL
               : limit.rlim_max > static_cast<rlim_t>(process.fd_base) ? -EPERM
                                                                       : 0;
    }
    return host_call(SYS_prlimit64, 0, resource, &limit, 0);
}

long get_limit(int pid, int resource, uint64_t to) {
    rlimit limit;
    const long result = host_call(SYS_prlimit64, pid, resource, 0, &limit);
    if (result != 0) {
        return result;
    }
    hide_reserved(resource, limit);
    return engine::copy_out(to, &limit, sizeof(limit)) ? 0 : -EFAULT;
}

long do_limits(const Call& call) {
    const uint64_t* a = call.args;
    if (call.number == SYS_getrlimit) {
        return get_limit(0, static_cast<int>(a[0]), a[1]);
    }
    if (call.number == SYS_setrlimit) {
        return set_limit(0, static_cast<int>(a[0]), a[1]);
    }
    const int pid = static_cast<int>(a[0]);
    const int resource = static_cast<int>(a[1]);
    if (a[3] != 0) {
        if (const long error = get_limit(pid, resource, a[3])) {
            return error;
        }
    }
    return a[2] != 0 ? set_limit(pid, resource, a[2]) : 0;
}

long do_futex(Call& call) {
    const int command = static_cast<int>(call.args[1]) & FUTEX_CMD_MASK;
    const bool has_timeout = command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET ||
                             command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2 ||
                             command == FUTEX_WAIT_REQUEUE_PI;
    const bool has_second = command == FUTEX_REQUEUE || command == FUTEX_CMP_REQUEUE ||
                            command == FUTEX_WAKE_OP || command == FUTEX_CMP_REQUEUE_PI ||
                            command == FUTEX_WAIT_REQUEUE_PI;
    if ((has_timeout && !starts_in_user(call.args[3])) ||
        (has_second && !starts_in_user(call.args[4]))) {
        return -EFAULT;
    }
    return pass(call);
}

// timer_create(2): SIGEV_THREAD_ID and the signal are the program's business; there is no pointer
// that the kernel follows.
long do_timer_create(Call& call) {
    sigevent event;
    if (call.args[1] == 0) {
        return pass(call);
    }
    if (!engine::copy_in(&event, call.args[1], sizeof(event))) {
        return -EFAULT;
    }
    call.args[1] = reinterpret_cast<uint64_t>(&event);
    return pass(call);
}

// setpriority(2) and ioprio_set(2); what `which` means begins with `base` in the order process,
// group, user.
long do_priority(Call& call, uint64_t base) {
    const int who = static_cast<int>(call.args[1]);
    switch (static_cast<uint32_t>(call.args[0]) - base) {
        case PRIO_PROCESS:
            return is_our_thread(who) ? pass(call) : -EPERM;
        case PRIO_PGRP:
            return is_our_group(who) ? pass(call) : -EPERM;
        case PRIO_USER:
            return -EPERM;  // processes outside of the sandbox, too
        default:
            return -EINVAL;
    }
}

}  // namespace

long do_misc(Call& call) {
    switch (call.number) {
        case SYS_ioctl:
            return do_ioctl(call);
        case SYS_prctl:
            return do_prctl(call);
        case SYS_arch_prctl:
            return do_arch_prctl(call);
        case SYS_getrlimit:
        case SYS_setrlimit:
        case SYS_prlimit64:
            return do_limits(call);
        case SYS_futex:
            return do_futex(call);
        case SYS_timer_create:
            return do_timer_create(call);
        case SYS_setpriority:
            return do_priority(call, PRIO_PROCESS);
        case SYS_ioprio_set:
            return do_priority(call, IOPRIO_WHO_PROCESS);
        case SYS_sched_setparam:
        case SYS_sched_setscheduler:
        case SYS_sched_setaffinity:
        case SYS_sched_setattr:
            return is_our_thread(static_cast<int>(call.args[0])) ? pass(call) : -EPERM;
        case SYS_personality:
            return static_cast<uint32_t>(call.args[0]) == 0xffffffff || call.args[0] == 0
                       ? pass(call)
                       : -EINVAL;
        default:
            return -ENOSYS;
    }
}

}  // namespace dune::sandbox
