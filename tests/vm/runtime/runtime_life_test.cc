// SPDX-License-Identifier: MIT
// Ordinary life in Dune mode: what a program expects of libc and Linux, and of libdune's view of
// files.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <clocale>
#include <cmath>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "libdune/elf.h"
#include "libdune/procmap.h"
#include "support.h"

namespace {

using namespace dune::test;

using RuntimeLife = RuntimeTest;

TEST_F(RuntimeLife, LibrariesAreLoaded) {
    void* const library = dlopen("libm.so.6", RTLD_NOW);
    if (library == nullptr)
        GTEST_SKIP() << "a static program: " << dlerror();
    const auto cosine = reinterpret_cast<double (*)(double)>(dlsym(library, "cos"));
    ASSERT_NE(cosine, nullptr);
    EXPECT_EQ(cosine(0), 1);
    EXPECT_EQ(dlsym(library, "no_such_function"), nullptr);
    EXPECT_EQ(dlclose(library), 0);
}

std::atomic<int> constructed, destroyed;

struct Counter {
    int value = ++constructed;
    ~Counter() { ++destroyed; }
};
thread_local Counter counter;

TEST_F(RuntimeLife, ThreadLocalObjects) {
    constexpr int kThreads = 8;
    const int before = constructed;
    std::vector<std::thread> threads;
    std::atomic<int> sum{0};
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([&] {
            EXPECT_EQ(dune_enter(), 0);
            sum += counter.value - before;
            errno = ENOTTY;
            EXPECT_EQ(close(-1), -1);
            EXPECT_EQ(errno, EBADF);
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(sum, kThreads * (kThreads + 1) / 2);
    EXPECT_EQ(destroyed, kThreads);
}

TEST_F(RuntimeLife, Sockets) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(listener, 1), 0);
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    std::thread client([address] {
        EXPECT_EQ(dune_enter(), 0);
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
        EXPECT_EQ(send(fd, "from ring 0", 11, 0), 11);
        close(fd);
    });
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    ASSERT_GE(fd, 0);
    char buffer[32] = {};
    EXPECT_EQ(recv(fd, buffer, sizeof(buffer), MSG_WAITALL), 11);
    EXPECT_STREQ(buffer, "from ring 0");
    client.join();
    close(fd);
    close(listener);
}

TEST_F(RuntimeLife, TimersAndEvents) {
    const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    const int events = epoll_create1(EPOLL_CLOEXEC);
    const itimerspec soon = {.it_interval = {}, .it_value = {0, 5'000'000}};
    ASSERT_EQ(timerfd_settime(timer, 0, &soon, nullptr), 0);
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = timer;
    ASSERT_EQ(epoll_ctl(events, EPOLL_CTL_ADD, timer, &event), 0);
    epoll_event seen = {};
    EXPECT_EQ(epoll_wait(events, &seen, 1, 10'000), 1);
    EXPECT_EQ(seen.data.fd, timer);
    std::uint64_t expirations = 0;
    EXPECT_EQ(read(timer, &expirations, sizeof(expirations)), 8);
    EXPECT_EQ(expirations, 1U);
    pollfd nothing = {timer, POLLIN, 0};
    EXPECT_EQ(poll(&nothing, 1, 1), 0);
    close(events);
    close(timer);
}

// A profiler: SIGPROF by the time that the process runs, with where it was.
std::atomic<int> profiled;
std::atomic<std::uintptr_t> profiled_at;

TEST_F(RuntimeLife, Profiling) {
    profiled = 0;
    dune_register_signal_handler(SIGPROF, [](dune_tf* tf) {
        profiled_at = tf->rip;
        ++profiled;
    });
    const itimerval often = {{0, 4'000}, {0, 4'000}};
    ASSERT_EQ(setitimer(ITIMER_PROF, &often, nullptr), 0);
    volatile double sum = 0;
    for (long i = 0; profiled < 3 && i < 2'000'000'000; ++i)
        sum = sum + std::sqrt(static_cast<double>(i));
    const itimerval off = {};
    setitimer(ITIMER_PROF, &off, nullptr);
    EXPECT_GE(profiled, 3);
    EXPECT_NE(profiled_at, 0U);
    // Asleep, no time of the process' goes by.
    ASSERT_EQ(setitimer(ITIMER_PROF, &often, nullptr), 0);
    profiled = 0;
    usleep(100'000);
    setitimer(ITIMER_PROF, &off, nullptr);
    EXPECT_LT(profiled, 10);
    signal(SIGPROF, SIG_DFL);
}

TEST_F(RuntimeLife, SharedMemoryAndSemaphores) {
    void* const memory =
        mmap(nullptr, PGSIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* const semaphore = static_cast<sem_t*>(memory);
    auto* const value = reinterpret_cast<volatile int*>(semaphore + 1);
    ASSERT_EQ(sem_init(semaphore, 1, 0), 0);
    const pid_t child = fork();
    if (child == 0) {
        const bool entered = dune_enter() == 0;
        *value = entered ? 5 : 6;
        sem_post(semaphore);
        _exit(0);
    }
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
    EXPECT_EQ(*value, 5);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
    munmap(memory, PGSIZE);
}

// ---- the process' map ---------------------------------------------------------------------------

struct {
    unsigned long last_end, looked_for;
    int areas, types, found_type;
    bool ascending, writable;
} seen;

void look(const dune_procmap_entry* entry) {
    seen.ascending &= entry->begin >= seen.last_end && entry->end > entry->begin;
    seen.last_end = entry->end;
    ++seen.areas;
    seen.types |= 1 << entry->type;
    if (seen.looked_for >= entry->begin && seen.looked_for < entry->end) {
        seen.found_type = entry->type;
        seen.writable = entry->w;
    }
}

int type_of(const void* address) {
    seen = {};
    seen.ascending = true;
    seen.found_type = -1;
    seen.looked_for = reinterpret_cast<unsigned long>(address);
    EXPECT_EQ(dune_procmap_iterate(look), 0);
    EXPECT_TRUE(seen.ascending);
    return seen.found_type;
}

TEST_F(RuntimeLife, TheProcessMap) {
    int on_stack = 0;
    const Pages pages(3, PROT_READ);
    static int variable = 1;
    EXPECT_EQ(type_of(&on_stack), PROCMAP_TYPE_STACK);
    EXPECT_TRUE(seen.writable);
    EXPECT_EQ(type_of(pages.at()), PROCMAP_TYPE_ANONYMOUS);
    EXPECT_FALSE(seen.writable);
    EXPECT_EQ(type_of(&variable), PROCMAP_TYPE_FILE);
    EXPECT_EQ(type_of(reinterpret_cast<const void*>(&look)), PROCMAP_TYPE_FILE);
    EXPECT_FALSE(seen.writable);
    for (const int type : {PROCMAP_TYPE_VDSO, PROCMAP_TYPE_VVAR, PROCMAP_TYPE_HEAP})
        EXPECT_NE(seen.types & 1 << type, 0) << type;
    EXPECT_EQ(type_of(nullptr), -1);
}

// ---- ELF ----------------------------------------------------------------------------------------

constexpr off_t kBias = 0x359000000000;

struct Loaded {
    int segments = 0;
    Elf64_Addr first_executable = 0;
    Elf64_Xword executable_size = 0;
};

int load_segment(dune_elf* elf, Elf64_Phdr* header) {
    auto* const loaded = static_cast<Loaded*>(elf->priv);
    if (header->p_type != PT_LOAD)
        return 0;
    ++loaded->segments;
    if ((header->p_flags & PF_X) != 0) {
        loaded->first_executable = header->p_vaddr;
        loaded->executable_size = header->p_filesz;
    }
    return dune_elf_load_ph(elf, header, kBias);
}

// The program itself, once more and elsewhere: its code is the same there, and runs.
int answer(int question) {
    return question * 2 + 1;
}

TEST_F(RuntimeLife, ElfSegmentsAreLoaded) {
    dune_elf elf;
    ASSERT_EQ(dune_elf_open(&elf, "/proc/self/exe"), 0);
    Loaded loaded;
    elf.priv = &loaded;
    ASSERT_EQ(dune_elf_iter_ph(&elf, load_segment), 0);
    EXPECT_GE(loaded.segments, 2);
    ASSERT_NE(loaded.executable_size, 0U);

    // Where this program's own code is, from the function that is in both.
    seen = {};
    const auto own = reinterpret_cast<std::uintptr_t>(&answer);
    static unsigned long own_begin, own_offset;
    static std::uintptr_t wanted;
    wanted = own;
    dune_procmap_iterate([](const dune_procmap_entry* entry) {
        if (wanted >= entry->begin && wanted < entry->end) {
            own_begin = entry->begin;
            own_offset = entry->offset;
        }
    });
    const unsigned long offset = own - own_begin + own_offset;
    std::uintptr_t copy = 0;
    for (int i = 0; i < elf.hdr.e_phnum; ++i) {
        const Elf64_Phdr& header = elf.phdr[i];
        if (header.p_type == PT_LOAD && offset >= header.p_offset &&
            offset < header.p_offset + header.p_filesz)
            copy = kBias + header.p_vaddr + offset - header.p_offset;
    }
    ASSERT_NE(copy, 0U);
    EXPECT_EQ(
        std::memcmp(reinterpret_cast<const void*>(copy), reinterpret_cast<const void*>(own), 8), 0);
    EXPECT_EQ(reinterpret_cast<int (*)(int)>(copy)(20), 41);
    EXPECT_EQ(dune_elf_close(&elf), 0);
    EXPECT_EQ(dune_elf_close(&elf), -EINVAL);
}

TEST_F(RuntimeLife, DamagedElfFilesAreRefused) {
    dune_elf elf;
    EXPECT_EQ(dune_elf_open(&elf, "/nonexistent"), -ENOENT);
    EXPECT_EQ(dune_elf_open(&elf, "/etc/passwd"), -ENOEXEC);
    EXPECT_EQ(dune_elf_open(&elf, "/"), -ENOEXEC);
    std::vector<unsigned char> header(64, 0);
    std::memcpy(header.data(), ELFMAG, SELFMAG);
    EXPECT_EQ(dune_elf_open_mem(&elf, header.data(), static_cast<int>(header.size())), -ENOEXEC);
    EXPECT_EQ(dune_elf_open_mem(&elf, header.data(), 10), -ENOEXEC);
}

}  // namespace
