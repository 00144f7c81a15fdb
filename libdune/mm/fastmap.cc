// SPDX-License-Identifier: MIT
#include "fastmap.h"

namespace {

struct Nobody {
    std::uint64_t root;
    std::uint64_t words[1];
};

// No root has this address, so every look ends at it.
constinit Nobody nobody = {.root = 1, .words = {0}};

std::uint64_t owner_word() noexcept {
    return __atomic_load_n(&dune_leaf_map[-1], __ATOMIC_RELAXED);
}

}  // namespace

constinit std::uint64_t* dune_leaf_map = nobody.words;

namespace dune::mm {

void FastMap::reset() noexcept {
    dune_leaf_map = nobody.words;
}

void FastMap::init(char* memory, const Backing& os) noexcept {
    if (os.commit_sparse(memory, kReserve) == 0)
        __atomic_store_n(&dune_leaf_map, reinterpret_cast<std::uint64_t*>(memory + kHeader),
                         __ATOMIC_RELEASE);
}

void FastMap::set(const ptent_t* root, std::uintptr_t va, ptent_t* table) noexcept {
    const auto key = reinterpret_cast<std::uint64_t>(root);
    const std::uint64_t number = va >> BIG_PGSHIFT;
    if (number >= kWords || dune_leaf_map == nobody.words)
        return;
    std::uint64_t owner = 0;
    if (owner_word() != key && !__atomic_compare_exchange_n(&dune_leaf_map[-1], &owner, key, false,
                                                            __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    const std::uint64_t empty = reinterpret_cast<std::uint64_t>(dune_leaf_map) - kHeader;
    __atomic_store_n(&dune_leaf_map[number], reinterpret_cast<std::uint64_t>(table) - empty,
                     __ATOMIC_RELEASE);
}

void FastMap::clear(const ptent_t* root, std::uintptr_t va) noexcept {
    const std::uint64_t number = va >> BIG_PGSHIFT;
    if (number < kWords && owner_word() == reinterpret_cast<std::uint64_t>(root) &&
        dune_leaf_map[number] != 0)  // do not touch memory that was never used
        __atomic_store_n(&dune_leaf_map[number], 0, __ATOMIC_RELEASE);
}

void FastMap::drop(const ptent_t* root) noexcept {
    if (owner_word() == reinterpret_cast<std::uint64_t>(root))
        __atomic_store_n(&dune_leaf_map[-1], 0, __ATOMIC_RELEASE);
}

}  // namespace dune::mm
