// SPDX-License-Identifier: MIT
//
// What page tables should say, kept in a std::map: one entry for each 4 KiB that is mapped.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <sstream>
#include <string>

#include "libdune/vm.h"
#include "mm/perm.h"
#include "mm/tables.h"

namespace dune::test {

inline constexpr std::uint64_t k4K = 1ULL << 12;
inline constexpr std::uint64_t k2M = 1ULL << 21;
inline constexpr std::uint64_t k1G = 1ULL << 30;

inline void* at(std::uint64_t va) {
    return reinterpret_cast<void*>(va);
}

/// The flags of a 4 KiB page, without what the CPU or the library keep for themselves.
inline ptent_t visible(ptent_t e) {
    return PTE_FLAGS(e) & ~(PTE_A | PTE_D | PTE_PS | PTE_EXCL);
}

struct ModelPage {
    physaddr_t pa;
    ptent_t flags;
    std::uint64_t size;  // of the leaf that maps it
    friend bool operator==(const ModelPage&, const ModelPage&) = default;
};

inline std::ostream& operator<<(std::ostream& os, const ModelPage& page) {
    return os << std::hex << "{pa " << page.pa << " flags " << page.flags << " size " << page.size
              << "}";
}

using Model = std::map<std::uint64_t, ModelPage>;

/// What the tables say, read by dune_vm_page_walk.
inline Model read_tables(ptent_t* root, std::uint64_t start = 0, std::uint64_t end = ~0ULL) {
    struct Context {
        ptent_t* root;
        Model model;
    } context{root, {}};
    const int rc = dune_vm_page_walk(
        root, at(start), at(end),
        [](const void* arg, ptent_t* slot, void* va) {
            auto* const ctx = static_cast<Context*>(const_cast<void*>(arg));
            const auto address = reinterpret_cast<std::uintptr_t>(va);
            const mm::Found found = mm::find<mm::PoolSpace>(ctx->root, address);
            EXPECT_EQ(found.slot, slot);
            const std::uint64_t size = 1ULL << PDSHIFT(found.level);
            EXPECT_EQ(address % size, 0U);
            for (std::uint64_t offset = 0; offset < size; offset += k4K)
                ctx->model[address + offset] = {(PTE_ADDR(*slot) & ~(size - 1)) + offset,
                                                visible(*slot), size};
            return 0;
        },
        &context);
    EXPECT_EQ(rc, 0);
    return context.model;
}

/// Compare, and print the first difference only: models are large.
inline ::testing::AssertionResult same(const Model& expected, const Model& actual) {
    auto e = expected.begin();
    auto a = actual.begin();
    for (; e != expected.end() && a != actual.end() && *e == *a; ++e, ++a) {
    }
    if (e == expected.end() && a == actual.end())
        return ::testing::AssertionSuccess();
    std::ostringstream text;
    text << std::hex;
    if (e != expected.end())
        text << "expected " << e->first << ": " << e->second << "; ";
    if (a != actual.end())
        text << "found " << a->first << ": " << a->second;
    return ::testing::AssertionFailure() << text.str();
}

}  // namespace dune::test
