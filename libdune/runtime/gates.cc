// SPDX-License-Identifier: MIT
// Compiled without vector registers, since dune_ring3_begins() is called where they are ring 3's.
#include "gates.h"

#include "layout.h"
#include "libdune/cpu-x86.h"

extern "C" {
// Entry code (entry.S, vectors.S).
extern const char dune_vectors_fast[], dune_vectors_legacy[];
extern const char dune_pgflt_preserve_fast[], dune_pgflt_preserve_legacy[];
extern const char dune_pgflt_general_fast[], dune_pgflt_general_legacy[];
extern const char dune_pgflt_preserve_fast_ring0[], dune_pgflt_preserve_legacy_ring0[];
extern const char dune_pgflt_general_fast_ring0[], dune_pgflt_general_legacy_ring0[];
extern const char dune_pgflt_scratch_fast[], dune_pgflt_scratch_legacy[];
extern const char dune_pgflt_scratch_fast_ring0[], dune_pgflt_scratch_legacy_ring0[];
extern const char dune_lstar_fast[], dune_lstar_legacy[];
extern const char dune_double_fault[];
}

namespace dune::rt {
namespace {

/** A gate of the IDT (SDM vol. 3, figure 6-8). */
struct Gate {
    std::uint64_t low, high;
};

alignas(4096) Gate idt[DUNE_NR_VECTORS];
bool fast_entry;
HandlerNeeds page_fault_needs = HandlerNeeds::Vectors;
bool ring3;

/** What differs between the entries of one vector is in `low`, which is written at once. */
void set_gate(unsigned vector, const char* entry, unsigned ist) noexcept {
    const auto address = reinterpret_cast<std::uint64_t>(entry);
    constexpr std::uint64_t kInterruptGate = 0x8e;
    // INT3 and INTO are instructions of ring 3.
    const std::uint64_t dpl = vector == T_BRKPT || vector == T_OFLOW ? 3 : 0;
    const std::uint64_t low = (address & 0xffff) | std::uint64_t{SEL_KERNEL_CS} << 16 |
                              std::uint64_t{ist} << 32 | (kInterruptGate | dpl << 5) << 40 |
                              (address >> 16 & 0xffff) << 48;
    __atomic_store_n(&idt[vector].high, address >> 32, __ATOMIC_RELAXED);
    __atomic_store_n(&idt[vector].low, low, __ATOMIC_RELEASE);
}

const char* page_fault_entry() noexcept {
    static constexpr const char* kEntries[3][2][2] = {
        // [HandlerNeeds][fast][ring 3]
        {{dune_pgflt_scratch_legacy_ring0, dune_pgflt_scratch_legacy},
         {dune_pgflt_scratch_fast_ring0, dune_pgflt_scratch_fast}},
        {{dune_pgflt_general_legacy_ring0, dune_pgflt_general_legacy},
         {dune_pgflt_general_fast_ring0, dune_pgflt_general_fast}},
        {{dune_pgflt_preserve_legacy_ring0, dune_pgflt_preserve_legacy},
         {dune_pgflt_preserve_fast_ring0, dune_pgflt_preserve_fast}},
    };
    return kEntries[static_cast<unsigned>(page_fault_needs)][fast_entry ? 1 : 0][ring3 ? 1 : 0];
}

}  // namespace

void gates_init(bool fast) noexcept {
    fast_entry = fast;
    const char* const stubs = fast ? dune_vectors_fast : dune_vectors_legacy;
    for (unsigned vector = 0; vector < DUNE_NR_VECTORS; ++vector)
        if (vector != T_PGFLT && vector != T_DBLFLT)
            set_gate(vector, stubs + static_cast<std::size_t>(vector) * VECTOR_STUB_SIZE, kIstTrap);
    set_gate(T_DBLFLT, dune_double_fault, kIstDoubleFault);
    set_gate(T_PGFLT, page_fault_entry(), kIstTrap);
}

void gate_page_faults(HandlerNeeds needs) noexcept {
    page_fault_needs = needs;
    set_gate(T_PGFLT, page_fault_entry(), kIstTrap);
}

TablePointer idt_pointer() noexcept {
    return {.limit = sizeof(idt) - 1, .base = reinterpret_cast<std::uint64_t>(idt)};
}

std::uint64_t lstar() noexcept {
    return reinterpret_cast<std::uint64_t>(fast_entry ? dune_lstar_fast : dune_lstar_legacy);
}

}  // namespace dune::rt

extern "C" void dune_ring3_begins(void) noexcept {
    using namespace dune::rt;
    if (ring3)
        return;
    ring3 = true;
    set_gate(T_PGFLT, page_fault_entry(), kIstTrap);
}
