// SPDX-License-Identifier: MIT
// A write barrier, as a garbage collector has it: find out which pages a program writes to.
#include <dune/process.h>
#include <dune/trap.h>

#include <sys/mman.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

namespace {

constexpr std::size_t kPages = 64;
std::span<std::byte> heap;
std::bitset<kPages> written;

std::span<std::byte> page_of(std::uintptr_t address) {
    const std::size_t offset = address - reinterpret_cast<std::uintptr_t>(heap.data());
    return heap.subspan(offset / PGSIZE * PGSIZE, PGSIZE);
}

void on_page_fault(std::uintptr_t address, std::uint64_t, dune::Frame*) {
    const auto page = page_of(address);
    written.set(static_cast<std::size_t>(page.data() - heap.data()) / PGSIZE);
    if (!dune::Process::tables().protect(page, dune::Perm::ReadWrite))
        dune_die();
}

}  // namespace

int main() {
    const auto process = dune::Process::enter();
    if (!process)
        return 1;
    void* const memory =
        mmap(nullptr, kPages * PGSIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    heap = {static_cast<std::byte*>(memory), kPages * PGSIZE};

    const dune::PageFaultGuard guard(on_page_fault);
    if (!dune::Process::tables().protect(heap, dune::Perm::Read))
        return 1;
    for (std::size_t page = 0; page < kPages; page += 7)
        for (std::size_t i = 0; i < 3; ++i)
            heap[page * PGSIZE + i] = std::byte{1};
    std::printf("%zu of %zu pages were written to\n", written.count(), kPages);
    return written.count() == (kPages + 6) / 7 ? 0 : 1;
}
