// SPDX-License-Identifier: MIT
/*
 * How ring 0 sees the process' memory: every GiB of it that is in use, as one supervisor page
 * (or 512 pages of 2 MiB). What may be done there is for Linux to say, through the nested page
 * tables.
 *
 * A GiB is mapped when something in it is first touched. That can be in any code, also in the
 * page-table functions while they hold a root's lock, so no such lock is taken here: entries go
 * from empty to full, once, by compare-and-swap.
 *
 * Several threads may touch a new GiB at once. Who finds it mapped when he comes to see to his
 * fault must not take that for a fault of the program's: whatever maps one also counts up
 * dune_slot_epoch, and a thread that has not looked at the tables since then does so first.
 */
#include <cpuid.h>
#include <sys/syscall.h>

#include <cerrno>

#include "../mm/backing.h"
#include "../mm/pool.h"
#include "../mm/slots.h"
#include "../mm/tables.h"
#include "process.h"
#include "sys.h"
#include "trap.h"

extern "C" {
// What the page-fault entry asks: GiBs that pgroot maps, its CR3, and how often one was mapped.
__attribute__((visibility("hidden")))
std::uint64_t dune_slot_mapped[dune::mm::SlotMap::kVirtual / 64];
__attribute__((visibility("hidden"))) std::uint64_t dune_pgroot_cr3;
__attribute__((visibility("hidden"))) std::uint64_t dune_slot_epoch;
}

namespace dune::rt {
namespace {

using mm::SlotMap;

constexpr ptent_t kLeaf = PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS;

/** Has each entry of a table that is empty map its part of a GiB. */
void fill(ptent_t* directory, physaddr_t pa) noexcept {
    for (std::uint64_t i = 0; i < NPTENTRIES; ++i) {
        ptent_t empty = 0;
        mm::replace(directory + i, empty, (pa + (i << BIG_PGSHIFT)) | kLeaf);
    }
}

/**
 * The table behind an entry, made if need be; one that is to show a GiB is filled. A new one is
 * seen by other threads at once, so that is done before.
 */
ptent_t* table_at(ptent_t* entry, const physaddr_t* gib) noexcept {
    ptent_t e = mm::load(entry);
    if (e == 0) {
        page* const pg = mm::page_alloc_zeroed();
        if (pg == nullptr)
            return nullptr;
        if (gib != nullptr)
            fill(static_cast<ptent_t*>(dune_page2va(pg)), *gib);
        if (mm::replace(entry, e, dune_page2pa(pg) | mm::kTableFlags))
            return static_cast<ptent_t*>(dune_page2va(pg));
        dune_page_free(pg);
    }
    if (!mm::is_table(e))
        return nullptr;
    ptent_t* const table = mm::PoolSpace::table(PTE_ADDR(e));
    if (gib != nullptr)
        fill(table, *gib);
    return table;
}

bool in_use(std::uint32_t slot) noexcept {
    return (__atomic_load_n(&dune_slot_mapped[slot / 64], __ATOMIC_RELAXED) >> (slot % 64) & 1) !=
           0;
}

/** Once: what comes of it may look like a fault of the program's. */
void complain_of_space() noexcept {
    static bool done;
    if (!__atomic_exchange_n(&done, true, __ATOMIC_RELAXED))
        complain(
            "guest-physical space is used up: this CPU has %u GiB of it, and the process touched "
            "as many different GiB of its address space",
            mm::slots().capacity());
}

}  // namespace

int ring0_map_slot(ptent_t* root, std::uint32_t slot) noexcept {
    const std::uintptr_t va = static_cast<std::uintptr_t>(slot) << SlotMap::kShift;
    const auto pa = mm::slots().va_to_pa(va);
    if (!pa) {
        if (pa.code() == -ENOSPC)
            complain_of_space();
        return pa.code();
    }
    ptent_t* const pointers = table_at(root + PDX(3, va), nullptr);
    if (pointers == nullptr)
        return -ENOMEM;
    ptent_t* const entry = pointers + PDX(2, va);
    if (process.large_pages) {
        ptent_t empty = 0;
        mm::replace(entry, empty, *pa | kLeaf);  // if it is not empty, somebody maps it finer
    } else if (table_at(entry, &*pa) == nullptr) {
        return -ENOMEM;
    }
    if (root == pgroot && in_use(slot))
        return 0;
    // After the entry and before the mark, which readers look at in the opposite order.
    __atomic_fetch_add(&dune_slot_epoch, 1, __ATOMIC_RELEASE);
    if (root == pgroot)
        __atomic_fetch_or(&dune_slot_mapped[slot / 64], std::uint64_t{1} << (slot % 64),
                          __ATOMIC_RELEASE);
    return 0;
}

namespace {

/** Larger ones are mapped as they are used. */
constexpr std::uintptr_t kReservation = std::uintptr_t{16} << 30;

int map_range(std::uintptr_t begin, std::uintptr_t end) noexcept {
    if (begin >> 47 != 0)
        return 0;
    const auto first = static_cast<std::uint32_t>(begin >> SlotMap::kShift);
    const auto last = static_cast<std::uint32_t>((end - 1) >> SlotMap::kShift);
    // Slots are not given back: what cannot have all is to take none.
    std::uint32_t missing = 0;
    for (std::uint32_t slot = first; slot <= last; ++slot)
        missing += mm::slots().find(static_cast<std::uintptr_t>(slot) << SlotMap::kShift) == 0;
    if (missing > mm::slots().capacity() - mm::slots().used()) {
        complain_of_space();
        return -ENOSPC;
    }
    for (std::uint32_t slot = first; slot <= last; ++slot)
        if (!in_use(slot))
            if (const int ret = ring0_map_slot(pgroot, slot); ret != 0)
                return ret;
    return 0;
}

int map_error;

void map_entry(const dune_procmap_entry* entry) {
    if (map_error == 0 && entry->end - entry->begin < kReservation)
        map_error = map_range(entry->begin, entry->end);
}

/** Does Linux have anything at an address, or will it grow a stack to there? */
bool linux_maps(std::uintptr_t va) noexcept {
    unsigned char resident;
    const std::uintptr_t page = va & ~std::uintptr_t{4095};
    if (sys(SYS_mincore, page, 4096, &resident) != -ENOMEM)
        return true;
    // No signal has that number, which Linux says after it has read, or could not read, the action.
    return sys(SYS_rt_sigaction, kSignals + 1, page, nullptr, sizeof(std::uint64_t)) == -EINVAL;
}

/** pgroot, with the pool. */
int make_root() noexcept {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0x80000001, &a, &b, &c, &d);
    process.large_pages = (d & (1U << 26)) != 0;

