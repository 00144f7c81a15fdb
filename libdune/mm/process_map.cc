// SPDX-License-Identifier: MIT
#include "process_map.h"

#include <algorithm>
#include <cerrno>

#include "backing.h"
#include "slots.h"

namespace dune::mm {

int map_process_memory(ptent_t* root, void* va, std::size_t len, int perm) noexcept {
    const auto start = reinterpret_cast<std::uintptr_t>(va);
    if (len == 0 || len > SlotMap::kVirtual * SlotMap::kSize)
        return -EINVAL;
    for (std::size_t done = 0; done < len;) {
        const std::uintptr_t here = start + done;
        const std::size_t piece = std::min(len - done, SlotMap::kSize - here % SlotMap::kSize);
        const Result<physaddr_t> pa = backing().va_to_pa(here);
        if (!pa)
            return pa.code();
        if (const int rc = dune_vm_map_phys(root, reinterpret_cast<void*>(here), piece,
                                            reinterpret_cast<void*>(*pa), perm);
            rc != 0)
            return rc;
        done += piece;
    }
    return 0;
}

}  // namespace dune::mm
