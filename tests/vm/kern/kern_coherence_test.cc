// SPDX-License-Identifier: MIT
//
// Coherence under fire, everything at once and for long: threads in the guest use memory that two
// threads in host mode take away, give other rights, move, fork, swap, merge and compact. Checked
// all the time: the guest reads what it wrote last, the host reads the same, a child of fork()
// keeps what it got, and no access arrives through a mapping or a right that is gone.
//
//   DUNE_FIRE_SECONDS=n   (default 60)
//
// One kind of attack at a time: kern_fire_test.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "guest.h"
#include "support.h"
#include "traps.h"

namespace {

using guest::End;
using guest::map;
using support::kPage;
using support::now;

constexpr size_t kCounters = 2;       // threads that count
constexpr size_t kPages = 48;         // that each counts in
constexpr size_t kEqual = 16;         // pages of each that KSM may merge
constexpr uint64_t kSame = 0x5a5a5a;  // what these contain
constexpr size_t kFilePages = 16;

double seconds() {
    const char* value = std::getenv("DUNE_FIRE_SECONDS");
    return value ? std::atof(value) : 60;
}

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t below(uint64_t n) {
        state_ = state_ * 6364136223846793005 + 1442695040888963407;
        return (state_ >> 33) % n;
    }

  private:
    uint64_t state_;
};

volatile uint64_t& word(char* p) {
    return *reinterpret_cast<volatile uint64_t*>(p);
}

struct Attack {
    const char* name;
    void (*run)(Random&);
    uint64_t times = 0;
};

// --- what the guest does ---

char* counted;             // kCounters * kPages pages, a number in each
char* equal;               // kCounters * kEqual pages
char *plain, *read_only;   // a page each, written in every turn of the writer
char *hidden, *dropped;    // a page each, one that is read, one that is written
char *window, *file_view;  // a page that is a file's from time to time, and that file
char* aside;               // where a page goes for a moment
int file;

std::atomic<bool> stop;
std::atomic<uint64_t> ready, retried;
std::array<std::atomic<uint64_t>, kCounters> rounds;  // the last that each counter has finished
std::atomic<uint64_t> writes, reads;                  // the last turn of the writer that ended

// What went wrong, by kind.
enum Wrong {
    kLost,
    kHostSees,
    kChildSees,
    kEqualLost,
    kWroteReadOnly,
    kReadHidden,
    kWroteOld,
    kNotDropped,
    kDied,
    kWrongs
};
constexpr const char* kWrongNames[kWrongs] = {
    "the guest does not read what it wrote",
    "the host does not read what the guest wrote",
    "memory of a child changed",
    "a merged page changed",
    "a write arrived after mprotect(PROT_READ)",
    "a read arrived after mprotect(PROT_NONE)",
    "a write arrived in a page that was unmapped",
    "a write did not arrive after MADV_DONTNEED",
    "a guest thread died",
};
std::array<std::atomic<uint64_t>, kWrongs> wrong;

// A right that is gone comes back: what faults is tried again.
bool try_again(guest::TrapFrame& frame, guest::Cpu&) {
    if (frame.vector != 14 || !(frame.error & DUNE_PF_FROM_HOST)) {
        return false;
    }
    retried++;
    return true;
}

void count_pages(size_t thread) {
    char* mine = counted + thread * kPages * kPage;
    char* same = equal + thread * kEqual * kPage;
    for (uint64_t round = 1; !stop.load(std::memory_order_relaxed); round++) {
        for (size_t i = 0; i < kPages; i++) {
            volatile uint64_t& number = word(mine + i * kPage + 8 * i);
            if (number != round - 1) {
                wrong[kLost]++;
            }
            number = round;
        }
        rounds[thread].store(round, std::memory_order_release);
        volatile uint64_t& number = word(same + round % kEqual * kPage);
        if (number != kSame) {
            wrong[kEqualLost]++;
        }
        // Once in a while, so that there is something to merge.
        if (round % 4096 < kEqual) {
            number = round;
            if (number != round) {
                wrong[kEqualLost]++;
            }
            number = kSame;
        }
    }
}

void write_and_read() {
    for (uint64_t n = 1; !stop.load(std::memory_order_relaxed); n++) {
        word(plain) = n;
        word(read_only) = n;
        word(window) = n;
        word(dropped) = n;
        writes.store(n, std::memory_order_release);
        const uint64_t value = word(hidden);
        static_cast<void>(value);
        reads.store(n, std::memory_order_release);
    }
}

