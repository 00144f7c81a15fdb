// SPDX-License-Identifier: MIT
//
// The FPU's state in the guest is the thread's own: vector registers of every width, and tiles.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::End;
using support::host_has;
using support::now;

constexpr size_t kVectors = 32;
struct alignas(64) Registers {
    uint8_t bytes[kVectors][64];
};

// Load all vector registers, spin (or give the CPU away by calls, in the guest), and store them
// again.
extern "C" {
void sse_loop(const Registers* in, Registers* out, uint64_t turns);
void avx_loop(const Registers* in, Registers* out, uint64_t turns);
void avx512_loop(const Registers* in, Registers* out, uint64_t turns);
void sse_yields(const Registers* in, Registers* out, uint64_t turns);
void avx512_yields(const Registers* in, Registers* out, uint64_t turns);
}
asm(R"(
    .macro vector_loop name, move, prefix, count, turn
\name:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \move 64*\n(%rdi), %\prefix\n
    .endr
    .if \count > 16
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \move 64*\n(%rdi), %\prefix\n
    .endr
    .endif
1:  \turn
    dec %rdx
    jnz 1b
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \move %\prefix\n, 64*\n(%rsi)
    .endr
    .if \count > 16
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \move %\prefix\n, 64*\n(%rsi)
    .endr
    .endif
    ret
    .endm
    vector_loop sse_loop, movdqu, xmm, 16
    vector_loop avx_loop, vmovdqu, ymm, 16
    vector_loop avx512_loop, vmovdqu64, zmm, 32
    vector_loop sse_yields, movdqu, xmm, 16, "mov $24, %eax; vmcall"  # sched_yield()
    vector_loop avx512_yields, vmovdqu64, zmm, 32, "mov $24, %eax; vmcall"
)");

// After each switch Linux stops a thread that has rseq in user mode, and loads its registers there.
// Without it the module alone is left to see that they are another's.
void give_up_rseq() {
    constexpr unsigned kGlibcsSize = 32;
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    if (__rseq_size != 0 &&
        syscall(SYS_rseq, area, kGlibcsSize, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) != 0) {
        _exit(4);
    }
}

// Runs rounds for a second in four processes on too few CPUs, all of them in the guest if they
// yield, three otherwise. prepare(p) makes values of process p's own, round() returns how many were
// not kept.
template <typename Prepare, typename Round>
void expect_kept(Prepare prepare, Round round, bool yields = false) {
    std::vector<pid_t> pids;
    for (int p = 0; p < 4; p++) {
        const pid_t pid = support::fork_or_end();
        if (pid == 0) {
            if (yields) {
                give_up_rseq();
            }
            prepare(p);
            int wrong = 0;
            const auto body = [&] { wrong += round(); };
            const double end = now() + (yields ? 0.2 : 1);  // a switch a call, or a tick
            while (now() < end && wrong == 0) {
                if (p == 3 && !yields) {
                    body();
                } else if (!guest::enter(body).left()) {
                    _exit(2);
                }
            }
            _exit(wrong != 0);
        }
        pids.push_back(pid);
    }
    for (const pid_t pid : pids) {
        EXPECT_EQ(support::wait_status(pid), 0);
    }
}

using Loop = void (*)(const Registers*, Registers*, uint64_t);
constexpr uint64_t kSpins = 300'000, kYields = 300;

void expect_vectors_kept(Loop loop, size_t count, size_t width, uint64_t turns = kSpins) {
    static Registers in, out;
    expect_kept(
        [](int p) {
            for (size_t i = 0; i < kVectors; i++) {
                for (size_t j = 0; j < 64; j++) {
                    in.bytes[i][j] = static_cast<uint8_t>(p * 64 + i * 7 + j);
                }
            }
        },
        [&] {
            int wrong = 0;
            loop(&in, &out, turns);
            for (size_t i = 0; i < count; i++) {
                for (size_t j = 0; j < width; j++) {
                    wrong += in.bytes[i][j] != out.bytes[i][j];
                }
            }
            return wrong;
        },
        turns == kYields);
}

TEST(Fpu, SseStateUnderPreemption) {
    expect_vectors_kept(sse_loop, 16, 16);
}

