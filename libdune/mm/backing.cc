// SPDX-License-Identifier: MIT
#include "backing.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "libdune/vm.h"
#include "slots.h"
#include "spinlock.h"
#include "tlb.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace dune::mm {

std::uint64_t (*host_irq_save)() noexcept = nullptr;
void (*host_irq_restore)(std::uint64_t) noexcept = nullptr;
void (*host_flush_one)(std::uintptr_t) noexcept = nullptr;
void (*host_flush_all)() noexcept = nullptr;

namespace {

void* reserve_at(void* hint, std::size_t len, int flags) noexcept {
    void* const va =
        mmap(hint, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return va == MAP_FAILED ? nullptr : va;
}

void system_unreserve(void* va, std::size_t len) noexcept {
    munmap(va, len);
}

void* system_reserve(void* hint, std::size_t len, std::size_t align) noexcept {
    if (hint != nullptr) {
        void* const va = reserve_at(hint, len, MAP_FIXED_NOREPLACE);
        if (va == hint)
            return va;
        if (va != nullptr)  // a kernel before 4.17, to which it is only a hint
            system_unreserve(va, len);
    }
    auto* const whole = static_cast<char*>(reserve_at(nullptr, len + align, 0));
    if (whole == nullptr)
        return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(whole);
    const std::size_t skip = (align - start % align) % align;
    if (skip != 0)
        system_unreserve(whole, skip);
    if (skip != align)
        system_unreserve(whole + skip + len, align - skip);
    return whole + skip;
}

int system_commit(void* va, std::size_t len) noexcept {
    return mprotect(va, len, PROT_READ | PROT_WRITE) == 0 ? 0 : -ENOMEM;
}

int system_commit_sparse(void* va, std::size_t len) noexcept {
    if (mprotect(va, len, PROT_READ | PROT_WRITE) != 0)
        return -ENOMEM;
    madvise(va, len, MADV_NOHUGEPAGE);  // refused where there are no huge pages: as well
    return 0;
}

void system_decommit(void* va, std::size_t len) noexcept {
    // A new mapping drops the memory and the promise of it at once. If Linux cannot split
    // the area for it, dropping the memory alone is enough.
    if (mmap(va, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        madvise(va, len, MADV_DONTNEED);
}

Result<physaddr_t> system_bind(void* va, std::size_t len) noexcept {
    return slots().take_run(
        reinterpret_cast<std::uintptr_t>(va),
        static_cast<std::uint32_t>((len + SlotMap::kSize - 1) / SlotMap::kSize));
}

Result<physaddr_t> system_va_to_pa(std::uintptr_t va) noexcept {
    return slots().va_to_pa(va);
}

Result<std::uintptr_t> system_pa_to_va(physaddr_t pa) noexcept {
    return slots().pa_to_va(pa);
}

ptent_t* system_current_root() noexcept {
    if (!in_ring0())
        return pgroot;
    std::uint64_t cr3;
    asm volatile("movq %%cr3, %0" : "=r"(cr3));
    return reinterpret_cast<ptent_t*>(slots().pa_to_va(PTE_ADDR(cr3)).value_or(0));
}

[[noreturn]] void system_fatal(const char* message, std::uint64_t value) noexcept {
    char line[160];
    const int len = snprintf(line, sizeof(line), "dune: %s (%#llx)\n", message,
                             static_cast<unsigned long long>(value));
    if (len > 0 && write(STDERR_FILENO, line, static_cast<std::size_t>(len)) < 0) {
        // Nobody to tell; the status of abort() remains.
    }
    abort();
}

constexpr Backing kSystem = {
    .reserve = system_reserve,
    .unreserve = system_unreserve,
    .commit = system_commit,
    .commit_sparse = system_commit_sparse,
    .decommit = system_decommit,
    .bind = system_bind,
    .va_to_pa = system_va_to_pa,
    .pa_to_va = system_pa_to_va,
    .current_root = system_current_root,
    .host_flush_one = nullptr,
    .host_flush_all = nullptr,
    .host_irq_save = nullptr,
    .host_irq_restore = nullptr,
    .fatal = system_fatal,
};

constinit Backing current = kSystem;

}  // namespace

const Backing& system_backing() noexcept {
    return kSystem;
}

const Backing& backing() noexcept {
    return current;
}

void set_backing(const Backing& backing) noexcept {
    current = backing;
    host_irq_save = backing.host_irq_save;
    host_irq_restore = backing.host_irq_restore;
    host_flush_one = backing.host_flush_one;
    host_flush_all = backing.host_flush_all;
}

}  // namespace dune::mm