template <typename F>
std::thread in_guest(F&& function) {
    return std::thread([function] {
        guest::Options options;
        options.traps = true;
        const End end = guest::enter(
            [&] {
                guest::this_cpu().handler = try_again;
                ready++;
                function();
            },
            options);
        if (!end.left() || end.argument != 0) {
            wrong[kDied]++;
            std::fprintf(stderr, "guest: exit %u %s argument %llx at %llx\n", end.exit,
                         end.text.c_str(), static_cast<unsigned long long>(end.argument),
                         static_cast<unsigned long long>(guest::Vcpu::get().page().fault_address));
        }
    });
}

// --- what the host does to it: nothing here may allocate or map memory, for there are holes ---

// Waits until a number that the guest publishes has grown by so much, or does not grow at all.
bool grows(const std::atomic<uint64_t>& number, uint64_t by) {
    const uint64_t from = number;
    for (int i = 0; i < 5000; i++) {
        if (number >= from + by) {
            return true;
        }
        usleep(200);
    }
    return false;
}

char* random_page(Random& random) {
    return counted + random.below(kCounters * kPages) * kPage;
}

std::mutex whole;  // held while some of `counted` is away, and while a child gets it

void fork_a_child(Random&) {
    whole.lock();
    const pid_t pid = support::fork_or_end();
    if (pid != 0) {
        whole.unlock();
    }
    if (pid == 0) {
        uint64_t before[kCounters * kPages];
        for (size_t i = 0; i < std::size(before); i++) {
            before[i] = word(counted + i * kPage + 8 * (i % kPages));
        }
        usleep(2000);
        for (size_t i = 0; i < std::size(before); i++) {
            if (word(counted + i * kPage + 8 * (i % kPages)) != before[i]) {
                _exit(1);
            }
        }
        std::memset(counted, 0xee, kCounters * kPages * kPage);
        std::memset(equal, 0xee, kCounters * kEqual * kPage);
        _exit(0);
    }
    if (support::wait_status(pid) != 0) {
        wrong[kChildSees]++;
    }
}

void swap_out(Random& random) {
    support::page_out(counted + random.below(kCounters) * kPages * kPage, kPages * kPage);
    support::page_out(plain, kPage);
}

void compact(Random&) {
    support::write_file("/proc/sys/vm/compact_memory", "1");
}

void merge(Random& random) {
    madvise(equal, kCounters * kEqual * kPage,
            random.below(8) == 0 ? MADV_UNMERGEABLE : MADV_MERGEABLE);
    usleep(5000);
}

// The host's view of the counters is the guest's. By the thread that takes them away.
void compare(Random&) {
    for (size_t i = 0; i < kCounters * kPages; i++) {
        const uint64_t least = rounds[i / kPages].load(std::memory_order_acquire);
        const uint64_t seen = word(counted + i * kPage + 8 * (i % kPages));
        const uint64_t most = rounds[i / kPages].load(std::memory_order_acquire) + 1;
        if (seen < least || seen > most) {
            wrong[kHostSees]++;
        }
    }
}

void protect_counted(Random& random) {
    const std::lock_guard guard(whole);
    char* page = random_page(random);
    const int right = random.below(2) ? PROT_READ : PROT_NONE;
    mprotect(page, kPage, right);
    sched_yield();
    mprotect(page, kPage, PROT_READ | PROT_WRITE);
}

void move_away_and_back(Random& random) {
    const std::lock_guard guard(whole);
    char* page = random_page(random);
    if (mremap(page, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, aside) != aside ||
        mremap(aside, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, page) != page) {
        wrong[kLost]++;
    }
}

void make_read_only(Random&) {
    mprotect(read_only, kPage, PROT_READ);
    const uint64_t seen = word(read_only);
    usleep(300);
    if (word(read_only) != seen) {
        wrong[kWroteReadOnly]++;
    }
    mprotect(read_only, kPage, PROT_READ | PROT_WRITE);
    grows(writes, 1);
}

void hide(Random&) {
    mprotect(hidden, kPage, PROT_NONE);
    // One may have been made and not been counted yet.
    const uint64_t seen = reads;
    usleep(300);
    if (reads > seen + 1) {
        wrong[kReadHidden]++;
    }
    mprotect(hidden, kPage, PROT_READ | PROT_WRITE);
    grows(reads, 1);
}

void expect_there(const void* mapped) {
    if (mapped != window) {
        wrong[kLost]++;
    }
}

