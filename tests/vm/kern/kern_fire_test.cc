// SPDX-License-Identifier: MIT
//
// Coherence under fire: threads in the guest read and write while another, in host mode, takes
// the memory away, gives it other rights, forks, swaps and compacts it. What a thread wrote last
// is what it reads, and no access gets a right that Linux took away.
//
//   DUNE_FIRE_SECONDS=n   for each test (default 3)

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::End;
using guest::kWithTraps;
using guest::Machine;
using guest::map;
using guest::this_cpu;
using support::kPage;
using support::now;

// What one CPU can meet, it meets at its switches between threads; two meet at every instruction.
// For long, and all at once, it is in kern_coherence_test.
double seconds() {
    const char* value = std::getenv("DUNE_FIRE_SECONDS");
    if (value) {
        return std::atof(value);
    }
    return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 1 : 0.5;
}

// Threads in the guest, each with pages of its own, that count in every page and check that
// nothing is lost, while `attack` runs in host mode until the time is over.
struct Fire {
    static constexpr size_t kThreads = 3;
    static constexpr size_t kPages = 64;
    static constexpr uint64_t kAttacks = 4;

    char* area = nullptr;
    std::atomic<bool> stop = false;
    std::atomic<uint64_t> wrong = 0, rounds = 0, ready = 0;

    char* pages(size_t thread) const { return area + thread * kPages * kPage; }
    size_t size() const { return kThreads * kPages * kPage; }

    void work(size_t thread) {
        char* mine = pages(thread);
        const End end = guest::enter(
            [&] {
                uint64_t round = 0;
                while (!stop.load(std::memory_order_relaxed)) {
                    round++;
                    for (size_t i = 0; i < kPages; i++) {
                        auto* word = reinterpret_cast<volatile uint64_t*>(mine + i * kPage) + i;
                        if (round > 1 && *word != round - 1) {
                            wrong++;
                        }
                        *word = round;
                    }
                    rounds++;
                }
            },
            kWithTraps);
        if (!end.left() || end.argument != 0) {
            wrong += 1'000'000;
            std::printf("thread %zu: exit %u %s argument %llx at %llx\n", thread, end.exit,
                        end.text.c_str(), static_cast<unsigned long long>(end.argument),
                        static_cast<unsigned long long>(guest::Vcpu::get().page().fault_address));
        }
    }

    template <typename Attack>
    void run(Attack&& attack) {
        area = map(size());
        madvise(area, size(), MADV_NOHUGEPAGE);
        run_on_area(attack);
        munmap(area, size());
    }

    template <typename Attack>
    void run_on_area(Attack&& attack) {
        std::vector<std::thread> threads;
        Machine::get().show_everything();
        for (size_t t = 0; t < kThreads; t++) {
            threads.emplace_back([this, t] { work(t); });
        }
        const double end = now() + seconds();
        uint64_t attacks = 0;
        while (now() < end || attacks < kAttacks) {  // one may take long
            attack();
            attacks++;
            if (attacks % 16 == 0) {
                usleep(1000);
            }
        }
        stop = true;
        for (std::thread& thread : threads) {
            thread.join();
        }
        EXPECT_EQ(wrong, 0U);
        EXPECT_GT(rounds, 10U);
        std::printf("%llu rounds, %llu attacks, %llu EPT faults\n",
                    static_cast<unsigned long long>(rounds.load()),
                    static_cast<unsigned long long>(attacks),
                    static_cast<unsigned long long>(Machine::get().stats().ept_faults));
    }
};

TEST(Fire, Fork) {
    Fire fire;
    fire.run([&] {
        const pid_t pid = support::fork_or_end();
        if (pid == 0) {
            std::memset(fire.area, 0xee, fire.size());
            _exit(0);
        }
        waitpid(pid, nullptr, 0);
    });
}

