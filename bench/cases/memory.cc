// SPDX-License-Identifier: MIT
// First touch of memory, and walks that the TLB does not hold.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <numeric>
#include <vector>

#include "arena.h"
#include "cases.h"
#include "libdune/dune.h"

namespace bench {
namespace {

// ---- first touch --------------------------------------------------------------------------------

void touch_pages(Measure& measure, volatile char* memory, std::size_t step) {
    measure.sample([=](unsigned i) { memory[i * step] = 1; });
}

char* small_pages(Measure& measure, std::size_t size, int flags, int fd = -1) {
    char* const memory = arena(measure, size, 0, flags, fd);
    madvise(memory, size, MADV_NOHUGEPAGE);
    return memory;
}

void touch_anonymous(Measure& measure) {
    char* const memory = small_pages(measure, measure.calls() * kPage, MAP_PRIVATE | MAP_ANONYMOUS);
    touch_pages(measure, memory, kPage);
}

void touch_anonymous_dune(Measure& measure) {
    enter_dune(measure);
    touch_anonymous(measure);
}

/** Linux has the pages already: all that is missing is the nested page table's entry. */
void touch_present_dune(Measure& measure) {
    const std::size_t size = measure.calls() * kPage;
    char* const memory = small_pages(measure, size, MAP_PRIVATE | MAP_ANONYMOUS);
    std::memset(memory, 1, size);
    enter_dune(measure);
    touch_pages(measure, memory, kPage);
}

/** Pages of a file in the page cache, shared. */
void touch_file(Measure& measure) {
    const std::size_t size = measure.calls() * kPage;
    const int file = memfd_create("dune-bench", MFD_CLOEXEC);
    const std::vector<char> content(size, 1);
    if (file < 0 || write(file, content.data(), size) != static_cast<ssize_t>(size))
        measure.fail("cannot make a file of %zu KiB: %s", size >> 10, std::strerror(errno));
    char* const memory = small_pages(measure, size, MAP_SHARED, file);
    madvise(memory, size, MADV_RANDOM);
    touch_pages(measure, memory, kPage);
}

void touch_file_dune(Measure& measure) {
    enter_dune(measure);
    touch_file(measure);
}

/** Transparent huge pages for those who ask: the machine's kernel has them off. */
void allow_big_pages(Measure& measure) {
    constexpr const char* kSwitch = "/sys/kernel/mm/transparent_hugepage/enabled";
    char now[64] = "";
    if (const int file = open(kSwitch, O_RDWR | O_CLOEXEC); file >= 0) {
        const ssize_t size = read(file, now, sizeof(now) - 1);
        if (size > 0 && std::strstr(now, "[never]") != nullptr && write(file, "madvise", 7) == 7)
            std::strcpy(now, "[madvise]");
        close(file);
    }
    if (now[0] == '\0' || std::strstr(now, "[never]") != nullptr)
        measure.fail("no transparent huge pages: write 'madvise' to %s", kSwitch);
}

char* big_pages(Measure& measure, std::size_t size) {
    allow_big_pages(measure);
    char* const memory = arena(measure, size);
    if (madvise(memory, size, MADV_HUGEPAGE) != 0)
        measure.fail("no transparent huge pages: %s", std::strerror(errno));
    return memory;
}

void touch_big(Measure& measure) {
    touch_pages(measure, big_pages(measure, measure.calls() * kBigPage), kBigPage);
}

void touch_big_dune(Measure& measure) {
    enter_dune(measure);
    touch_big(measure);
}

/** All 512 pages of each 2 MiB, in memory that Linux has in large pages: exits per 2 MiB. */
void touch_all_of_big_dune(Measure& measure) {
    enter_dune(measure);
    volatile char* const memory = big_pages(measure, measure.calls() * kBigPage);
    measure.sample([=](unsigned i) {
        for (std::size_t at = 0; at < kBigPage; at += kPage)
            memory[i * kBigPage + at] = 1;
    });
}

// ---- page walks ---------------------------------------------------------------------------------

constexpr unsigned kSteps = 1000;

/** "VmPTE:  123 kB" of /proc/self/status. */
double linux_table_bytes() {
    double kib = 0;
    char line[256];
    FILE* const status = std::fopen("/proc/self/status", "re");
    while (status != nullptr && std::fgets(line, sizeof(line), status) != nullptr)
        if (std::sscanf(line, "VmPTE: %lf", &kib) == 1)
            break;
    if (status != nullptr)
        std::fclose(status);
    return kib * 1024;
}

void check_memory(Measure& measure, std::size_t size) {
    long kib = 0;
    char line[256];
    FILE* const info = std::fopen("/proc/meminfo", "re");
    while (info != nullptr && std::fgets(line, sizeof(line), info) != nullptr)
        if (std::sscanf(line, "MemAvailable: %ld", &kib) == 1)
            break;
    if (info != nullptr)
        std::fclose(info);
    const std::size_t wanted = size + size / 50 + (std::size_t{32} << 20);
    if (static_cast<std::size_t>(kib) << 10 < wanted)
        measure.fail("%zu MiB of free memory are needed, there are %ld", wanted >> 20, kib >> 10);
}

/** One pointer a 4 KiB page, in one random cycle through all of them (Sattolo's algorithm). */
void** link_pages(char* memory, std::size_t size) {
    std::vector<std::uint32_t> order(size / kPage);
    std::iota(order.begin(), order.end(), 0);
    Random random;
    for (auto i = static_cast<std::uint32_t>(order.size() - 1); i > 0; --i)
        std::swap(order[i], order[random.below(i)]);
    // Another cache line in each page, or all would fall into a few sets of the cache.
    const auto node = [=](std::uint32_t page) {
        return reinterpret_cast<void**>(memory + page * kPage + page * 64 % kPage);
    };
    for (std::size_t i = 0; i < order.size(); ++i)
        *node(order[i]) = node(order[i + 1 == order.size() ? 0 : i + 1]);
    return node(order[0]);
}

void chase(Measure& measure, void** first) {
    void** at = first;
    measure.divide_by(kSteps);
    measure.sample([&at](unsigned) {
        void** here = at;
        for (unsigned i = 0; i < kSteps; ++i)
            here = static_cast<void**>(*static_cast<void* volatile*>(here));
        at = here;
    });
}

void walk(Measure& measure, bool dune, bool big) {
    const std::size_t size = static_cast<std::size_t>(measure.argument()) << 20;
    check_memory(measure, size);
    const double before = linux_table_bytes();
    if (dune)
        enter_dune(measure);
    char* const memory =
        big ? big_pages(measure, size) : small_pages(measure, size, MAP_PRIVATE | MAP_ANONYMOUS);
    void** const first = link_pages(memory, size);
    // Once around, so that Linux' and the nested page tables are complete.
    void** at = first;
    do
        at = static_cast<void**>(*static_cast<void* volatile*>(at));
    while (at != first);
    chase(measure, at);
    measure.extra("linux_table_bytes", linux_table_bytes() - before);
    if (dune)
        measure.extra("nested_table_bytes", measure.nested_table_bytes());
}

void walk_small(Measure& measure) {
    walk(measure, false, false);
}
void walk_small_dune(Measure& measure) {
    walk(measure, true, false);
}
void walk_big(Measure& measure) {
    walk(measure, false, true);
}
void walk_big_dune(Measure& measure) {
    walk(measure, true, true);
}

}  // namespace

void add_memory_cases(Cases& cases) {
    cases.insert(cases.end(),
                 {
                     {"page_fault/linux/anonymous_4k", Needs::Linux, 512, 0, touch_anonymous},
                     {"page_fault/dune/anonymous_4k", Needs::Dune, 512, 0, touch_anonymous_dune},
                     {"page_fault/dune/present_4k", Needs::Dune, 512, 0, touch_present_dune},
                     {"page_fault/linux/file_4k", Needs::Linux, 512, 0, touch_file},
                     {"page_fault/dune/file_4k", Needs::Dune, 512, 0, touch_file_dune},
                     {"page_fault/linux/anonymous_2m", Needs::Linux, 16, 0, touch_big},
                     {"page_fault/dune/anonymous_2m", Needs::Dune, 16, 0, touch_big_dune},
                     {"page_fault/dune/all_of_2m", Needs::Dune, 16, 0, touch_all_of_big_dune},
                 });
    for (const long mib : {8, 64, 256, 1024}) {
        const std::string size = std::to_string(mib) + "m";
        cases.push_back({"page_walk/linux/4k/" + size, Needs::Linux, 64, mib, walk_small});
        cases.push_back({"page_walk/dune/4k/" + size, Needs::Dune, 64, mib, walk_small_dune});
        cases.push_back({"page_walk/linux/2m/" + size, Needs::Linux, 64, mib, walk_big});
        cases.push_back({"page_walk/dune/2m/" + size, Needs::Dune, 64, mib, walk_big_dune});
    }
}

}  // namespace bench
