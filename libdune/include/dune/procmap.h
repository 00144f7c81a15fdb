// SPDX-License-Identifier: MIT
/**
 * @file
 * The process' memory map for C++: dune_procmap_iterate() with a callable that has a state.
 */
#pragma once

#include <memory>
#include <type_traits>

#include "dune/result.h"
#include "libdune/procmap.h"

namespace dune {

/** What for_each_area() stands on: calls `call(context, area)`; the result of the first that is
 * not 0 ends it and is returned. */
int procmap_iterate(int (*call)(void* context, const dune_procmap_entry& area),
                    void* context) noexcept;

/**
 * Call `callable(const dune_procmap_entry&)` for each area of /proc/self/maps in ascending order.
 *
 * If it returns int, a result other than 0 ends the iteration and is the error.
 * Context: as dune_procmap_iterate().
 */
template <class Callable>
Result<void> for_each_area(Callable&& callable) noexcept {
    using Decayed = std::remove_reference_t<Callable>;
    const auto call = [](void* context, const dune_procmap_entry& area) -> int {
        auto& target = *static_cast<Decayed*>(context);
        if constexpr (std::is_void_v<std::invoke_result_t<Decayed&, const dune_procmap_entry&>>) {
            target(area);
            return 0;
        } else {
            return target(area);
        }
    };
    return Result<void>::from(procmap_iterate(call, std::addressof(callable)));
}

}  // namespace dune
