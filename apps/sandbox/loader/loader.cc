// SPDX-License-Identifier: MIT

#include "loader/loader.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "monitor/memory.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace dune::sandbox {

namespace {

Elf64_Phdr headers[kMaxHeaders];

constexpr uint64_t kMinStack = 256 << 10;
constexpr uint64_t kMaxStack = 256ull << 20;  // where the limit is larger, or none
constexpr uint64_t kDefaultMinSigStack = 2048;

struct Image {
    uint64_t bias = 0;
    uint64_t entry = 0;
    uint64_t end = 0;  // of the last segment
    uint64_t phdr = 0;
    unsigned phnum = 0;
    bool executable_stack = false;
};

uint64_t random_pages(unsigned bits) {
    uint64_t value = 0;
    host_call(SYS_getrandom, &value, sizeof(value), 0);
    return (value & ((1ull << bits) - 1)) * kPageSize;
}

uint64_t protection(const Elf64_Phdr& p) {
    return ((p.p_flags & PF_R) != 0 ? PROT_READ : 0u) |
           ((p.p_flags & PF_W) != 0 ? PROT_WRITE : 0u) | ((p.p_flags & PF_X) != 0 ? PROT_EXEC : 0u);
}

// One PT_LOAD: the file's part, zeros to the end of its last page, anonymous memory behind.
long map_segment(long fd, const Elf64_Phdr& p, uint64_t bias) {
    const uint64_t start = page_down(p.p_vaddr + bias);
    const uint64_t file_end = p.p_vaddr + bias + p.p_filesz;
    const uint64_t end = page_up(p.p_vaddr + bias + p.p_memsz);
    const uint64_t prot = protection(p);
    uint64_t mapped = start;
    if (p.p_filesz != 0) {
        mapped = page_up(file_end);
        const long result = map_for_program(start, mapped - start, prot, MAP_PRIVATE | MAP_FIXED,
                                            static_cast<uint64_t>(fd), page_down(p.p_offset));
        if (is_error(result)) {
            return result;
        }
        if (p.p_memsz > p.p_filesz && (prot & PROT_WRITE) != 0) {
            memset(reinterpret_cast<void*>(file_end), 0, mapped - file_end);
        }
    }
    if (end > mapped) {
        const long result = map_for_program(mapped, end - mapped, prot,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0);
        if (is_error(result)) {
            return result;
        }
    }
    return 0;
}

struct Span {
    uint64_t low = ~0ull, high = 0, align = kPageSize;
};

Span span_of(unsigned count) {
    Span span;
    for (unsigned i = 0; i < count; i++) {
        const Elf64_Phdr& p = headers[i];
        if (p.p_type == PT_LOAD) {
            span.low = std::min(span.low, page_down(p.p_vaddr));
            span.high = std::max(span.high, page_up(p.p_vaddr + p.p_memsz));
            if ((p.p_align & (p.p_align - 1)) == 0 && p.p_align <= 1ull << 30) {
                span.align = std::max<uint64_t>(span.align, p.p_align);
            }
        }
    }
    return span;
}

// Reserves room for an image; `wanted` is where it goes if it has no fixed place, 0: anywhere.
long reserve(const Elf64_Ehdr& header, const Span& span, uint64_t wanted, uint64_t* bias) {
    constexpr uint64_t kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (span.high <= span.low) {
        return -ENOEXEC;
    }
    const uint64_t size = span.high - span.low;
    uint64_t at = span.low;
    if (header.e_type == ET_DYN) {
        at = wanted & ~(span.align - 1);
        if (wanted == 0) {
            at = find_range(size, span.align);
        }
    }
    const long result = map_for_program(at, size, PROT_NONE, kFlags, ~0ull, 0);
    if (is_error(result)) {
        return result == -EEXIST ? -ENOMEM : result;
    }
    *bias = at - span.low;
    return 0;
}

long map_image(ReservedFd file, uint64_t wanted, Image& image) {
    Elf64_Ehdr header{};
    const long fd = reserved_fd(file);
    if (const long error = read_elf(fd, header, headers)) {
        return error;
    }
    if (const long error = reserve(header, span_of(header.e_phnum), wanted, &image.bias)) {
        return error;
    }
    for (unsigned i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr& p = headers[i];
        if (p.p_type == PT_LOAD) {
            if (const long error = map_segment(fd, p, image.bias)) {
                return error;
            }
            image.end = std::max(image.end, p.p_vaddr + p.p_memsz + image.bias);
            if (header.e_phoff >= p.p_offset && header.e_phoff < p.p_offset + p.p_filesz) {
                image.phdr = header.e_phoff - p.p_offset + p.p_vaddr + image.bias;
            }
        } else if (p.p_type == PT_GNU_STACK) {
            image.executable_stack = (p.p_flags & PF_X) != 0;
        }
    }
    image.entry = header.e_entry + image.bias;
    image.phnum = header.e_phnum;
    return 0;
}

long map_stack(uint64_t top, bool executable, uint64_t needed) {
    rlimit limit{};
    host_call(SYS_prlimit64, 0, RLIMIT_STACK, 0, &limit);
    const uint64_t size = page_down(std::clamp<uint64_t>(limit.rlim_cur, kMinStack, kMaxStack));
    if (needed > size / 4) {
        return -E2BIG;
    }
    const uint64_t prot = PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0);
    const long result = map_for_program(
        top - size, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK | MAP_FIXED,
        ~0ull, 0);
    return is_error(result) ? result : 0;
}