TEST(Fpu, AvxStateUnderPreemption) {
    if (!host_has("avx")) {
        GTEST_SKIP() << "no AVX";
    }
    expect_vectors_kept(avx_loop, 16, 32);
}

TEST(Fpu, Avx512StateUnderPreemption) {
    if (!host_has("avx512f")) {
        GTEST_SKIP() << "no AVX-512";
    }
    expect_vectors_kept(avx512_loop, 32, 64);
}

// A call that the module does may have others run, and the guest goes on without a stop in user
// mode, where Linux would load the registers.
TEST(Fpu, SseStateOverCallsThatYield) {
    expect_vectors_kept(sse_yields, 16, 16, kYields);
}

TEST(Fpu, Avx512StateOverCallsThatYield) {
    if (!host_has("avx512f")) {
        GTEST_SKIP() << "no AVX-512";
    }
    expect_vectors_kept(avx512_yields, 32, 64, kYields);
}

// --- AMX ---

constexpr int kXtileData = 18;          // of XCR0 (SDM 13.1)
constexpr long kReqXcompPerm = 0x1023;  // arch_prctl()

// Palette 1: eight tiles of 16 rows of 64 bytes (SDM 18.2).
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr size_t kTileSize = 16 * 64;

// Loads tiles 0 and 7, spins, and stores them. Plain bytes: not every assembler knows AMX.
void tile_loop(const TileConfig& config, const uint8_t* in, uint8_t* out, uint64_t turns) {
    constexpr uint64_t kStride = 64;
    asm volatile(
        ".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n"        // ldtilecfg (%rax)
        ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x0e\n"  // tileloadd (%rsi,%rcx,1), %tmm0
        ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0xbc, 0x0e\n"  // tileloadd 1024(%rsi,%rcx,1), %tmm7
        ".long 1024\n"
        "1: dec %[turns]\n"
        "jnz 1b\n"
        ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x0f\n"  // tilestored %tmm0, (%rdi,%rcx,1)
        ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0xbc, 0x0f\n"  // tilestored %tmm7, 1024(%rdi,%rcx,1)
        ".long 1024\n"
        ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0\n"  // tilerelease
        : [turns] "+r"(turns)
        : "a"(&config), "S"(in), "D"(out), "c"(kStride)
        : "memory", "cc");
}

