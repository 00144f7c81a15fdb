// SPDX-License-Identifier: MIT
#include "fastmap.h"

namespace dune::mm {
// No root has this address, so every look ends at it.
constinit FastMap::Nobody FastMap::kNobody = {.root = 1, .words = {0}};

constinit FastMap process_fastmap;

void FastMap::init(char* memory, const Backing& os) noexcept {
    if (os.commit_sparse(memory, kReserve) == 0)
        __atomic_store_n(&base_, reinterpret_cast<std::uint64_t*>(memory + kHeader),
                         __ATOMIC_RELEASE);
}

void FastMap::set(const ptent_t* root, std::uintptr_t va, ptent_t* table) noexcept {
    const auto key = reinterpret_cast<std::uint64_t>(root);
    const std::uint64_t number = va >> BIG_PGSHIFT;
    if (number >= kWords || base_ == kNobody.words)
        return;
    std::uint64_t owner = 0;
    if (owner_word() != key && !__atomic_compare_exchange_n(&base_[-1], &owner, key, false,
                                                            __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    const std::uint64_t empty = reinterpret_cast<std::uint64_t>(base_) - kHeader;
    __atomic_store_n(&base_[number], reinterpret_cast<std::uint64_t>(table) - empty,
                     __ATOMIC_RELEASE);
}

void FastMap::clear(const ptent_t* root, std::uintptr_t va) noexcept {
    const std::uint64_t number = va >> BIG_PGSHIFT;
    if (number < kWords && owner_word() == reinterpret_cast<std::uint64_t>(root) &&
        base_[number] != 0)  // do not touch memory that was never used
        __atomic_store_n(&base_[number], 0, __ATOMIC_RELEASE);
}

void FastMap::drop(const ptent_t* root) noexcept {
    if (owner_word() == reinterpret_cast<std::uint64_t>(root))
        __atomic_store_n(&base_[-1], 0, __ATOMIC_RELEASE);
}

}  // namespace dune::mm