TEST(Fire, MremapThereAndBackIsSeen) {
    // Moving one thread's page away and back: a thread that touches it meanwhile faults, comes
    // again, and finds it as it was.
    Fire fire;
    char* aside = map(kPage);
    std::atomic<uint64_t> moved = 0;
    Machine::get().show_everything();
    fire.area = map(fire.size());
    madvise(fire.area, fire.size(), MADV_NOHUGEPAGE);
    // Only the threads' handlers know that a fault is to be tried again.
    std::vector<std::thread> threads;
    for (size_t t = 0; t < Fire::kThreads; t++) {
        threads.emplace_back([&, t] {
            char* mine = fire.pages(t);
            const End end = guest::enter(
                [&] {
                    this_cpu().handler = [](guest::TrapFrame& frame, guest::Cpu& cpu) {
                        cpu.count = cpu.count + 1;
                        return frame.vector == 14 && (frame.error & DUNE_PF_FROM_HOST) != 0;
                    };
                    uint64_t round = 0;
                    fire.ready++;
                    while (!fire.stop.load(std::memory_order_relaxed)) {
                        round++;
                        for (size_t i = 0; i < Fire::kPages; i++) {
                            auto* word = reinterpret_cast<volatile uint64_t*>(mine + i * kPage);
                            if (round > 1 && *word != round - 1) {
                                fire.wrong++;
                            }
                            *word = round;
                        }
                        fire.rounds++;
                    }
                },
                kWithTraps);
            if (!end.left() || end.argument != 0) {
                fire.wrong += 1'000'000;
            }
        });
    }
    // Nobody may map anything while there is a hole to map it in.
    while (fire.ready < Fire::kThreads) {
        usleep(1000);
    }
    const double end = now() + seconds();
    for (size_t i = 0; now() < end; i++) {
        char* page = fire.area + (i * 7 % (Fire::kThreads * Fire::kPages)) * kPage;
        if (mremap(page, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, aside) == aside &&
            mremap(aside, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page) {
            moved++;
        }
        if (i % 8 == 0) {
            usleep(500);
        }
    }
    fire.stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(fire.wrong, 0U);
    EXPECT_GT(moved, 10U);
    EXPECT_GT(fire.rounds, 10U);
}

TEST(Fire, MprotectTakesTheRightAway) {
    // After mprotect(PROT_READ) has returned, no write arrives any more.
    char* page = map(kPage);
    std::atomic<bool> stop = false;
    std::atomic<uint64_t> writes = 0;
    std::thread writer([&] {
        const End end = guest::enter(
            [&] {
                this_cpu().handler = [](guest::TrapFrame& frame, guest::Cpu&) {
                    return frame.vector == 14;
                };
                uint64_t n = 0;
                while (!stop.load(std::memory_order_relaxed)) {
                    *reinterpret_cast<volatile uint64_t*>(page) = ++n;
                    writes.store(n, std::memory_order_relaxed);
                }
            },
            kWithTraps);
        EXPECT_TRUE(end.left() && end.argument == 0) << end;
    });
    const double end = now() + seconds();
    uint64_t changes = 0, wrong = 0;
    while (now() < end) {
        const uint64_t before = writes;
        ASSERT_EQ(mprotect(page, kPage, PROT_READ), 0);
        const uint64_t seen = *reinterpret_cast<volatile uint64_t*>(page);
        usleep(200);
        wrong += *reinterpret_cast<volatile uint64_t*>(page) != seen;
        ASSERT_EQ(mprotect(page, kPage, PROT_READ | PROT_WRITE), 0);
        for (int i = 0; i < 1000 && writes == before; i++) {
            usleep(100);
        }
        changes++;
    }
    stop = true;
    writer.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_GT(changes, 10U);
    EXPECT_GT(writes, 10U);
}

TEST(Fire, UnmappedMemoryIsGone) {
    // A page that was unmapped and given to somebody else is never written again: here, the
    // pages of a memfd, which another mapping watches.
    const int fd = memfd_create("fire", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, 16 * kPage), 0);
    auto* watch = static_cast<volatile uint64_t*>(
        mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char* window = map(kPage);
    std::atomic<bool> stop = false;
    std::thread writer([&] {
        guest::enter(
            [&] {
                this_cpu().handler = [](guest::TrapFrame& frame, guest::Cpu&) {
                    return frame.vector == 14;
                };
                uint64_t n = 0;
                while (!stop.load(std::memory_order_relaxed)) {
                    *reinterpret_cast<volatile uint64_t*>(window) = ++n;
                }
            },
            kWithTraps);
    });
    const double end = now() + seconds();
    uint64_t wrong = 0, changes = 0;
    for (size_t i = 0; now() < end; i = (i + 1) % 16) {
        ASSERT_NE(mmap(window, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                       static_cast<off_t>(i * kPage)),
                  MAP_FAILED);
        usleep(300);
        ASSERT_NE(mmap(window, kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  MAP_FAILED);
        const uint64_t seen = watch[i * kPage / 8];
        usleep(200);
        wrong += watch[i * kPage / 8] != seen;
        changes++;
    }
    stop = true;
    writer.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_GT(changes, 10U);
    close(fd);
}

TEST(Fire, HugePagesSplitAndCollapse) {
    std::ofstream("/sys/kernel/mm/transparent_hugepage/enabled") << "madvise";
    std::ofstream("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs") << "10";
    Fire fire;
    constexpr size_t kHuge = 2 << 20;
    char* raw = map(2 * kHuge);
    fire.area =
        reinterpret_cast<char*>((reinterpret_cast<uint64_t>(raw) + kHuge - 1) & ~(kHuge - 1));
    if (madvise(fire.area, kHuge, MADV_HUGEPAGE) != 0) {
        GTEST_SKIP() << "no transparent huge pages";
    }
    unsigned n = 0;
    fire.run_on_area([&] {
        // A right on the last page splits; taking it back and MADV_COLLAPSE make it whole.
        char* last = fire.area + kHuge - kPage;
        mprotect(last, kPage, ++n & 1 ? PROT_READ : PROT_READ | PROT_WRITE);
        madvise(fire.area, kHuge, 25 /* MADV_COLLAPSE */);
    });
    munmap(raw, 2 * kHuge);
}

TEST(Fire, Ksm) {
    std::ofstream run("/sys/kernel/mm/ksm/run");
    if (!run) {
        GTEST_SKIP() << "no KSM";
    }
    std::ofstream("/sys/kernel/mm/ksm/sleep_millisecs") << "5";
    std::ofstream("/sys/kernel/mm/ksm/pages_to_scan") << "500";
    run << "1" << std::flush;
    Fire fire;
    fire.run([&] { madvise(fire.area, fire.size(), MADV_MERGEABLE); });
    std::ofstream("/sys/kernel/mm/ksm/run") << "2";
}

TEST(Fire, Compaction) {
    Fire fire;
    fire.run([] {
        std::ofstream("/proc/sys/vm/compact_memory") << "1";
        usleep(5000);
    });
}

TEST(Fire, Pageout) {
    support::ZramSwap swap;
    if (!swap.ok()) {
        GTEST_SKIP() << "no zram to swap to";
    }
    Fire fire;
    fire.run([&] {
        support::page_out(fire.area, fire.size());
        usleep(2000);
    });
    EXPECT_GT(swap.pages_out(), Fire::kPages);
    std::printf("%llu pages written to swap\n", static_cast<unsigned long long>(swap.pages_out()));
    EXPECT_TRUE(swap.off());
}

TEST(Fire, FilePagesCleanedAndDropped) {
    char path[] = "/tmp/fire-XXXXXX";
    const int fd = mkstemp(path);
    unlink(path);
    Fire fire;
    ASSERT_EQ(ftruncate(fd, static_cast<off_t>(fire.size())), 0);
    fire.area =
        static_cast<char*>(mmap(nullptr, fire.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fire.run_on_area([&] {
        msync(fire.area, fire.size(), MS_SYNC);
        madvise(fire.area, fire.size(), MADV_DONTNEED);
    });
    munmap(fire.area, fire.size());
    close(fd);
}

TEST(Fire, SlotsChange) {
    // A slot that nobody uses is shown and hidden while threads run.
    Fire fire;
    uint32_t n = 0;
    fire.run([&] {
        uint32_t va = n++ & 1 ? DUNE_SLOT_NONE : 0x300000000000 >> DUNE_SLOT_SHIFT;
        dune_slots slots = {sizeof(slots), Machine::get().info().nr_slots - 1, 1, 0,
                            reinterpret_cast<uint64_t>(&va)};
        ASSERT_EQ(ioctl(Machine::get().fd(), DUNE_SET_SLOTS, &slots), 0);
    });
}

}  // namespace
