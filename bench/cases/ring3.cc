// SPDX-License-Identifier: MIT
// Interposition: a call of one program that another part decides. Linux has ptrace and seccomp's
// user notification; Dune runs the program in ring 3 and the monitor in ring 0.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

#include "arena.h"
#include "cases.h"
#include "libdune/dune.h"

extern "C" const char bench_ring3[];

namespace bench {
namespace {

constexpr std::uint64_t kEnd = 0x1000;  // ring3.S
constexpr std::size_t kRing3Size = kPage;

// ---- Dune ---------------------------------------------------------------------------------------

/** Nothing but the way in and out. */
void answer_nothing(dune_tf* frame) {
    if (frame->rax == kEnd)
        dune_ret_from_user(0);
}

void pass_through(dune_tf* frame) {
    if (frame->rax == kEnd)
        dune_ret_from_user(0);
    dune_passthrough_syscall(frame);
}

/** A monitor's first question: is this call one of those that are allowed? */
std::uint64_t allowed[8] = {1ULL << SYS_getpid, 0, 0, 0, 0, 0, 0, 0};

void check_and_pass(dune_tf* frame) {
    const std::uint64_t number = frame->rax;
    if (number < 512 && (allowed[number / 64] >> number % 64 & 1) != 0) [[likely]] {
        dune_passthrough_syscall(frame);
        return;
    }
    if (number == kEnd)
        dune_ret_from_user(0);
    frame->rax = static_cast<std::uint64_t>(-ENOSYS);
}

void map_for_ring3(Measure& measure, const void* start, std::size_t size, int permissions) {
    auto* const from = const_cast<void*>(start);
    const int error = dune_vm_map_phys(pgroot, from, size,
                                       reinterpret_cast<void*>(dune_va_to_pa(from)), permissions);
    if (error != 0)
        measure.fail("dune_vm_map_phys: error %d", -error);
}

/** Run bench_ring3 with a handler; the samples are its own. */
void in_ring3(Measure& measure, void (*handler)(dune_tf*)) {
    constexpr std::size_t kStack = 4 * kPage;
    enter_dune(measure);
    const std::size_t room = (measure.calls() * sizeof(std::uint64_t) + kPage - 1) & ~(kPage - 1);
    char* const memory = arena(measure, room + kStack);
    std::memset(memory, 0, room + kStack);
    map_for_ring3(measure, bench_ring3, kRing3Size, PERM_UCODE);
    map_for_ring3(measure, memory, room + kStack, PERM_USTACK);
    dune_register_syscall_handler(handler);
    const auto* const samples = reinterpret_cast<const std::uint64_t*>(memory);
    // In one go, the samples being taken in ring 3; given out one by one, so that exits are counted
    // over the first call of op(), which runs it.
    const auto go = [&](unsigned count) {
        dune_tf frame = {};
        frame.rip = reinterpret_cast<std::uint64_t>(bench_ring3);
        frame.rsp = reinterpret_cast<std::uint64_t>(memory + room + kStack);
        frame.rdi = reinterpret_cast<std::uint64_t>(memory);
        frame.rsi = SYS_getpid;
        frame.rdx = count;
        frame.rflags = 2;
        dune_jump_to_user(&frame);
    };
    const unsigned warm_up = measure.calls() - measure.samples();
    measure.sample_given([&](unsigned i) {
        if (i == 0)
            go(warm_up);
        if (i == warm_up)
            go(measure.samples());
        return i < warm_up ? 0 : samples[i - warm_up];
    });
}

void ring3_nothing(Measure& measure) {
    in_ring3(measure, answer_nothing);
}

void ring3_pass(Measure& measure) {
    in_ring3(measure, pass_through);
}

void ring3_check(Measure& measure) {
    in_ring3(measure, check_and_pass);
}

// ---- Linux --------------------------------------------------------------------------------------

/** Runs `tracee` in a child; the sample memory is shared with it. */
pid_t start(Measure& measure, void (*tracee)(Measure&)) {
    const pid_t child = fork();
    if (child < 0)
        measure.fail("cannot start a process: %s", std::strerror(errno));
    if (child == 0) {
        tracee(measure);
        _exit(0);
    }
    return child;
}

void sample_getpid(Measure& measure) {
    measure.sample([](unsigned) { raw_syscall(SYS_getpid); });
}

/** A monitor that sees each call of the program, and lets it pass. */
void ptrace_monitor(Measure& measure) {
    const pid_t child = start(measure, [](Measure& inner) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        sample_getpid(inner);
    });
    int status = 0;
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    bool entering = true;
    while (!WIFEXITED(status) && !WIFSIGNALED(status)) {
        if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            // The number and the arguments, as a monitor needs them.
            __ptrace_syscall_info info;
            if (entering)
                ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info);
            entering = !entering;
        }
        ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
        waitpid(child, &status, 0);
    }
}

int notify_socket[2];

/** Passes a file descriptor. */
void send_fd(int socket, int fd) {
    char byte = 0;
    iovec data = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    sendmsg(socket, &message, 0);
}

int receive_fd(int socket) {
    char byte = 0;
    iovec data = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    int fd = -1;
    if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != nullptr)
        std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

void notified_program(Measure& measure) {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {.len = 4, .filter = filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0)
        measure.fail("no seccomp user notification: %s", std::strerror(errno));
    send_fd(notify_socket[1], static_cast<int>(fd));
    close(static_cast<int>(fd));
    sample_getpid(measure);
}

void seccomp_monitor(Measure& measure) {
    // A filter is in use until its last process is reaped, which nobody may have to wait for.
    signal(SIGCHLD, SIG_IGN);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, notify_socket);
    start(measure, notified_program);
    close(notify_socket[1]);
    const int listener = receive_fd(notify_socket[0]);
    if (listener < 0)
        measure.fail("the program sent no notification file");
    for (;;) {
        seccomp_notif request = {};
        seccomp_notif_resp response = {};
        // That the program is gone is told by poll() alone.
        pollfd wanted = {.fd = listener, .events = POLLIN, .revents = 0};
        if (poll(&wanted, 1, -1) != 1 || (wanted.revents & POLLIN) == 0 ||
            ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
            break;
        response.id = request.id;
        response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
    }
}

}  // namespace

void add_ring3_cases(Cases& cases) {
    cases.insert(cases.end(),
                 {
                     {"interpose/linux/ptrace", Needs::Linux, 200, 0, ptrace_monitor},
                     {"interpose/linux/seccomp_notify", Needs::Linux, 200, 0, seccomp_monitor},
                     {"interpose/dune/ring3", Needs::Dune, 1000, 0, ring3_pass},
                     {"interpose/dune/ring3_checked", Needs::Dune, 1000, 0, ring3_check},
                     {"ring3_call/dune/nothing", Needs::Dune, 1000, 0, ring3_nothing},
                 });
}

}  // namespace bench
