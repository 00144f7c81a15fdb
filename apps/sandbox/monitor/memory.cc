// SPDX-License-Identifier: MIT
//
// mmap and its relatives: the program's addresses stay in its part of the address space. What the
// mappings allow is Linux' business, as ever: ring 3's page table maps the whole part, and the EPT,
// which follows Linux' page table, has the rights.

#include "monitor/memory.h"

#include <errno.h>
#include <linux/mman.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "monitor/dispatch.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

namespace dune::sandbox {

namespace {

constexpr size_t kMaxRanges = 1 << 17;  // twice the default of vm.max_map_count
RangeSet::Range room[kMaxRanges];
RangeSet ranges(room, kMaxRanges);

constexpr uint64_t kHugePage = 2 << 20;

bool is_page_aligned(uint64_t value) {
    return value % kPageSize == 0;
}

uint64_t alignment_for(uint64_t length, uint64_t flags) {
    if ((flags & MAP_HUGETLB) != 0) {
        const uint64_t shift = (flags >> MAP_HUGE_SHIFT) & MAP_HUGE_MASK;
        return shift == 0 ? kHugePage : 1ull << shift;
    }
    return length >= kHugePage ? kHugePage : kPageSize;  // room for transparent huge pages
}

uint64_t choose(uint64_t hint, uint64_t length, uint64_t flags) {
    hint = page_down(hint);
    if (hint != 0 && mappable(hint, length) && ranges.is_free(hint, hint + length)) {
        return hint;
    }
    const uint64_t align = alignment_for(length, flags);
    if ((flags & MAP_32BIT) != 0) {
        return ranges.find_free(length, align, kMapStart, 1ull << 31);
    }
    uint64_t found = ranges.find_free(length, align, kMapStart, process.map_top);
    if (found == 0) {
        found = ranges.find_free(length, kPageSize, kMapStart, kMapEnd);
    }
    return found;
}

long map_fixed(uint64_t addr, uint64_t length, uint64_t prot, uint64_t flags, uint64_t fd,
               uint64_t offset) {
    if (!is_page_aligned(addr)) {
        return -EINVAL;
    }
    if (!mappable(addr, length)) {
        return -ENOMEM;
    }
    const long result = host_call(SYS_mmap, addr, length, prot, flags, fd, offset);
    if (!is_error(result) && !ranges.add(addr, addr + length)) {
        host_call(SYS_munmap, addr, length);
        return -ENOMEM;
    }
    return result;
}

// With other threads, a file is mapped under the lock of descriptors: none of the monitor's is to
// be mapped in the moment before it has its reserved number.
long do_mmap(const uint64_t a[6]) {
    if ((a[5] & (kPageSize - 1)) != 0) {
        return -EINVAL;
    }
    const bool lock = (a[3] & MAP_ANONYMOUS) == 0 && process.threads.load() > 1;
    if (lock) {
        process.fd_lock.lock();
    }
    const long result = map_for_program(a[0], a[1], a[2], a[3], a[4], a[5]);
    if (lock) {
        process.fd_lock.unlock();
    }
    return result;
}

long do_munmap(uint64_t addr, uint64_t length) {
    length = page_up(length);
    if (!is_page_aligned(addr) || length == 0 || !in_user(addr, length)) {
        return -EINVAL;
    }
    LockGuard guard(process.memory_lock);
    const long result = host_call(SYS_munmap, addr, length);
    if (result == 0) {
        ranges.remove(addr, addr + length);
    }
    return result;
}

// A call that acts on the mappings of a range and cannot move them.
long do_on_range(Call& call) {
    const uint64_t length = page_up(call.args[1]);
    if (length < call.args[1] || !in_user(call.args[0], length)) {
        return -ENOMEM;
    }
    return pass(call);
}

long do_mprotect(Call& call) {
    // The program's stack is an ordinary mapping: there is nothing to grow.
    call.args[2] &= ~static_cast<uint64_t>(PROT_GROWSDOWN | PROT_GROWSUP);
    if (call.number == SYS_pkey_mprotect) {
        if (static_cast<int>(call.args[3]) != -1) {
            return -EINVAL;  // protection keys are not offered
        }
        call.number = SYS_mprotect;
    }
    return do_on_range(call);
}

long do_madvise(Call& call) {
    const int advice = static_cast<int>(call.args[2]);
    if (advice == MADV_HWPOISON || advice == MADV_SOFT_OFFLINE) {
        return -EPERM;
    }
    return do_on_range(call);
}

long move_range(uint64_t from, uint64_t old_length, uint64_t new_length, uint64_t flags) {
    const uint64_t to = choose(0, new_length, 0);
    if (to == 0) {
        return -ENOMEM;
    }
    const long result =
        host_call(SYS_mremap, from, old_length, new_length, flags | MREMAP_FIXED, to);
    if (!is_error(result)) {
        if ((flags & MREMAP_DONTUNMAP) == 0 && old_length != 0) {
            ranges.remove(from, from + old_length);
        }
        ranges.add(to, to + new_length);
    }
    return result;
}

long do_mremap(const uint64_t args[6]) {
    const uint64_t from = args[0];
    const uint64_t old_length = page_up(args[1]);
    const uint64_t new_length = page_up(args[2]);
    const uint64_t flags = args[3];
    if (!is_page_aligned(from) || new_length == 0 || old_length < args[1] || new_length < args[2] ||
        (flags & ~7ull) != 0) {
        return -EINVAL;
    }
    if (!mappable(from, old_length) || new_length > kMapEnd) {
        return -EFAULT;
    }
    LockGuard guard(process.memory_lock);
    if ((flags & MREMAP_FIXED) != 0) {
        if (!is_page_aligned(args[4]) || !mappable(args[4], new_length)) {
            return -EINVAL;
        }
        const long result = host_call(SYS_mremap, from, old_length, new_length, flags, args[4]);
        if (!is_error(result)) {
            if ((flags & MREMAP_DONTUNMAP) == 0) {
                ranges.remove(from, from + old_length);
            }
            ranges.add(args[4], args[4] + new_length);
        }
        return result;
    }
    if ((flags & MREMAP_DONTUNMAP) == 0 && old_length != 0) {
        // Where it is, if it fits there; it must not grow into the gap.
        if (new_length <= old_length || mappable(from, new_length)) {
            const long result = host_call(SYS_mremap, from, old_length, new_length, 0, 0);
            if (result != -ENOMEM || (flags & MREMAP_MAYMOVE) == 0) {
                if (!is_error(result)) {
                    ranges.remove(from, from + old_length);
                    ranges.add(from, from + new_length);
                }
                return result;
            }
        }
    }
    if ((flags & MREMAP_MAYMOVE) == 0) {
        return (flags & MREMAP_DONTUNMAP) != 0 ? -EINVAL : -ENOMEM;
    }
    return move_range(from, old_length, new_length, flags);
}

long do_brk(uint64_t wanted) {
    LockGuard guard(process.memory_lock);
    if (wanted < process.brk_start) {
        return static_cast<long>(process.brk_now);
    }
    const uint64_t old_end = page_up(process.brk_now);
    const uint64_t new_end = page_up(wanted);
    if (new_end < old_end) {
        if (host_call(SYS_munmap, new_end, old_end - new_end) != 0) {
            return static_cast<long>(process.brk_now);
        }
        ranges.remove(new_end, old_end);
    } else if (new_end > old_end) {
        const uint64_t length = new_end - old_end;
        if (!mappable(old_end, length) || !ranges.is_free(old_end, new_end) ||
            is_error(map_fixed(old_end, length, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0))) {
            return static_cast<long>(process.brk_now);
        }
    }
    process.brk_now = wanted;
    return static_cast<long>(wanted);
}

long do_shmat(const uint64_t args[6]) {
    shmid_ds info{};
    if (const long result = host_call(SYS_shmctl, args[0], IPC_STAT, &info); is_error(result)) {
        return result;
    }
    const uint64_t length = page_up(info.shm_segsz);
    uint64_t flags = args[2];
    uint64_t addr = args[1];
    LockGuard guard(process.memory_lock);
    if (addr == 0 && (flags & SHM_REMAP) != 0) {
        return -EINVAL;
    }
    if (addr != 0) {
        addr = (flags & SHM_RND) != 0 ? page_down(addr) : addr;
        if (!is_page_aligned(addr) || !mappable(addr, length)) {
            return -EINVAL;
        }
    } else {
        addr = choose(0, length, 0);
        if (addr == 0) {
            return -ENOMEM;
        }
    }
    if ((flags & SHM_REMAP) != 0) {
        // Room is made here: where the segment turns out to be larger, for it is of large pages or
        // not the one that was asked for, Linux is to refuse, not to replace what follows.
        if (const long error = host_call(SYS_munmap, addr, length); is_error(error)) {
            return error;
        }
        ranges.remove(addr, addr + length);
    }
    const long result = host_call(SYS_shmat, args[0], addr, flags & ~uint64_t{SHM_REMAP});
    if (!is_error(result)) {
        ranges.add(addr, addr + length);
    }
    return result;
}

}  // namespace

void prepare_memory(uint64_t map_top) {
    process.ranges = &ranges;
    process.map_top = map_top;
}

uint64_t find_range(uint64_t length, uint64_t align) {
    return ranges.find_free(length, align, kMapStart, process.map_top);
}

long map_for_program(uint64_t addr, uint64_t length, uint64_t prot, uint64_t flags, uint64_t fd,
                     uint64_t offset) {
    if (length == 0) {
        return -EINVAL;
    }
    const uint64_t size = page_up(length);
    if (size < length || size > kMapEnd) {
        return -ENOMEM;
    }
    const uint64_t align = alignment_for(0, flags);
    const uint64_t rounded = (size + align - 1) & ~(align - 1);
    flags &= ~static_cast<uint64_t>(MAP_GROWSDOWN);
    LockGuard guard(process.memory_lock);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) {
        return map_fixed(addr, rounded, prot, flags, fd, offset);
    }
    for (;;) {
        const uint64_t chosen = choose(addr, rounded, flags);
        if (chosen == 0) {
            return -ENOMEM;
        }
        const uint64_t exact = (flags & ~static_cast<uint64_t>(MAP_32BIT)) | MAP_FIXED_NOREPLACE;
        const long result = map_fixed(chosen, rounded, prot, exact, fd, offset);
        if (result != -EEXIST) {
            return result;
        }
        // Something is there that the program did not map through the monitor: step over it.
        ranges.add(chosen, chosen + rounded);
    }
}

long do_memory(Call& call) {
    const uint64_t* args = call.args;
    switch (call.number) {
        case SYS_mmap:
            return do_mmap(args);
        case SYS_munmap:
            return do_munmap(args[0], args[1]);
        case SYS_mprotect:
        case SYS_pkey_mprotect:
            return do_mprotect(call);
        case SYS_mremap:
            return do_mremap(args);
        case SYS_brk:
            return do_brk(args[0]);
        case SYS_madvise:
            return do_madvise(call);
        case SYS_shmat:
            return do_shmat(args);
        case SYS_shmdt:
            return starts_in_user(args[0]) ? pass(call) : -EINVAL;
        default:
            return do_on_range(call);
    }
}

}  // namespace dune::sandbox