    if (const auto pool = mm::pool_init(); !pool)
        return pool.code();
    page* const root = mm::page_alloc_zeroed();
    if (root == nullptr)
        return -ENOMEM;
    pgroot = static_cast<ptent_t*>(dune_page2va(root));
    dune_pgroot_cr3 = dune_page2pa(root);

    // The pool first: it holds the tables that map the rest.
    std::size_t len = 0;
    const auto pool = reinterpret_cast<std::uintptr_t>(mm::pool_range(&len));
    for (std::uintptr_t slot = pool >> SlotMap::kShift; slot <= (pool + len - 1) >> SlotMap::kShift;
         ++slot)
        if (const int ret = ring0_map_slot(pgroot, static_cast<std::uint32_t>(slot)); ret != 0)
            return ret;
    return 0;
}

/** What Linux has mapped. */
int map_process() noexcept {
    map_error = 0;
    if (const int ret = dune_procmap_iterate(map_entry); ret != 0) {
        complain("cannot read /proc/self/maps (error %d): %s", -ret,
                 ret == -EMFILE || ret == -ENFILE ? "too many open files" : "is /proc mounted?");
        return ret;
    }
    return map_error;
}

}  // namespace

int ring0_map_init() noexcept {
    int ret = make_root();
    if (ret == -ENOMEM)
        complain(
            "cannot make the page tables (error %d): there is not enough memory, or of addresses "
            "('ulimit -v')",
            ENOMEM);
    else if (ret != 0 && ret != -ENOSPC)  // that was said
        complain("cannot make the page tables (error %d)", -ret);
    return ret != 0 ? ret : map_process();
}

int ring0_map_range(std::uintptr_t va, std::size_t len) noexcept {
    return process.map_full && len >= kReservation ? 0 : map_range(va, va + len);
}

std::uint64_t pgroot_cr3() noexcept {
    return dune_pgroot_cr3;
}

}  // namespace dune::rt

/**
 * A fault of ring 0, perhaps on an address that no table maps. On a stack of its own, interrupts
 * masked.
 * @param fec the error code as the CPU has it, DUNE_PF_FROM_HOST included
 * @return whether the access can be repeated
 */
extern "C" __attribute__((visibility("hidden"))) bool dune_fix_absent(std::uintptr_t va,
                                                                      std::uint64_t fec) noexcept {
    using namespace dune;
    const auto slot = static_cast<std::uint32_t>(va >> mm::SlotMap::kShift);
    // What the tables have, or Linux refuses, is not absent.
    if (va >> 47 != 0 || (fec & (FEC_P | DUNE_PF_FROM_HOST)) != 0)
        return false;
    ptent_t* const root = mm::backing().current_root();
    rt::self()->slot_epoch = __atomic_load_n(&dune_slot_epoch, __ATOMIC_ACQUIRE);
    // Only a GiB that the root knows nothing of; what is finer is the program's.
    const ptent_t pml4 = mm::load(root + PDX(3, va));
    if (mm::is_table(pml4) && mm::load(mm::PoolSpace::table(PTE_ADDR(pml4)) + PDX(2, va)) != 0)
        return (mm::load(mm::find<mm::PoolSpace>(root, va).slot) & PTE_P) != 0;
    // Without map_full a page-fault handler of the program is asked about new ones.
    if ((!rt::process.map_full && rt::page_fault_handler() != nullptr) || !rt::linux_maps(va))
        return false;
    return rt::ring0_map_slot(root, slot) == 0;
}
