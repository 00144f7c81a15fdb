// SPDX-License-Identifier: MIT
//
// The monitor's state: of the process, and of each of its threads. All of it is runtime memory, out
// of the program's reach.

#ifndef DUNE_APPS_SANDBOX_MONITOR_STATE_H
#define DUNE_APPS_SANDBOX_MONITOR_STATE_H

#include <linux/limits.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <string_view>

#include "monitor/engine.h"
#include "monitor/layout.h"
#include "monitor/lock.h"
#include "monitor/range_set.h"
#include "policy/policy.h"

namespace dune::sandbox {

// Descriptors of the runtime have numbers of their own, from Process::fd_base on, which the program
// can neither use nor replace. Each thread needs one.
enum ReservedFd : int {
    kRootFd,     // "/", O_PATH
    kSelfFd,     // the file of dune-sandbox, for execve
    kPolicyFd,   // sealed memory file with the PolicyImage
    kStatsFd,    // shared memory file with the Stats
    kLogFd,      // messages and the trace
    kImageFd,    // while an execve is under way: the new program's arguments,
    kProgramFd,  // its file,
    kInterpFd,   // and its ELF interpreter's, if it has one
    kFirstFreeFd,
};

// A path in the making. Fixed room, so that the monitor needs no heap.
struct PathBuffer {
    size_t length = 0;
    char text[PATH_MAX];

    std::string_view view() const { return {text, length}; }
    bool assign(std::string_view value);
    bool append(std::string_view value);
    // Ends the text with NUL for a system call.
    const char* c_str() {
        text[length] = 0;
        return text;
    }
};

// Counts of the whole sandbox, in memory shared by all its processes.
struct Stats {
    std::atomic<uint64_t> calls;
    std::atomic<uint64_t> denied;
    std::atomic<uint64_t> processes;
    std::atomic<uint64_t> threads;
    std::atomic<uint64_t> signals;
    std::atomic<uint64_t> vm_exits;  // of processes that have ended or executed another program
    // The processes of the sandbox, a bit for each pid (Linux has at most 2^22). One that is killed
    // keeps its bit: see whose_process().
    static constexpr int64_t kMaxPid = 1 << 22;
    std::array<std::atomic<uint64_t>, kMaxPid / 64> pids;
    std::atomic<int64_t> most_pid;
    void add_process(int64_t pid) {
        pids[pid / 64].fetch_or(1ull << pid % 64);
        for (int64_t most = most_pid.load(); pid > most;) {
            most_pid.compare_exchange_weak(most, pid);
        }
    }
    bool has_process(int64_t pid) const {
        return pid < kMaxPid && (pids[pid / 64].load() >> pid % 64 & 1) != 0;
    }

    std::array<std::atomic<uint64_t>, kSyscallCount> by_call;
    std::array<std::atomic<uint64_t>, kSyscallCount> denied_by_call;
};

// As rt_sigaction(2) takes it.
struct SignalAction {
    uint64_t handler;
    uint64_t flags;
    uint64_t restorer;
    uint64_t mask;
};

constexpr int kSignals = 64;
constexpr uint64_t signal_bit(int signal) {
    return 1ull << (signal - 1);
}

struct Thread {
    Frame frame;  // what ring 3 starts with
    uint64_t start_fs = 0;
    int tid = 0;
    uint64_t number = 0;  // of the system call under way, as the program gave it

    uint64_t set_tid[2] = {};  // where clone(2) wants the new thread's id
    uint64_t clear_tid = 0;    // of set_tid_address(2)
    uint64_t robust_list = 0;

    // rseq(2): the program's area, 0 if it registered none, the signature before abort handlers,
    // and the CPU that the area names.
    uint64_t rseq_area = 0;
    uint32_t rseq_signature = 0;
    uint32_t rseq_cpu = 0;

    uint64_t mask = 0;       // ring 3's signal mask; the host's is the same
    uint64_t temp_mask = 0;  // that of sigsuspend and the like, for one delivery
    bool has_temp_mask = false;
    long interrupted = -1;  // the restartable system call that a signal ended
    uint64_t altstack = 0, altstack_size = 0;
    int altstack_flags = SS_DISABLE;

    // Signals on their way; written by the host's handler, which runs on this thread.
    static constexpr unsigned kQueue = 64;
    std::array<siginfo_t, kQueue> queue;
    std::atomic<unsigned> queue_head{0}, queue_tail{0};
    bool has_signals() const {
        return queue_head.load(std::memory_order_relaxed) !=
               queue_tail.load(std::memory_order_relaxed);
    }

    PathBuffer path[2];  // results
    PathBuffer work;     // while one is made
    char link[PATH_MAX];
    char line[1024];       // a line of the log
    uint8_t bytes[16384];  // copies of the program's structures

    int exit_status = 0;
    void* engine = nullptr;
};

// What a program finds on its stack when it starts, for /proc to tell: its arguments and
// environment, which are its own to change, and the auxiliary vector, of which the kernel keeps a
// copy.
struct StartInfo {
    struct Range {
        uint64_t begin, end;
    };
    Range arguments, environment;
    static constexpr size_t kMaxAux = 24;
    uint64_t aux[kMaxAux][2];  // type and value
    size_t aux_count;          // the last one, AT_NULL, included
};

struct Process {
    const PolicyImage* policy = nullptr;
    Stats* stats = nullptr;
    bool trace = false;
    bool quiet = false;
    int fd_base = 0;
    rlim_t fd_limit = 0;  // numbers of the runtime end below: the hard limit of open files
    int pid = 0;
    std::atomic<int> threads{1};

    Lock memory_lock;
    RangeSet* ranges = nullptr;
    uint64_t map_top = kMapEnd;  // mappings go below
    uint64_t brk_start = 0, brk_now = 0;
    uint64_t stack = 0;  // where the program's first thread began
    StartInfo start{};

    // Held to make, use and close a descriptor of the monitor's own, and to replace or close one of
    // the program's: so none of the monitor's is exchanged under it.
    Lock fd_lock;

    Lock signal_lock;
    std::array<SignalAction, kSignals + 1> actions{};

    Lock thread_lock;  // thread creation and fork

    Lock exec_lock;

    Lock log_lock;
    PathBuffer exe;  // what /proc/self/exe is for the program
};

extern Process process;

inline int reserved_fd(ReservedFd which) {
    return process.fd_base + which;
}
// True for a descriptor that the program must not use. Not for -1, AT_FDCWD and their like.
inline bool is_reserved(uint64_t fd) {
    return static_cast<int>(fd) >= process.fd_base;
}

}  // namespace dune::sandbox

#endif
