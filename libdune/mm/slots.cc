// SPDX-License-Identifier: MIT
#include "slots.h"

#include <algorithm>
#include <cstring>

namespace dune::mm {
constinit SlotMap process_slots;

Result<void> SlotMap::init(std::uint64_t phys_slots, Bind bind, void* context) noexcept {
    if (phys_slots < 2 || bind == nullptr)
        return Error(-EINVAL);
    const SpinGuard guard(lock_);
    bind_ = bind;
    context_ = context;
    limit_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(phys_slots, kMaxPhysical));
    if (used_ != 0) {  // else they are zero, and 256 KiB stay untouched
        std::memset(forward_, 0, sizeof(forward_));
        std::memset(reverse_, 0, sizeof(reverse_));
    }
    used_ = 0;
    return {};
}

Result<physaddr_t> SlotMap::assign(std::uintptr_t va) noexcept {
    if (va >> kShift >= kVirtual)
        return Error(-EINVAL);
    const auto virt = static_cast<std::uint32_t>(va >> kShift);
    const SpinGuard guard(lock_);
    std::uint64_t phys = forward_[virt];
    if (phys == 0) {  // nobody was quicker
        phys = pick(virt);
        if (phys == 0)
            return Error(-ENOSPC);
        if (const int rc = bind_one(virt, static_cast<std::uint32_t>(phys)); rc != 0)
            return Error(rc);
    }
    return (phys << kShift) | (va & (kSize - 1));
}

// The slot's own number if it is free; else from the top, where fewest own numbers are.
std::uint32_t SlotMap::pick(std::uint32_t virt) const noexcept {
    if (virt != 0 && virt < limit_ && reverse_[virt] == 0)
        return virt;
    for (std::uint32_t phys = limit_; phys-- > 1;)
        if (reverse_[phys] == 0)
            return phys;
    return 0;
}

int SlotMap::bind_one(std::uint32_t virt, std::uint32_t phys) noexcept {
    if (const int rc = bind_(context_, virt, phys); rc != 0)
        return rc;
    __atomic_store_n(&reverse_[phys], virt + 1, __ATOMIC_RELEASE);
    // Last: whoever reads it may use the address at once.
    __atomic_store_n(&forward_[virt], static_cast<std::uint16_t>(phys), __ATOMIC_RELEASE);
    __atomic_store_n(&used_, used_ + 1, __ATOMIC_RELAXED);
    return 0;
}

bool SlotMap::run_is_free(std::uint32_t phys, std::uint32_t count) const noexcept {
    return phys != 0 && phys < limit_ && count <= limit_ - phys &&
           std::all_of(reverse_ + phys, reverse_ + phys + count,
                       [](std::uint32_t virt) { return virt == 0; });
}

Result<physaddr_t> SlotMap::take_run(std::uintptr_t va, std::uint32_t count) noexcept {
    const std::uintptr_t first = va >> kShift;
    if ((va & (kSize - 1)) != 0 || first >= kVirtual || count == 0 || count > kVirtual - first)
        return Error(-EINVAL);
    const auto virt = static_cast<std::uint32_t>(first);
    const SpinGuard guard(lock_);
    for (std::uint32_t i = 0; i < count; ++i)
        if (forward_[virt + i] != 0)
            return Error(-EBUSY);
    if (count >= limit_)
        return Error(-ENOSPC);

    std::uint32_t phys = virt;
    if (!run_is_free(phys, count))
        for (phys = limit_ - count; phys != 0 && !run_is_free(phys, count);)
            --phys;
    if (phys == 0)
        return Error(-ENOSPC);
    for (std::uint32_t i = 0; i < count; ++i)
        if (const int rc = bind_one(virt + i, phys + i); rc != 0)
            return Error(rc);
    return physaddr_t{phys} << kShift;
}

Result<void> SlotMap::replay(Bind bind, void* context) noexcept {
    if (bind == nullptr)
        return Error(-EINVAL);
    const SpinGuard guard(lock_);
    bind_ = bind;
    context_ = context;
    for (std::uint32_t phys = 1; phys < limit_; ++phys)
        if (reverse_[phys] != 0)
            if (const int rc = bind(context, reverse_[phys] - 1, phys); rc != 0)
                return Error(rc);
    return {};
}

}  // namespace dune::mm
