// SPDX-License-Identifier: MIT
#include "libdune/fpu.h"

#include <cpuid.h>
#include <sys/auxv.h>

#include <cstring>

#include "fpu_area.h"
#include "layout.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1UL << 1)
#endif

extern "C" {
// What the entry code asks. An area has room for the header of XSAVE, used or not.
__attribute__((visibility("hidden"))) std::uint8_t dune_have_xsave = 0;
__attribute__((visibility("hidden"))) std::uint32_t dune_fpu_area_size = sizeof(fxsave) + 64;
}

namespace dune::rt {
namespace {

bool have_xsaveopt = false;
constexpr std::size_t kXsaveHeader = 64;

}  // namespace

void fpu_detect() noexcept {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0)
        return;
    __cpuid_count(13, 0, a, b, c, d);  // EBX: the size of what XCR0 enables
    dune_fpu_area_size = (b + 63) & ~63U;
    dune_have_xsave = 1;
    __cpuid_count(13, 1, a, b, c, d);
    have_xsaveopt = (a & 1) != 0;
}

std::size_t fpu_area_size() noexcept {
    return dune_fpu_area_size;
}

bool have_xsave() noexcept {
    return dune_have_xsave != 0;
}

bool fast_entry_possible() noexcept {
    return have_xsaveopt && (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
}

void fpu_area_clear(std::uint8_t* area) noexcept {
    std::memset(area + FPU_OWNER, 0, 64);
    *reinterpret_cast<std::uint64_t*>(area + FPU_OWNER) = FPU_FREE;
    std::memset(area + sizeof(fxsave), 0, dune_have_xsave != 0 ? kXsaveHeader : std::size_t{0});
}

}  // namespace dune::rt

extern "C" {

size_t dune_fpu_size(void) {
    if (dune_have_xsave == 0)
        dune::rt::fpu_detect();
    return dune_fpu_area_size;
}

void dune_fpu_init(struct dune_fpu* fp) {
    std::memset(fp, 0, dune_fpu_size());
    // SDM vol. 1, table 13-1: the initial configuration; XSTATE_BV 0 says so for the rest.
    fp->legacy.fcw = 0x37f;
    fp->legacy.mxcsr = 0x1f80;
}

void dune_fpu_save(struct dune_fpu* fp) {
    if (dune_have_xsave != 0)
        asm volatile("xsave64 %0" : "+m"(*fp) : "a"(FPU_MASK_LOW), "d"(0) : "memory");
    else
        asm volatile("fxsave64 %0" : "=m"(fp->legacy));
}

void dune_fpu_load(const struct dune_fpu* fp) {
    if (dune_have_xsave != 0)
        asm volatile("xrstor64 %0" ::"m"(*fp), "a"(FPU_MASK_LOW), "d"(0) : "memory");
    else
        asm volatile("fxrstor64 %0" ::"m"(fp->legacy));
}

}  // extern "C"
