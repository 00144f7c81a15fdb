// SPDX-License-Identifier: MIT
//
// Who watches the system from outside sees what the guest does: audit, the tracepoints of system
// calls, those of the module. (ptrace and seccomp: kern_security_test.)

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "guest.h"
#include "support.h"

namespace {

using guest::call;
using guest::End;
using guest::Machine;

constexpr int kCalls = 10;

size_t count(const std::string& text, const std::string& what) {
    size_t times = 0;
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) {
        times++;
    }
    return times;
}

// --- audit ---

// A rule that records a system call of everybody's.
struct Rule {
    explicit Rule(unsigned nr) {
        data.flags = AUDIT_FILTER_EXIT;
        data.action = AUDIT_ALWAYS;
        data.field_count = 1;
        data.fields[0] = AUDIT_ARCH;
        data.fieldflags[0] = AUDIT_EQUAL;
        data.values[0] = AUDIT_ARCH_X86_64;
        data.mask[nr / 32] = 1U << nr % 32;
    }
    audit_rule_data data = {};
};

// Leaves new processes alone. Without it Linux watches each one that is born after audit was on
// once.
Rule nobody() {
    Rule rule(0);
    rule.data.flags = AUDIT_FILTER_TASK;
    rule.data.action = AUDIT_NEVER;
    rule.data.field_count = 0;
    rule.data.mask[0] = 0;
    return rule;
}

// The part of auditd: its records come here, and not to the kernel's log.
class Audit {
  public:
    Audit() : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT)) {}
    ~Audit() { close(fd_); }
    Audit(const Audit&) = delete;
    Audit& operator=(const Audit&) = delete;

    bool ok() const { return fd_ >= 0; }

    // 0 or -errno.
    int enable(bool on) {
        if (on) {
            remove(nobody());  // of a test before
        } else {
            add(nobody());
        }
        audit_status status = {};
        status.mask = AUDIT_STATUS_ENABLED | AUDIT_STATUS_PID;
        status.enabled = on;
        status.pid = on ? static_cast<uint32_t>(getpid()) : 0;
        return request(AUDIT_SET, &status, sizeof(status));
    }
    int add(const Rule& rule) { return request(AUDIT_ADD_RULE, &rule.data, sizeof(rule.data)); }
    int remove(const Rule& rule) { return request(AUDIT_DEL_RULE, &rule.data, sizeof(rule.data)); }

    // Records of a type, of those that have come until now and a moment later.
    size_t records(uint16_t type, const std::string& with) {
        while (receive(500)) {
        }
        size_t found = 0;
        for (const auto& [record_type, text] : records_) {
            found += record_type == type && text.find(with) != std::string::npos;
        }
        return found;
    }

  private:
    int request(uint16_t type, const void* data, size_t size) {
        char buffer[NLMSG_SPACE(sizeof(audit_rule_data))] = {};
        auto* header = reinterpret_cast<nlmsghdr*>(buffer);
        header->nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(size));
        header->nlmsg_type = type;
        header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
        header->nlmsg_seq = ++sequence_;
        std::memcpy(NLMSG_DATA(header), data, size);
        if (send(fd_, buffer, header->nlmsg_len, 0) < 0) {
            return -errno;
        }
        answer_ = 1;
        while (answer_ == 1 && receive(5000)) {
        }
        return answer_;
    }

    // Takes one message; false if none comes in time.
    bool receive(int milliseconds) {
        pollfd waiting = {fd_, POLLIN, 0};
        if (poll(&waiting, 1, milliseconds) != 1) {
            return false;
        }
        std::vector<char> buffer(16 * 1024);
        const ssize_t size = recv(fd_, buffer.data(), buffer.size(), 0);
        if (size < static_cast<ssize_t>(sizeof(nlmsghdr))) {
            return false;
        }
        const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data());
        if (header->nlmsg_type == NLMSG_ERROR) {
            answer_ = static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
        } else {
            records_.emplace_back(header->nlmsg_type,
                                  std::string(buffer.data() + sizeof(nlmsghdr),
                                              static_cast<size_t>(size) - sizeof(nlmsghdr)));
        }
        return true;
    }

    int fd_;
    uint32_t sequence_ = 0;
    int answer_ = 0;
    std::vector<std::pair<uint16_t, std::string>> records_;
};

TEST(Audit, RecordsTheGuestsCalls) {
    Audit audit;
    ASSERT_TRUE(audit.ok());
    ASSERT_EQ(audit.enable(true), 0);
    const Rule rule(SYS_getppid);
    ASSERT_EQ(audit.add(rule), 0);
    // Watched from its birth on, as Linux does it.
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        const End end = guest::enter([] {
            for (int i = 0; i < kCalls; i++) {
                call(SYS_getppid);
                guest::slow_call(SYS_getppid);
            }
        });
        const bool all_slow = Machine::get().stats().fast_calls == 0;
        _exit(end.left() && all_slow ? 0 : 1);
    }
    EXPECT_EQ(support::wait_status(pid), 0);
    EXPECT_EQ(audit.records(AUDIT_SYSCALL, " syscall=110 "), 2U * kCalls);
    EXPECT_EQ(audit.records(AUDIT_SYSCALL, " pid=" + std::to_string(pid) + " "), 2U * kCalls);
    EXPECT_EQ(audit.remove(rule), 0);
    EXPECT_EQ(audit.enable(false), 0);
}

