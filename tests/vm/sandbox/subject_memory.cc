// SPDX-License-Identifier: MIT

#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "subject.h"

namespace dune::sandbox_test {

namespace {

constexpr size_t kPage = 4096;

char* map(void* at, size_t size, int prot, int flags) {
    return static_cast<char*>(mmap(at, size, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

}  // namespace

void test_auxv() {
    CHECK(getauxval(AT_PAGESZ) == kPage);
    CHECK(getauxval(AT_SECURE) == 0);
    CHECK(getauxval(AT_UID) == getuid());
    CHECK(getauxval(AT_RANDOM) != 0);
    CHECK(getauxval(AT_ENTRY) != 0);
    const auto* const vdso = reinterpret_cast<const Elf64_Ehdr*>(getauxval(AT_SYSINFO_EHDR));
    CHECK(vdso != nullptr && memcmp(vdso->e_ident, ELFMAG, SELFMAG) == 0);
    timespec by_vdso;
    timespec by_call;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &by_vdso) == 0);
    CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &by_call) == 0);
    CHECK(by_call.tv_sec - by_vdso.tv_sec <= 1);
    char exe[256] = {};
    CHECK(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
    CHECK(strstr(exe, "sandbox_subject") != nullptr);
}

void test_brk() {
    char* const start = static_cast<char*>(sbrk(0));
    CHECK(sbrk(5 * kPage + 7) == start);
    memset(start, 0x5a, 5 * kPage + 7);
    CHECK(sbrk(0) == start + 5 * kPage + 7);
    CHECK(brk(start + kPage) == 0);
    CHECK(sbrk(3 * kPage) == start + kPage);
    CHECK(start[0] == 0x5a && start[2 * kPage] == 0);
    CHECK(brk(start) == 0);
}

void test_mappings() {
    char* const p = map(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, 0);
    CHECK(p != MAP_FAILED);
    p[0] = 1;
    // A hole, and something else exactly there.
    CHECK(munmap(p + 4 * kPage, 4 * kPage) == 0);
    char* const hole = map(p + 4 * kPage, 4 * kPage, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
    CHECK(hole == p + 4 * kPage);
    CHECK(map(p, kPage, PROT_READ, MAP_FIXED_NOREPLACE) == MAP_FAILED && errno == EEXIST);
    CHECK(map(p, kPage, PROT_READ | PROT_WRITE, MAP_FIXED) == p);
    CHECK(p[0] == 0);
    // A hint that is free is taken.
    CHECK(munmap(p + 8 * kPage, 4 * kPage) == 0);
    char* const hinted = map(p + 8 * kPage, 2 * kPage, PROT_READ, 0);
    CHECK(hinted == p + 8 * kPage);
    CHECK(mprotect(p, kPage, PROT_READ) == 0);
    CHECK(madvise(p + 4 * kPage, kPage, MADV_DONTNEED) == 0);
    CHECK(munmap(p, 16 * kPage) == 0);
    // Below 2 GiB, and large ones.
    char* const low = map(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_32BIT);
    CHECK(low != MAP_FAILED && reinterpret_cast<uintptr_t>(low) < 1ull << 31);
    low[1] = 1;
    CHECK(munmap(low, kPage) == 0);
    char* const large = map(nullptr, 8ull << 30, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    CHECK(large != MAP_FAILED);
    for (size_t at = 0; at < 8ull << 30; at += 1ull << 29) {
        large[at] = 7;
    }
    CHECK(munmap(large, 8ull << 30) == 0);
    // Shared between processes.
    int* const shared = static_cast<int*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHECK(shared != MAP_FAILED && *shared == 0);
}

void test_jit() {
    // mov $value, %eax; ret
    unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xc3};
    char* const p = map(nullptr, kPage, PROT_READ | PROT_WRITE, 0);
    for (int value = 1; value < 50; value++) {
        CHECK(mprotect(p, kPage, PROT_READ | PROT_WRITE) == 0);
        code[1] = static_cast<unsigned char>(value);
        memcpy(p, code, sizeof(code));
        CHECK(mprotect(p, kPage, PROT_READ | PROT_EXEC) == 0);
        CHECK(reinterpret_cast<int (*)()>(p)() == value);
    }
}

void test_mremap() {
    char* const p = map(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, 0);
    memset(p, 3, 4 * kPage);
    char* const grown = static_cast<char*>(mremap(p, 4 * kPage, 600 * kPage, MREMAP_MAYMOVE));
    CHECK(grown != MAP_FAILED && grown[4 * kPage - 1] == 3 && grown[599 * kPage] == 0);
    char* const shrunk = static_cast<char*>(mremap(grown, 600 * kPage, kPage, 0));
    CHECK(shrunk == grown && shrunk[0] == 3);
    char* const target = map(nullptr, kPage, PROT_NONE, 0);
    CHECK(mremap(shrunk, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    CHECK(target[9] == 3);
}

}  // namespace dune::sandbox_test