void show_the_file(Random& random) {
    const size_t page = random.below(kFilePages);
    expect_there(mmap(window, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
                      static_cast<off_t>(page * kPage)));
    grows(writes, 1);
    if (random.below(2)) {
        munmap(window, kPage);
    } else {
        expect_there(mmap(window, kPage, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    }
    const uint64_t seen = word(file_view + page * kPage);
    usleep(300);
    if (word(file_view + page * kPage) != seen) {
        wrong[kWroteOld]++;
    }
    expect_there(mmap(window, kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

void drop(Random&) {
    madvise(dropped, kPage, MADV_DONTNEED);
    const uint64_t before = writes;
    if (grows(writes, 2) && word(dropped) <= before) {
        wrong[kNotDropped]++;
    }
}

Attack attacks_of_the_system[] = {
    {"fork", fork_a_child}, {"swap", swap_out}, {"compaction", compact}, {"KSM", merge}};
Attack attacks_of_memory[] = {{"protect", protect_counted},  {"mremap", move_away_and_back},
                              {"read-only", make_read_only}, {"hide", hide},
                              {"file", show_the_file},       {"drop", drop},
                              {"compare", compare}};

void attack_for(double duration, uint64_t seed, Attack* first, size_t count) {
    Random random(seed);
    const double end = now() + duration;
    while (now() < end) {
        Attack& attack = first[random.below(count)];
        attack.run(random);
        attack.times++;
        if (random.below(8) == 0) {
            usleep(1000);
        }
    }
}

void make_memory() {
    char** pages[] = {&plain, &read_only, &hidden, &dropped, &window, &aside};
    counted = map(kCounters * kPages * kPage);
    equal = map(kCounters * kEqual * kPage);
    for (char* area : {counted, equal}) {
        madvise(area, kCounters * (area == counted ? kPages : kEqual) * kPage, MADV_NOHUGEPAGE);
    }
    for (size_t i = 0; i < kCounters * kEqual; i++) {
        word(equal + i * kPage) = kSame;
    }
    for (char** page : pages) {
        *page = map(kPage);
    }
    file = memfd_create("coherence", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(file, kFilePages * kPage), 0);
    file_view = static_cast<char*>(
        mmap(nullptr, kFilePages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    ASSERT_NE(file_view, MAP_FAILED);
}

bool start_ksm() {
    return support::write_file("/sys/kernel/mm/ksm/sleep_millisecs", "10") &&
           support::write_file("/sys/kernel/mm/ksm/pages_to_scan", "200") &&
           support::write_file("/sys/kernel/mm/ksm/run", "1");
}

void tell(const Attack* first, size_t count) {
    for (size_t i = 0; i < count; i++) {
        std::printf("%s %llu, ", first[i].name, static_cast<unsigned long long>(first[i].times));
        EXPECT_GT(first[i].times, 0U) << first[i].name;
    }
}

TEST(Coherence, EverythingAtOnce) {
    support::ZramSwap swap;
    ASSERT_TRUE(swap.ok()) << "no zram to swap to";
    ASSERT_TRUE(start_ksm());
    make_memory();
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kCounters; t++) {
        threads.push_back(in_guest([t] { count_pages(t); }));
    }
    threads.push_back(in_guest(write_and_read));
    while (ready < threads.size() && wrong[kDied] == 0) {
        usleep(1000);
    }

    const double duration = seconds();
    std::thread other(attack_for, duration, 1, attacks_of_memory, std::size(attacks_of_memory));
    attack_for(duration, 2, attacks_of_the_system, std::size(attacks_of_the_system));
    other.join();
    const std::string merged = support::read_file("/sys/kernel/mm/ksm/pages_sharing");
    stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    support::write_file("/sys/kernel/mm/ksm/run", "2");

    for (int i = 0; i < kWrongs; i++) {
        EXPECT_EQ(wrong[i], 0U) << kWrongNames[i];
    }
    for (const auto& done : rounds) {
        EXPECT_GT(done, 100U);
    }
    EXPECT_GT(writes, 100U);
    EXPECT_GT(swap.pages_out(), 0U);
    EXPECT_GT(retried, 0U);
    tell(attacks_of_the_system, std::size(attacks_of_the_system));
    tell(attacks_of_memory, std::size(attacks_of_memory));
    std::printf("%.0f s, %llu pages swapped, %s pages merged at the end, %llu faults tried again\n",
                duration, static_cast<unsigned long long>(swap.pages_out()),
                merged.substr(0, merged.find('\n')).c_str(),
                static_cast<unsigned long long>(retried.load()));
    EXPECT_TRUE(swap.off());
}

}  // namespace
