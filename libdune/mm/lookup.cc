// SPDX-License-Identifier: MIT
// dune_vm_lookup, dune_vm_lookup_page, dune_vm_page_walk and address translation.
#include <cerrno>

#include "backing.h"
#include "fastmap.h"
#include "slots.h"
#include "tables.h"

using namespace dune::mm;

namespace {

struct WalkCallbackOp : WalkOp {
    dune_leaf_walk_cb cb;
    void* arg;
    int result = 0;

    WalkCallbackOp(dune_leaf_walk_cb call, void* with) noexcept : cb(call), arg(with) {}

    template <int L>
    int call(ptent_t* slot, std::uint64_t lin) noexcept {
        void* const va = reinterpret_cast<void*>(canonical(lin & ~(kSpan<L> - 1)));
        result = cb(arg, slot, va, kSpan<L>);
        return result == 0 ? kNext : kStop;
    }
    int pte(ptent_t* slot, std::uint64_t lin) noexcept { return call<0>(slot, lin); }
    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t lo, std::uint64_t) noexcept {
        return is_leaf<L>(e) ? call<L>(slot, lo) : kNext;
    }
};

/** Make the missing tables above level T, of which there are enough. */
template <int T>
struct CreateOp : WalkOp {
    static constexpr bool kVisitsEmpty = true;
    PageList& tables;

    explicit CreateOp(PageList& reserve) noexcept : tables(reserve) {}

    template <int L>
    int entry(ptent_t* slot, ptent_t e, std::uint64_t, std::uint64_t) noexcept {
        if (L <= T || is_leaf<L>(e))
            return kNext;
        insert_table<L>(slot, 0, tables.pop());
        return kDescend;
    }
    template <int L>
    int table(ptent_t*, ptent_t, std::uint64_t, std::uint64_t) noexcept {
        return L > T ? kDescend : kNext;
    }
};

template <int T>
int create(ptent_t* root, std::uint64_t lin, int missing) noexcept {
    PageList tables;
    if (const int rc = tables.fill(static_cast<std::size_t>(missing), true); rc != 0)
        return rc;
    CreateOp<T> op(tables);
    walk_root<PoolSpace>(root, lin, lin, op);
    return 0;
}

constexpr int level_of(int create) noexcept {
    return create == CREATE_NONE ? 0 : create - 1;
}

[[gnu::noinline]] int lookup_slow(ptent_t* root, void* va, int how, ptent_t** pte_out) noexcept {
    VaRange range;
    const auto address = reinterpret_cast<std::uintptr_t>(va);
    if (how < CREATE_NONE || how > CREATE_BIG_1GB || pte_out == nullptr ||
        !check_range(root, va, 1, 1, &range))
        return -EINVAL;
    const SpinGuard guard(root_lock(root));
    Found found = find<PoolSpace>(root, address);
    if (!is_leaf_at(found.level, load(found.slot))) {
        const int level = level_of(how);
        if (how == CREATE_NONE)
            return -ENOENT;
        if (found.level < level)
            return -EEXIST;
        const int missing = found.level - level;
        int rc = 0;
        if (missing != 0) {
            rc = level == 0   ? create<0>(root, range.first, missing)
                 : level == 1 ? create<1>(root, range.first, missing)
                              : create<2>(root, range.first, missing);
            found = find<PoolSpace>(root, address);
        }
        if (rc != 0)
            return rc;
    }
    if (found.level == 0)
        fastmap().set(root, address, reinterpret_cast<ptent_t*>(PGADDR(found.slot)));
    *pte_out = found.slot;
    return 0;
}

}  // namespace

int dune_vm_lookup(ptent_t* root, void* va, int create, ptent_t** pte_out) {
    const std::uint64_t vpn = reinterpret_cast<std::uintptr_t>(va) >> PGSHIFT;
    if (vpn >> NPTBITS < FastMap::kWords) [[likely]] {
        ptent_t* const slot = fastmap().entry(root, vpn);
        if (slot != nullptr && load(slot) != 0) [[likely]] {
            *pte_out = slot;
            return 0;
        }
    }
    return lookup_slow(root, va, create, pte_out);
}

page* dune_vm_lookup_page(ptent_t* root, void* va) {
    VaRange range;
    if (!check_range(root, va, 1, 1, &range))
        return nullptr;
    const SpinGuard guard(root_lock(root));
    const Found found = find<PoolSpace>(root, reinterpret_cast<std::uintptr_t>(va));
    const ptent_t e = load(found.slot);
    if (!is_leaf_at(found.level, e))
        return nullptr;
    const std::uint64_t span = std::uint64_t{1} << PDSHIFT(found.level);
    const physaddr_t pa = (PTE_ADDR(e) & ~(span - 1)) | (range.first & (span - 1));
    return dune_page_isfrompool(pa) ? dune_pa2page(pa) : nullptr;
}

int dune_vm_leaf_walk(ptent_t* root, void* start_va, void* end_va, dune_leaf_walk_cb cb,
                      void* arg) {
    const auto start = reinterpret_cast<std::uintptr_t>(start_va);
    const auto end = reinterpret_cast<std::uintptr_t>(end_va);
    if (root == nullptr || PGOFF(root) != 0 || cb == nullptr || start > end ||
        canonical(linear(start)) != start || canonical(linear(end)) != end)
        return -EINVAL;
    WalkCallbackOp op(cb, arg);
    walk_root<PoolSpace>(root, linear(start), linear(end), op);
    return op.result;
}

int dune_vm_page_walk(ptent_t* root, void* start_va, void* end_va, page_walk_cb cb,
                      const void* arg) {
    struct Context {
        page_walk_cb cb;
        const void* arg;
    } context{cb, arg};
    const auto call = [](void* to, ptent_t* slot, void* va, std::size_t) {
        const auto* const target = static_cast<Context*>(to);
        return target->cb(target->arg, slot, va);
    };
    return cb == nullptr ? -EINVAL : dune_vm_leaf_walk(root, start_va, end_va, call, &context);
}

physaddr_t dune_va_to_pa(void* va) {
    const auto address = reinterpret_cast<std::uintptr_t>(va);
    const physaddr_t known = slots().find(address);
    return known != 0 ? known : backing().va_to_pa(address).value_or(0);
}

physaddr_t dune_mmap_addr_to_pa(void* ptr) {
    return dune_va_to_pa(ptr);
}

physaddr_t dune_stack_addr_to_pa(void* ptr) {
    return dune_va_to_pa(ptr);
}