TEST(Audit, RecordsWhatSeccompLogs) {
    Audit audit;
    ASSERT_TRUE(audit.ok());
    ASSERT_EQ(audit.enable(true), 0);
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_LOG),
                              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        const sock_fprog program = {4, code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        bool right = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
        const long parent = getppid();
        const End end = guest::enter([&] { right = right && call(SYS_getppid) == parent; });
        _exit(end.left() && right ? 0 : 1);
    }
    EXPECT_EQ(support::wait_status(pid), 0);
    EXPECT_EQ(audit.records(AUDIT_SECCOMP, " syscall=110 "), 2U) << "the host's and the guest's";
    EXPECT_EQ(audit.enable(false), 0);
}

// --- tracepoints ---

// A trace of its own, of one process and what it starts.
class Trace {
  public:
    explicit Trace(pid_t pid) {
        mkdir(path_.c_str(), 0755);
        write("set_event_pid", std::to_string(pid));
    }
    ~Trace() { rmdir(path_.c_str()); }
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;

    bool write(const std::string& file, const std::string& word) {
        return support::write_file((path_ + "/" + file).c_str(), word.c_str());
    }
    std::string text() const { return support::read_file(path_ + "/trace"); }

  private:
    const std::string path_ = "/sys/kernel/tracing/instances/dune-test";
};

// A child in the guest that makes kCalls calls each time that it is told to.
class Caller {
  public:
    Caller()
        : shared_(static_cast<Shared*>(
              mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        pid_ = support::fork_or_end();
        if (pid_ == 0) {
            const End end = guest::enter([this] { serve(); });
            _exit(end.left() ? 0 : 1);
        }
        call_it();
    }
    ~Caller() {
        shared_->wanted = -1;
        EXPECT_EQ(support::wait_status(pid_), 0);
        munmap(shared_, 4096);
    }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    pid_t pid() const { return pid_; }

    // It is in the guest all the time, spinning.
    void call_it() {
        const int64_t turn = shared_->done + 1;
        shared_->wanted = turn;
        for (int i = 0; i < 2000 && shared_->done < turn; i++) {
            usleep(1000);
        }
        EXPECT_EQ(shared_->done, turn);
    }

  private:
    struct Shared {
        volatile int64_t wanted, done;
    };

    void serve() {
        while (shared_->wanted >= 0) {
            if (shared_->wanted > shared_->done) {
                for (int i = 0; i < kCalls; i++) {
                    call(SYS_getppid);
                }
                shared_->done = shared_->done + 1;
            }
        }
    }

    Shared* shared_;
    pid_t pid_ = -1;
};

TEST(Tracepoints, OfSystemCallsSeeTheGuests) {
    Caller caller;
    Trace trace(caller.pid());
    ASSERT_TRUE(trace.write("events/raw_syscalls/enable", "1"));
    ASSERT_TRUE(trace.write("events/syscalls/sys_enter_getppid/enable", "1"));
    caller.call_it();
    ASSERT_TRUE(trace.write("events/raw_syscalls/enable", "0"));
    ASSERT_TRUE(trace.write("events/syscalls/sys_enter_getppid/enable", "0"));
    caller.call_it();
    const std::string text = trace.text();
    EXPECT_EQ(count(text, "sys_enter: NR 110 "), size_t{kCalls}) << text;
    EXPECT_EQ(count(text, "sys_exit: NR 110 = " + std::to_string(getpid())), size_t{kCalls});
    EXPECT_EQ(count(text, "sys_getppid("), size_t{kCalls});
}

TEST(Tracepoints, OfTheModule) {
    int go[2];
    ASSERT_EQ(pipe(go), 0);
    const pid_t pid = support::fork_or_end();
    if (pid == 0) {
        char byte;
        static_cast<void>(!read(go[0], &byte, 1));
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR2, [](int) {});
        char* fresh = guest::map(support::kPage);
        const End end = guest::enter([&] {
            uint32_t leaf = 0;
            asm volatile("cpuid" : "+a"(leaf) : : "ebx", "ecx", "edx");
            *fresh = 1;
            call(SYS_getppid);
            guest::slow_call(SYS_getuid);
            call(SYS_kill, call(SYS_getpid), SIGUSR2);
        });
        _exit(end.left() && Machine::get().stats().bounces > 0 ? 0 : 1);
    }
    Trace trace(pid);
    ASSERT_TRUE(trace.write("events/dune/enable", "1"));
    ASSERT_EQ(write(go[1], "x", 1), 1);
    EXPECT_EQ(support::wait_status(pid), 0);
    ASSERT_TRUE(trace.write("events/dune/enable", "0"));
    const std::string text = trace.text();
    EXPECT_GE(count(text, " dune_entry: "), 5U);
    EXPECT_EQ(count(text, " dune_entry: "), count(text, " dune_exit: "));
    EXPECT_EQ(count(text, " reason 10\n"), 1U) << "CPUID";
    EXPECT_GE(count(text, " dune_ept_violation: "), 1U);
    EXPECT_GE(count(text, " dune_bounce: "), 1U);
    if (Machine::get().has(DUNE_FEAT_FAST_SYSCALLS)) {
        const std::string call = " nr 110 = " + std::to_string(getpid());
        EXPECT_EQ(count(text, " dune_syscall: "), count(text, " nr ")) << text;
        EXPECT_EQ(count(text, call + "\n"), 1U) << text;
    }
    EXPECT_EQ(count(text, " nr 102 = "), 0U) << "getuid() went the slow way";
}

}  // namespace