void place_brk(const Image& program) {
    process.brk_start = page_up(program.end) + random_pages(13);
    process.brk_now = process.brk_start;
}

// As Linux gives them: the C library of the runtime has put something else there.
uint64_t hardware_capabilities() {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    return d;
}

uint64_t make_stack(uint64_t top, const ExecImage& exec, const Image& program, uint64_t interp_base,
                    uint64_t vdso) {
    uint8_t random[16];
    host_call(SYS_getrandom, random, sizeof(random), 0);
    const uint64_t min_stack = getauxval(AT_MINSIGSTKSZ);
    AuxValue aux[] = {
        {AT_SYSINFO_EHDR, vdso},
        {AT_HWCAP, hardware_capabilities()},
        {AT_PAGESZ, kPageSize},
        {AT_CLKTCK, getauxval(AT_CLKTCK)},
        {AT_PHDR, program.phdr},
        {AT_PHENT, sizeof(Elf64_Phdr)},
        {AT_PHNUM, program.phnum},
        {AT_BASE, interp_base},
        {AT_FLAGS, 0},
        {AT_ENTRY, program.entry},
        {AT_UID, getauxval(AT_UID)},
        {AT_EUID, getauxval(AT_EUID)},
        {AT_GID, getauxval(AT_GID)},
        {AT_EGID, getauxval(AT_EGID)},
        {AT_SECURE, 0},
        {AT_RANDOM, kRandomAt},
        {AT_HWCAP2, getauxval(AT_HWCAP2)},
        {AT_EXECFN, kExecFnAt},
        {AT_PLATFORM, kPlatformAt},
        {AT_MINSIGSTKSZ, min_stack != 0 ? min_stack : kDefaultMinSigStack},
        {AT_NULL, 0},
    };
    static_assert(std::size(aux) <= StartInfo::kMaxAux);
    AuxValue* const first = vdso == 0 ? aux + 1 : aux;
    return build_stack(top - (random_pages(1) + random[0] * 16), exec, first,
                       static_cast<size_t>(std::end(aux) - first), random)
        .sp;
}

}  // namespace

long load_program(Thread& thread, const ExecImage& exec, uint64_t vdso) {
    // As Linux: the stack at the top, mappings below it, the program at 2/3, each at random.
    const uint64_t stack_top = kMapEnd - random_pages(22);
    prepare_memory(stack_top - kMaxStack - random_pages(16));

    Image program;
    if (const long error = map_image(kProgramFd, kUserEnd / 3 * 2 + random_pages(28), program)) {
        return error;
    }
    Image interp;
    if (exec.has_interp) {
        if (const long error = map_image(kInterpFd, 0, interp)) {
            return error;
        }
    }
    const uint64_t needed = exec.used + (exec.argc + exec.envc) * sizeof(uint64_t);
    if (const long error = map_stack(stack_top, program.executable_stack, needed)) {
        return error;
    }
    place_brk(program);
    thread.frame = {};
    thread.frame.rip = exec.has_interp ? interp.entry : program.entry;
    thread.frame.rsp = make_stack(stack_top, exec, program, interp.bias, vdso);
    thread.frame.rflags = 0x202;
    process.stack = thread.frame.rsp;
    return 0;
}

}  // namespace dune::sandbox