TEST(Fpu, TilesUnderPreemption) {
    if (!host_has("amx_tile")) {
        GTEST_SKIP() << "no AMX";
    }
    static const TileConfig config;
    static uint8_t in[2 * kTileSize], out[2 * kTileSize];
    expect_kept(
        [](int p) {
            if (syscall(SYS_arch_prctl, kReqXcompPerm, kXtileData) != 0) {
                _exit(3);
            }
            for (size_t i = 0; i < sizeof(in); i++) {
                in[i] = static_cast<uint8_t>(p * 64 + i * 7);
            }
            // Linux makes room for tiles at their first use, which it has to see in host mode.
            tile_loop(config, in, out, 1);
        },
        [] {
            tile_loop(config, in, out, 300'000);
            int wrong = 0;
            for (size_t i = 0; i < sizeof(in); i++) {
                wrong += in[i] != out[i];
            }
            return wrong;
        });
}

// LDTILECFG, and what needs tile data: 6 bytes long, and of no effect where it is refused.
constexpr int kTileloaddBytes = 6;
void use_tile(const TileConfig& config, const uint8_t* in) {
    constexpr uint64_t kStride = 64;
    asm volatile(
        ".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n"        // ldtilecfg (%rax)
        ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x0e\n"  // tileloadd (%rsi,%rcx,1), %tmm0
        :
        : "a"(&config), "S"(in), "c"(kStride)
        : "memory");
}

// Gives the tiles back as well.
void store_tile(uint8_t* out) {
    constexpr uint64_t kStride = 64;
    asm volatile(
        ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x0f\n"  // tilestored %tmm0, (%rdi,%rcx,1)
        ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0\n"        // tilerelease
        :
        : "D"(out), "c"(kStride)
        : "memory");
}

// Tile data live through what happens between two instructions of a guest: exits, calls both ways,
// page faults. Linux may not use tiles itself, so they stay in the registers.
TEST(Fpu, TilesLiveThroughExits) {
    if (!host_has("amx_tile")) {
        GTEST_SKIP() << "no AMX";
    }
    // In a child, since what is granted is granted to the process for good.
    const int status = support::status_of([] {
        if (syscall(SYS_arch_prctl, kReqXcompPerm, kXtileData) != 0) {
            _exit(3);
        }
        static const TileConfig config;
        static uint8_t in[2 * kTileSize], out[2 * kTileSize];
        for (size_t i = 0; i < sizeof(in); i++) {
            in[i] = static_cast<uint8_t>(i * 11 + 1);
        }
        tile_loop(config, in, out, 1);
        std::memset(out, 0, sizeof(out));
        char* page = guest::map(4096);
        const End end = guest::enter([&] {
            use_tile(config, in);
            for (int i = 0; i < 20; i++) {
                guest::call(SYS_getpid);
                guest::slow_call(SYS_sched_yield);
                guest::call(SYS_madvise, support::arg(page), 4096, MADV_DONTNEED);
                *const_cast<volatile char*>(page) = 1;
                guest::slow_call(SYS_madvise, support::arg(page), 4096, MADV_DONTNEED);
            }
            store_tile(out);
        });
        if (!end.left()) {
            _exit(2);
        }
        _exit(std::memcmp(in, out, kTileSize) != 0);
    });
    EXPECT_EQ(status, 0);
}

// A thread that was not granted tiles has the feature disarmed in XFD: its first use is a #NM of
// the guest's own, where Linux would send SIGILL.
TEST(Fpu, TilesThatWereNotGranted) {
    if (!host_has("amx_tile")) {
        GTEST_SKIP() << "no AMX";
    }
    guest::Trap trap;
    static const TileConfig config;
    static uint8_t in[kTileSize];
    const End end =
        guest::enter([&] { trap = guest::probe([] { use_tile(config, in); }); }, guest::kWithTraps);
    ASSERT_TRUE(end.left()) << end;
    EXPECT_EQ(trap.vector, 7);
}

// XFD stays the thread's own, in the guest and after it: of two that take turns on a CPU, most of
// them in calls that the module does, one may use tiles, and the other may not.
TEST(Fpu, TilesBesideAThreadWithout) {
    if (!host_has("amx_tile")) {
        GTEST_SKIP() << "no AMX";
    }
    static const TileConfig config;
    static uint8_t in[kTileSize], out[kTileSize];
    static volatile sig_atomic_t refused;
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = static_cast<uint8_t>(i * 13 + 1);
    }

    const pid_t without = support::fork_or_end();
    if (without == 0) {
        struct sigaction action = {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t*, void* context) {
            refused = refused + 1;
            static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += kTileloaddBytes;
        };
        if (sigaction(SIGILL, &action, nullptr) != 0 || !support::pin_to(0)) {
            _exit(3);
        }
        give_up_rseq();
        int rounds = 0;
        for (const double end = now() + 1; now() < end; rounds++) {
            int traps = 0;
            const End stay = guest::enter(
                [&] {
                    for (int i = 0; i < 20; i++) {
                        guest::call(SYS_sched_yield);
                        traps += guest::probe([] { use_tile(config, in); }).vector == 7;
                    }
                },
                guest::kWithTraps);
            if (!stay.left() || traps != 20) {
                _exit(2);
            }
            use_tile(config, in);
            if (refused != rounds + 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    const int with = support::status_of([] {
        if (!support::pin_to(0) || syscall(SYS_arch_prctl, kReqXcompPerm, kXtileData) != 0) {
            _exit(3);
        }
        give_up_rseq();
        use_tile(config, in);
        for (const double end = now() + 1; now() < end;) {
            int wrong = 0;
            const End stay = guest::enter([&] {
                for (int i = 0; i < 20; i++) {
                    use_tile(config, in);
                    guest::call(SYS_sched_yield);
                    store_tile(out);
                    wrong += std::memcmp(in, out, sizeof(in)) != 0;
                }
            });
            if (!stay.left()) {
                _exit(2);
            }
            use_tile(config, in);
            if (wrong != 0) {
                _exit(1);
            }
        }
        _exit(0);
    });
    EXPECT_EQ(with, 0);
    EXPECT_EQ(support::wait_status(without), 0);
}

}  // namespace
