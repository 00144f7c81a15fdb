// SPDX-License-Identifier: MIT
/**
 * @file
 * Page tables for C++: libdune/vm.h with types, results and an owner.
 *
 * Context, TLB and locking: as libdune/vm.h says of the functions behind.
 */
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "dune/pte.h"
#include "dune/result.h"
#include "libdune/vm.h"

namespace dune {

/** Tables that somebody else owns, e.g. `PageTableRef(pgroot)`: as cheap to copy as a pointer. */
class PageTableRef {
  public:
    /** The tables of that PML4. */
    explicit PageTableRef(ptent_t* root) noexcept : root_(root) {}

    /** Virtual address of the PML4. */
    ptent_t* root() const noexcept { return root_; }

    /** Map memory to guest-physical memory that stays its owner's (dune_vm_map_phys). */
    Result<void> map(std::span<std::byte> memory, physaddr_t pa, Perm perm,
                     PageSize size = PageSize::Normal) const noexcept {
        return Result<void>::from(dune_vm_map_phys(root_, memory.data(), memory.size(),
                                                   reinterpret_cast<void*>(pa),
                                                   published(perm, size)));
    }

    /** Map memory to fresh, zeroed pages of the pool (dune_vm_map_pages). */
    Result<void> map_pages(std::span<std::byte> memory, Perm perm,
                           PageSize size = PageSize::Normal) const noexcept {
        return Result<void>::from(
            dune_vm_map_pages(root_, memory.data(), memory.size(), published(perm, size)));
    }

    /** Change what is allowed (dune_vm_mprotect). */
    Result<void> protect(std::span<const std::byte> memory, Perm perm) const noexcept {
        return Result<void>::from(dune_vm_mprotect(root_, const_cast<std::byte*>(memory.data()),
                                                   memory.size(), static_cast<int>(perm)));
    }

    /** Remove mappings (dune_vm_unmap). */
    Result<void> unmap(std::span<const std::byte> memory) const noexcept {
        return Result<void>::from(
            dune_vm_unmap(root_, const_cast<std::byte*>(memory.data()), memory.size()));
    }

    /** The entry that maps an address: -ENOENT if none does. */
    Result<PteRef> lookup(const void* address) const noexcept {
        struct {
            ptent_t* slot = nullptr;
            std::size_t size = 0;
        } found;
        const auto take = [](void* to, ptent_t* slot, void*, std::size_t size) {
            *static_cast<decltype(found)*>(to) = {slot, size};
            return 1;
        };
        void* const va = const_cast<void*>(address);
        const int rc = dune_vm_leaf_walk(root_, va, va, take, &found);
        if (rc < 0)
            return Error(rc);
        if (found.slot == nullptr)
            return Error(-ENOENT);
        return PteRef(found.slot, static_cast<PageSize>(found.size));
    }

    /**
     * Call `callable(void* va, PteRef)` for each entry that maps something of the memory; a
     * bool result of false ends the walk.
     */
    template <class Callable>
    Result<void> for_each(std::span<const std::byte> memory, Callable&& callable) const noexcept {
        if (memory.empty())
            return {};
        auto* const first = const_cast<std::byte*>(memory.data());
        return walk(first, first + memory.size() - 1, std::forward<Callable>(callable));
    }
    /** The same for the whole address space. */
    template <class Callable>
    Result<void> for_each(Callable&& callable) const noexcept {
        return walk(VA_START, VA_END, std::forward<Callable>(callable));
    }

    /** Free tables that map nothing any more (dune_vm_prune). */
    Result<void> prune() const noexcept { return Result<void>::from(dune_vm_prune(root_)); }

  private:
    static constexpr int published(Perm perm, PageSize size) noexcept {
        return static_cast<int>(perm) | (size == PageSize::Big     ? PERM_BIG
                                         : size == PageSize::Big1G ? PERM_BIG_1GB
                                                                   : 0);
    }

    template <class Callable>
    Result<void> walk(void* first, void* last, Callable&& callable) const noexcept {
        using Target = std::remove_reference_t<Callable>;
        const auto call = [](void* to, ptent_t* slot, void* va, std::size_t size) -> int {
            auto& target = *static_cast<Target*>(to);
            const PteRef pte(slot, static_cast<PageSize>(size));
            if constexpr (std::is_void_v<std::invoke_result_t<Target&, void*, PteRef>>) {
                target(va, pte);
                return 0;
            } else {
                return target(va, pte) ? 0 : 1;
            }
        };
        const int rc = dune_vm_leaf_walk(
            root_, first, last, call,
            const_cast<void*>(static_cast<const void*>(std::addressof(callable))));
        return Result<void>::from(rc < 0 ? rc : 0);
    }

    ptent_t* root_;
};

/** Tables of its own, freed with it (dune_vm_free): no CPU may use them by then. */
class PageTable {
  public:
    /** Empty tables. @return -ENOMEM */
    static Result<PageTable> create() noexcept {
        page* const pg = dune_page_alloc();
        if (pg == nullptr)
            return Error(-ENOMEM);
        std::memset(dune_page2va(pg), 0, bytes(PageSize::Normal));
        return PageTable(static_cast<ptent_t*>(dune_page2va(pg)));
    }
    /** A copy-on-write copy (dune_vm_clone). @return -ENOMEM */
    static Result<PageTable> clone_of(PageTableRef other) noexcept {
        ptent_t* const root = dune_vm_clone(other.root());
        if (root == nullptr)
            return Error(-ENOMEM);
        return PageTable(root);
    }

    /** The other has none any more. */
    PageTable(PageTable&& other) noexcept : root_(std::exchange(other.root_, nullptr)) {}
    /** The two exchange their tables. */
    PageTable& operator=(PageTable&& other) noexcept {
        std::swap(root_, other.root_);
        return *this;
    }
    PageTable(const PageTable&) = delete;
    PageTable& operator=(const PageTable&) = delete;
    ~PageTable() {
        if (root_ != nullptr)
            dune_vm_free(root_);
    }

    /** The tables for functions that do not own them. */
    PageTableRef ref() const noexcept { return PageTableRef(root_); }
    /** Virtual address of the PML4. */
    ptent_t* root() const noexcept { return root_; }
    /** What CR3 takes for these tables (without a PCID): a guest-physical address. */
    physaddr_t cr3() const noexcept {
        return dune_pagebase +
               static_cast<physaddr_t>(reinterpret_cast<const char*>(root_) - dune_pagebase_va);
    }

  private:
    explicit PageTable(ptent_t* root) noexcept : root_(root) {}

    ptent_t* root_;
};

}  // namespace dune
