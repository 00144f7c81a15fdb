// SPDX-License-Identifier: MIT
// Ring 3: running it, and touching its memory.
#include <cerrno>
#include <cstring>

#include "../mm/backing.h"
#include "../mm/fault.h"
#include "../mm/tables.h"
#include "fpu_area.h"
#include "gates.h"
#include "libdune/dune.h"
#include "process.h"
#include "signals.h"
#include "trap.h"

extern "C" {
long dune_run_user_fast(const dune_tf* tf, std::size_t fpu_size);
long dune_run_user_legacy(const dune_tf* tf, std::size_t fpu_size);
[[noreturn]] void dune_leave_user(long ret);
[[noreturn]] void dune_go_frame_fast(dune_tf* tf);
[[noreturn]] void dune_go_frame_legacy(dune_tf* tf);
bool dune_user_cmpxchg(std::uint32_t* word, std::uint32_t from, std::uint32_t to,
                       std::uint32_t* seen);
}

namespace dune::rt {
namespace {

std::uint64_t protection;

/** May ring 3 use the page as asked, with the tables in CR3? Resolves copy-on-write. */
bool user_may(std::uintptr_t va, bool write) noexcept {
    ptent_t* const root = mm::backing().current_root();
    for (int tries = 0; tries < 2; ++tries) {
        const mm::Found found = mm::find<mm::PoolSpace>(root, va);
        const ptent_t e = mm::load(found.slot);
        constexpr ptent_t kUser = PTE_P | PTE_U;
        if (!mm::is_leaf_at(found.level, e) || (e & kUser) != kUser)
            return false;
        if (!write || (e & PTE_W) != 0)
            return true;
        if (mm::resolve_fault(root, va, FEC_P | FEC_W | FEC_U) != 0)
            return false;
    }
    return false;
}

/** In ring 0 only; the range is checked page by page. */
int copy(void* to, const void* from, std::uintptr_t user, std::size_t len, bool write) noexcept {
    auto* out = static_cast<std::uint8_t*>(to);
    const auto* in = static_cast<const std::uint8_t*>(from);
    if (!dune_in_guest())
        return -EPERM;
    constexpr std::uintptr_t kLimit = std::uintptr_t{1} << 47;
    if (user >= kLimit || len > kLimit - user)
        return -EFAULT;
    while (len != 0) {
        const std::size_t in_page = mm::kPageSize - user % mm::kPageSize;
        const std::size_t now = len < in_page ? len : in_page;
        if (!user_may(user, write) || dune_copy_user(out, in, now) != 0)
            return -EFAULT;
        user += now;
        out += now;
        in += now;
        len -= now;
    }
    return 0;
}

}  // namespace

bool user_compare_exchange(std::uint32_t* word, std::uint32_t from, std::uint32_t to,
                           std::uint32_t* seen) noexcept {
    const auto va = reinterpret_cast<std::uintptr_t>(word);
    if (va >> 47 != 0 || va % sizeof(*word) != 0 || !user_may(va, true))
        return false;
    return dune_user_cmpxchg(word, from, to, seen);
}

std::uint64_t protect_bits() noexcept {
    return protection;
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

int dune_jump_to_user(struct dune_tf* tf) {
    if (!dune_in_guest())
        return -EPERM;
    dune_ring3_begins();
    const std::size_t size = fpu_area_size();
    return static_cast<int>(process.fast_entry ? dune_run_user_fast(tf, size)
                                               : dune_run_user_legacy(tf, size));
}

void dune_ret_from_user(int ret) {
    if (!dune_in_guest() || self()->jump_rsp == 0) {
        complain("dune_ret_from_user() was called outside of dune_jump_to_user()");
        dune_die();
    }
    dune_leave_user(ret);
}

void dune_pop_trap_frame(struct dune_tf* tf) {
    if (!dune_in_guest()) {
        complain("dune_pop_trap_frame() was called in host mode");
        dune_die();
    }
    if ((tf->cs & 3) != 0)
        dune_ring3_begins();
    if (process.fast_entry)
        dune_go_frame_fast(tf);
    dune_go_frame_legacy(tf);
}

unsigned long dune_get_user_fs(void) {
    return dune_in_guest() ? self()->user_fs : 0;
}

void dune_set_user_fs(unsigned long fs_base) {
    // A value that is not canonical would be a fault of ring 0 on the way to ring 3.
    if (dune_in_guest() && fs_base >> 47 == 0)
        self()->user_fs = fs_base;
}

uint64_t dune_protect_supervisor(void) {
    protection = (CR4_SMEP | CR4_SMAP) & process.info.cr4_guest_bits;
    if (dune_in_guest() && protection != 0)
        write_cr4(read_cr4() | protection);
    return protection;
}

int dune_copy_from_user(void* to, const void* user, size_t len) {
    return copy(to, user, reinterpret_cast<std::uintptr_t>(user), len, false);
}

int dune_copy_to_user(void* user, const void* from, size_t len) {
    return copy(user, from, reinterpret_cast<std::uintptr_t>(user), len, true);
}

void* dune_mmap(void* addr, size_t length, int prot, int flags, int fd, off_t offset) {
    void* const va = mmap(addr, length, prot, flags, fd, offset);
    if (va == MAP_FAILED || pgroot == nullptr)
        return va;
    if (ring0_map_range(reinterpret_cast<std::uintptr_t>(va), length) == 0)
        return va;
    munmap(va, length);
    errno = ENOMEM;
    return MAP_FAILED;
}

}  // extern "C"
