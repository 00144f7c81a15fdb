// SPDX-License-Identifier: MIT
/**
 * @file
 * Which 1 GiB of the process' address space stands where in guest-physical space.
 *
 * Virtual addresses have 47 bits, guest-physical ones as few as 36 (MAXPHYADDR), so slots
 * of 1 GiB are given out on first use. Guest-physical slot 0 stays empty, so that 0 is no
 * valid guest-physical address. Where it can be, a slot stands at its own number: programs
 * that know low addresses to be the same in both spaces stay right.
 */
#pragma once

#include <cstddef>
#include <cstdint>

#include "dune/result.h"
#include "libdune/mmu.h"
#include "spinlock.h"

namespace dune::mm {

/**
 * The forward and the reverse table of slots.
 *
 * Context: host mode, ring 0, traps, any thread. A slot that was used before is found
 * without a lock; a new one is taken under a spin lock with interrupts masked.
 */
class SlotMap {
  public:
    static constexpr unsigned kShift = 30;
    static constexpr std::size_t kSize = std::size_t{1} << kShift;
    static constexpr std::uint32_t kVirtual = 1U << (47 - kShift);  ///< slots of user addresses
    static constexpr std::uint32_t kMaxPhysical = 4096;             ///< guest-physical slots used
    static constexpr unsigned kMinPhysBits = 36;

    /**
     * Tells the kernel that virtual slot `virt` is to be seen in guest-physical slot `phys`.
     * Called with the lock held and interrupts masked; in a forked child, by replay().
     * @return 0 or a negative errno, which becomes the caller's result
     */
    using Bind = int (*)(void* context, std::uint32_t virt, std::uint32_t phys) noexcept;

    /**
     * Start with an empty map.
     * @param phys_slots slots of guest-physical space, slot 0 included; at most kMaxPhysical
     *                   are used. For MAXPHYADDR n: 1 << (n - 30).
     * @return -EINVAL if phys_slots leaves nothing to use
     */
    Result<void> init(std::uint64_t phys_slots, Bind bind, void* context) noexcept;

    /** Guest-physical address of va, taking a slot if need be: -EINVAL, -ENOSPC or bind's error. */
    Result<physaddr_t> va_to_pa(std::uintptr_t va) noexcept {
        const std::uintptr_t virt = va >> kShift;
        if (virt < kVirtual) [[likely]] {
            const std::uint64_t phys = __atomic_load_n(&forward_[virt], __ATOMIC_ACQUIRE);
            if (phys != 0) [[likely]]
                return (phys << kShift) | (va & (kSize - 1));
        }
        return assign(va);
    }

    /** The same without taking a slot; 0 if va has none. */
    physaddr_t find(std::uintptr_t va) const noexcept {
        const std::uintptr_t virt = va >> kShift;
        if (virt >= kVirtual)
            return 0;
        const std::uint64_t phys = __atomic_load_n(&forward_[virt], __ATOMIC_ACQUIRE);
        return phys == 0 ? 0 : (phys << kShift) | (va & (kSize - 1));
    }

    /** The user address seen at pa: -EINVAL if nothing is. */
    Result<std::uintptr_t> pa_to_va(physaddr_t pa) const noexcept {
        const std::uint64_t phys = pa >> kShift;
        if (phys < limit_) {
            const std::uint64_t virt = __atomic_load_n(&reverse_[phys], __ATOMIC_ACQUIRE);
            if (virt != 0)
                return ((virt - 1) << kShift) | (pa & (kSize - 1));
        }
        return Error(-EINVAL);
    }

    /**
     * Take a run of slots that is contiguous in both spaces.
     *
     * @param va    slot aligned
     * @param count slots, at least 1
     * @return the guest-physical address of va; -EINVAL, -EBUSY if part of the range has a slot
     *         already, -ENOSPC, or bind's error (slots bound before it stay, as single ones)
     */
    Result<physaddr_t> take_run(std::uintptr_t va, std::uint32_t count) noexcept;

    /**
     * Tell another address space of all slots: for a forked child, whose tables in the kernel
     * are empty. Makes bind the map's callback from now on.
     * @return the first error of bind
     */
    Result<void> replay(Bind bind, void* context) noexcept;

    /** Guest-physical slots taken, and how many there are to take. */
    std::uint32_t used() const noexcept { return __atomic_load_n(&used_, __ATOMIC_RELAXED); }
    std::uint32_t capacity() const noexcept { return limit_ == 0 ? 0 : limit_ - 1; }

    /** For fork(): see mm/fork.h. */
    SpinLock& lock() noexcept { return lock_; }

  private:
    Result<physaddr_t> assign(std::uintptr_t va) noexcept;
    std::uint32_t pick(std::uint32_t virt) const noexcept;
    int bind_one(std::uint32_t virt, std::uint32_t phys) noexcept;
    bool run_is_free(std::uint32_t phys, std::uint32_t count) const noexcept;

    SpinLock lock_;
    Bind bind_ = nullptr;
    void* context_ = nullptr;
    std::uint32_t limit_ = 0;  // guest-physical slots, slot 0 included
    std::uint32_t used_ = 0;
    std::uint16_t forward_[kVirtual] = {};      // guest-physical slot, or 0
    std::uint32_t reverse_[kMaxPhysical] = {};  // virtual slot + 1, or 0
};

/** The map of this process. Hidden: reached without the global offset table. */
[[gnu::visibility("hidden")]] extern SlotMap process_slots;

inline SlotMap& slots() noexcept {
    return process_slots;
}

}  // namespace dune::mm
