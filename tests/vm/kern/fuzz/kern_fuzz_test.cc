// SPDX-License-Identifier: MIT
//
// Throws random ioctls, vCPU states, page tables and instructions at dune.ko. The host must
// survive with a clean log, and each case must end in a defined way. Cases depend on seed and
// number alone:
//
//   DUNE_FUZZ_CASES=n   of each kind (default 22,500, of page tables, which take ten times as long,
//   10,000) DUNE_FUZZ_SEED=n    other cases DUNE_FUZZ_FIRST=n   begin with this one, to see it
//   again

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "box.h"

namespace {

using fuzz::Box;
using fuzz::Outcome;
using fuzz::Random;

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 0) : otherwise;
}

// Shared with the children.
struct Progress {
    volatile uint64_t current;
    volatile uint64_t outcomes[fuzz::kOutcomes];
};

constexpr uint64_t kBatch = 500;  // cases a child
constexpr int kBatchSeconds = 60;

// 0 when the child has ended in time, by itself.
int wait_for(pid_t pid) {
    int status = 0;
    for (int i = 0; i < kBatchSeconds * 100; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        usleep(10'000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

using Case = Outcome (*)(Box&, Random&);

void run_batch(Case one, uint64_t seed, uint64_t first, uint64_t end, Progress& progress) {
    Box box;
    for (uint64_t i = first; i < end; i++) {
        progress.current = i;
        Random random(seed, i);
        box.reset();
        const Outcome outcome = one(box, random);
        progress.outcomes[outcome] = progress.outcomes[outcome] + 1;
    }
    // The vCPU is as good as new.
    box.reset();
    std::memcpy(box.at(Box::kCode), "\xb8\x00\x00\x55\x44\x0f\x01\xc1", 8);  // LEAVE
    _exit(box.run() == fuzz::kLeft ? 0 : 3);
}

void run_cases(Case one, uint64_t by_default = 22'500) {
    const uint64_t cases = setting("DUNE_FUZZ_CASES", by_default);
    const uint64_t seed = setting("DUNE_FUZZ_SEED", 1);
    auto* progress = static_cast<Progress*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    uint64_t next = setting("DUNE_FUZZ_FIRST", 0);
    const uint64_t end = next + cases;
    while (next < end) {
        const uint64_t batch_end = std::min(next + kBatch, end);
        const pid_t pid = fork();
        if (pid == 0) {
            run_batch(one, seed, next, batch_end, *progress);
        }
        const int status = wait_for(pid);
        next = batch_end;
        if (status != 0) {
            ADD_FAILURE() << "seed " << seed << " case " << progress->current
                          << (status < 0 ? " hangs" : " ends with status ") << std::hex << status;
            next = progress->current + 1;
        }
    }
    std::string text;
    for (int i = 0; i < fuzz::kOutcomes; i++) {
        text += std::string(i ? ", " : "") + fuzz::outcome_name(i) + " " +
                std::to_string(progress->outcomes[i]);
    }
    std::printf("%llu cases: %s\n", static_cast<unsigned long long>(cases), text.c_str());
    munmap(progress, 4096);
}

// --- ioctls ---

// Something that may look like an argument, anywhere.
uint64_t random_argument(Random& random) {
    static uint64_t buffer[512];
    for (uint64_t& word : buffer) {
        word = random.one_in(3) ? random.nasty() : 0;
    }
    static const uint32_t kSizes[] = {sizeof(dune_info),
                                      sizeof(dune_vcpu_create),
                                      sizeof(dune_slots),
                                      sizeof(dune_stats),
                                      0,
                                      8,
                                      4096};
    if (!random.one_in(4)) {
        auto* words = reinterpret_cast<uint32_t*>(buffer);
        words[0] = kSizes[random.below(std::size(kSizes))];
        words[1] = static_cast<uint32_t>(random.one_in(2) ? random.below(1030) : random.nasty());
        words[2] = static_cast<uint32_t>(random.one_in(2) ? random.below(64) : random.nasty());
        words[3] = random.one_in(8) ? static_cast<uint32_t>(random.nasty()) : 0;
        buffer[2] = random.one_in(2) ? reinterpret_cast<uint64_t>(buffer + 16) : random.nasty();
        for (int i = 32; i < 300; i++) {
            words[i] = static_cast<uint32_t>(random.one_in(2) ? random.below(1 << 17) : ~0U);
        }
    }
    return random.one_in(8) ? random.nasty() : reinterpret_cast<uint64_t>(buffer);
}

Outcome random_ioctl(Box& box, Random& random) {
    static const unsigned long kCommands[] = {DUNE_GET_INFO,  DUNE_CREATE_VCPU, DUNE_SET_SLOTS,
                                              DUNE_GET_SLOTS, DUNE_GET_STATS,   DUNE_INTERRUPT,
                                              DUNE_RUN};
    for (int i = 0; i < 4; i++) {
        const unsigned long command = random.one_in(6)
                                          ? random.nasty()
                                          : kCommands[random.below(std::size(kCommands))] ^
                                                (random.one_in(16) ? 1UL << random.below(32) : 0);
        const int fd = random.one_in(2) ? box.device() : box.vcpu();
        const int result = ioctl(fd, command, random_argument(random));
        if (result > 2) {
            if (random.one_in(2)) {
                void* p =
                    mmap(nullptr, 4096 << random.below(2), static_cast<int>(random.below(8)),
                         random.one_in(4) ? MAP_PRIVATE : MAP_SHARED, result,
                         static_cast<off_t>(random.one_in(2) ? 0 : random.nasty() & ~0xfffULL));
                if (p != MAP_FAILED) {
                    munmap(p, 4096);
                }
            }
            close(result);
        }
    }
    // The box shows again what it did.
    uint32_t va_slot = Box::kBase >> DUNE_SLOT_SHIFT;
    dune_slots one = {sizeof(one), Box::kGpa >> DUNE_SLOT_SHIFT, 1, 0,
                      reinterpret_cast<uint64_t>(&va_slot)};
    ioctl(box.device(), DUNE_SET_SLOTS, &one);
    return fuzz::kLeft;
}

TEST(Fuzz, Ioctls) {
    run_cases(random_ioctl);
}

// --- what the page says ---

Outcome random_state(Box& box, Random& random) {
    dune_vcpu_page& page = box.page();
    auto* words = reinterpret_cast<uint64_t*>(&page);
    const uint64_t changes = 1 + random.below(6);
    for (uint64_t i = 0; i < changes; i++) {
        const uint64_t word = random.below(offsetof(dune_vcpu_page, death) / 8);
        switch (random.below(3)) {
            case 0:
                words[word] = random.nasty();
                break;
            case 1:
                words[word] ^= 1ULL << random.below(64);
                break;
            case 2:
                words[word] = random.next();
        }
    }
    if (random.one_in(2)) {
        page.set |= static_cast<uint32_t>(random.below(256));
    }
    if (random.one_in(2)) {
        page.cr0 = 0x80050033 ^ 1ULL << random.below(34);
        page.cr4 = 0x6a0 ^ 1ULL << random.below(34);
    }
    if (random.one_in(8)) {
        page.rflags = 2 | random.next();
    }
    const Outcome outcome = box.run();
    // Interrupts that it left pending are not the next one's.
    std::memset(page.pending, 0, sizeof(page.pending));
    return outcome;
}

TEST(Fuzz, PageState) {
    run_cases(random_state);
}

// --- page tables ---

uint64_t random_entry(Random& random) {
    switch (random.below(6)) {
        case 0:
            return random.next();
        case 1:  // beyond the slots
            return (random.next() & 0xfffffffff000) | 0x67;
        case 2:  // itself or another table, as table or leaf
            return Box::gpa(random.below(Box::kPages + 2)) | 0x67 | (random.one_in(2) ? 0x80 : 0);
        case 3:  // a large page somewhere
            return (random.below(1 << 19) << 21) | 0xe7;
        case 4:  // slot 0, which shows nothing
            return (random.below(1 << 18) << 12) | 0x67;
    }
    return random.nasty() | 1;
}

Outcome random_tables(Box& box, Random& random) {
    const uint64_t changes = 1 + random.below(8);
    for (uint64_t i = 0; i < changes; i++) {
        const uint64_t index =
            random.one_in(2) ? random.below(16) : (random.one_in(2) ? 64 : random.below(512));
        box.table(random.below(4))[index] = random_entry(random);
    }
    // Touches what they map: loads, stores and a jump.
    uint8_t* code = box.at(Box::kCode);
    for (int i = 0; i < 12; i++) {
        const uint64_t address = random.one_in(3)
                                     ? random.nasty()
                                     : Box::kBase + (random.below(16) << 12) +
                                           (random.one_in(4) ? random.next() & ~0ULL >> 18 : 0);
        *code++ = 0x48;  // mov $address, %rbx
        *code++ = 0xbb;
        std::memcpy(code, &address, 8);
        code += 8;
        switch (random.below(4)) {
            case 0:  // mov (%rbx), %rax
                std::memcpy(code, "\x48\x8b\x03", 3);
                break;
            case 1:  // mov %rax, (%rbx)
                std::memcpy(code, "\x48\x89\x03", 3);
                break;
            case 2:  // invlpg (%rbx)
                std::memcpy(code, "\x0f\x01\x3b", 3);
                break;
            case 3:  // mov %cr3, %rax; reload
                std::memcpy(code, "\x0f\x20\xd8", 3);
                code += 3;
                std::memcpy(code, "\x0f\x22\xd8", 3);
        }
        code += 3;
    }
    *code++ = 0xff;  // jmp *%rbx
    *code++ = 0xe3;
    return box.run();
}

TEST(Fuzz, PageTables) {
    run_cases(random_tables, 10'000);
}

// --- instructions ---

struct Template {
    uint8_t bytes[6];
    uint8_t size;
};

// What only ring 0 does, and what exits.
constexpr Template kPrivileged[] = {
    {{0x0f, 0x22, 0xc0}, 3},
    {{0x0f, 0x22, 0xd8}, 3},
    {{0x0f, 0x22, 0xe0}, 3},
    {{0x44, 0x0f, 0x22, 0xc0}, 4},
    {{0x0f, 0x23, 0xc0}, 3},
    {{0x0f, 0x23, 0xf8}, 3},
    {{0x0f, 0x21, 0xf0}, 3},
    {{0x0f, 0x30}, 2},
    {{0x0f, 0x32}, 2},
    {{0x0f, 0xa2}, 2},
    {{0x0f, 0x01, 0xd1}, 3},
    {{0x0f, 0x01, 0xc1}, 3},
    {{0x0f, 0x01, 0xc2}, 3},
    {{0x0f, 0x01, 0xc3}, 3},
    {{0x0f, 0x01, 0xc4}, 3},
    {{0x0f, 0x01, 0xc8}, 3},
    {{0x0f, 0x01, 0xc9}, 3},
    {{0x0f, 0x01, 0xd4}, 3},
    {{0x0f, 0x01, 0xf8}, 3},
    {{0x0f, 0x01, 0x13}, 3},
    {{0x0f, 0x01, 0x1b}, 3},
    {{0x0f, 0x01, 0xf3}, 3},
    {{0x0f, 0x00, 0xd3}, 3},
    {{0x0f, 0x00, 0xdb}, 3},
    {{0x0f, 0x06}, 2},
    {{0x0f, 0x08}, 2},
    {{0x0f, 0x09}, 2},
    {{0x0f, 0x33}, 2},
    {{0x0f, 0x37}, 2},
    {{0x0f, 0x05}, 2},
    {{0x48, 0x0f, 0x07}, 3},
    {{0x0f, 0x34}, 2},
    {{0x48, 0x0f, 0x35}, 3},
    {{0xf4}, 1},
    {{0xfa}, 1},
    {{0xfb}, 1},
    {{0xcc}, 1},
    {{0xf1}, 1},
    {{0xcd, 0x80}, 2},
    {{0x48, 0xcf}, 2},
    {{0x9d}, 1},
    {{0x9c}, 1},
    {{0x8e, 0xd0}, 2},
    {{0x8e, 0xd8}, 2},
    {{0x8e, 0xe0}, 2},
    {{0x48, 0xcb}, 2},
    {{0xe4, 0x60}, 2},
    {{0xe7, 0x70}, 2},
    {{0x6c}, 1},
    {{0x6f}, 1},
    {{0x0f, 0xc7, 0x33}, 3},
    {{0x66, 0x0f, 0xc7, 0x33}, 4},
    {{0xf3, 0x0f, 0xc7, 0x33}, 4},
    {{0x66, 0x0f, 0x38, 0x80, 0x03}, 5},
    {{0x66, 0x0f, 0x38, 0x81, 0x03}, 5},
    {{0x66, 0x0f, 0x38, 0x82, 0x03}, 5},
    {{0x0f, 0x78, 0xc3}, 3},
    {{0x0f, 0x79, 0xc3}, 3},
    {{0xf3, 0x0f, 0xae, 0xc3}, 4},
    {{0xf3, 0x48, 0x0f, 0xae, 0xdb}, 5},
    {{0x0f, 0xaa}, 2},
    {{0x0f, 0xae, 0x2b}, 3},
    {{0x0f, 0xae, 0x23}, 3},
    {{0x48, 0x0f, 0xc7, 0x2b}, 4},
};

void random_code(Box& box, Random& random) {
    static const uint32_t kMsrs[] = {0x10,       0x1b,       0x3a,       0x48,       0x49,
                                     0x174,      0x175,      0x176,      0x1a0,      0x1d9,
                                     0x277,      0x480,      0x802,      0xc0000080, 0xc0000081,
                                     0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
                                     0xc0000102, 0xc0000103};
    uint8_t* code = box.at(Box::kCode);
    uint8_t* const end = code + 160;
    while (code < end) {
        if (random.one_in(2)) {
            const Template& t = kPrivileged[random.below(std::size(kPrivileged))];
            std::memcpy(code, t.bytes, t.size);
            code += t.size;
            if (random.one_in(6)) {
                code[-1] ^= static_cast<uint8_t>(random.below(64));
            }
        } else if (random.one_in(2)) {  // mov $value, register
            const uint64_t value =
                random.one_in(3) ? kMsrs[random.below(std::size(kMsrs))] : random.nasty();
            *code++ = 0x48;
            *code++ = static_cast<uint8_t>(0xb8 + random.below(8));
            std::memcpy(code, &value, 8);
            code += 8;
        } else {
            for (uint64_t n = random.below(6); n > 0; n--) {
                *code++ = static_cast<uint8_t>(random.next());
            }
        }
    }
    auto* registers = reinterpret_cast<uint64_t*>(&box.page().regs);
    for (int i = 0; i < 16; i++) {
        if (i != 4) {
            registers[i] = random.nasty();
        }
    }
    auto* data = box.table(Box::kData);
    for (int i = 0; i < 32; i++) {
        data[i] = random.nasty();
    }
    if (random.one_in(4)) {
        box.page().pending[random.below(4)] = random.next();
        box.page().pending_any = 1;
    }
}

Outcome run_code(Box& box) {
    const Outcome outcome = box.run();
    std::memset(box.page().pending, 0, sizeof(box.page().pending));
    return outcome;
}

TEST(Fuzz, InstructionsInRing0) {
    run_cases([](Box& box, Random& random) {
        random_code(box, random);
        return run_code(box);
    });
}

TEST(Fuzz, InstructionsInRing3) {
    run_cases([](Box& box, Random& random) {
        box.enter_ring3();
        random_code(box, random);
        return run_code(box);
    });
}

}  // namespace
