/* SPDX-License-Identifier: GPL-2.0-only */
/* VMX instructions and VMCS accessors. A field of the wrong width does not compile. */
#ifndef DUNE_VMX_VMCS_H
#define DUNE_VMX_VMCS_H

#include <linux/build_bug.h>
#include <linux/types.h>
#include <asm/vmx.h>

/* SDM 25.11.2: bits 14:13 of a field's encoding are its width, bit 0 asks for the high half. */
#define VMCS_WIDTH(field) ((field) >> 13 & 3)
#define VMCS_CHECK(field, width)								\
	BUILD_BUG_ON_MSG(__builtin_constant_p(field) &&						\
			 (VMCS_WIDTH(field) != (width) || ((field) & 1)), "VMCS field width")

void vmx_insn_failed(const char *insn, unsigned long field);

static __always_inline unsigned long __vmcs_read(unsigned long field)
{
	unsigned long val;
	bool fail;

	asm volatile("vmread %[field], %[val]"
		     : [val] "=r"(val), "=@ccbe"(fail) : [field] "r"(field));
	if (unlikely(fail)) {
		vmx_insn_failed("vmread", field);
		return 0;
	}
	return val;
}

static __always_inline void __vmcs_write(unsigned long field, unsigned long val)
{
	bool fail;

	asm volatile("vmwrite %[val], %[field]"
		     : "=@ccbe"(fail) : [field] "r"(field), [val] "r"(val));
	if (unlikely(fail))
		vmx_insn_failed("vmwrite", field);
}

#define VMCS_ACCESSORS(suffix, type, width)						\
static __always_inline type vmcs_read##suffix(unsigned long field)			\
{											\
	VMCS_CHECK(field, width);							\
	return __vmcs_read(field);							\
}											\
static __always_inline void vmcs_write##suffix(unsigned long field, type val)		\
{											\
	VMCS_CHECK(field, width);							\
	__vmcs_write(field, val);							\
}

VMCS_ACCESSORS(16, u16, 0)
VMCS_ACCESSORS(64, u64, 1)
VMCS_ACCESSORS(32, u32, 2)
VMCS_ACCESSORS(l, unsigned long, 3)

/*
 * These return true when they failed. Their operands lie in memory, and not on the stack, where each
 * function that has one would get a stack protector's canary for it.
 */
#define VMX_INSN(insn)									\
static __always_inline bool vmx_##insn(const u64 *pa)					\
{											\
	bool fail;									\
	asm volatile(#insn " %[pa]" : "=@ccbe"(fail) : [pa] "m"(*pa) : "memory");	\
	return fail;									\
}

VMX_INSN(vmptrld)
VMX_INSN(vmclear)
VMX_INSN(vmxon)

static __always_inline void vmx_vmxoff(void)
{
	asm volatile("vmxoff" : : : "cc", "memory");
}

/* The register itself: the kernel's shadow of it is not for modules on every kernel. */
#define READ_CR(n)									\
({											\
	unsigned long __cr;								\
	asm volatile("mov %%cr" #n ", %0" : "=r"(__cr));				\
	__cr;										\
})

/* The instructions themselves, on MSRs that every CPU has: the kernel's are paravirt calls. */
static __always_inline u64 read_msr_now(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return low | (u64)high << 32;
}

static __always_inline void write_msr_now(u32 msr, u64 val)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)val), "d"((u32)(val >> 32)) : "memory");
}

#define VMX_NO_VMCS (~0ull)	/* VMPTRST's answer when none is current */

static __always_inline u64 vmx_vmptrst(u64 *pa)
{
	asm volatile("vmptrst %[pa]" : [pa] "=m"(*pa) : : "cc", "memory");
	return *pa;
}

/* SDM 30.3 INVEPT: type 1 is one EP4TA, type 2 all of them. */
static __always_inline bool vmx_invept(unsigned long type, u64 eptp)
{
	struct { u64 eptp, zero; } desc = { eptp, 0 };
	bool fail;

	asm volatile("invept %[desc], %[type]"
		     : "=@ccbe"(fail) : [type] "r"(type), [desc] "m"(desc) : "memory");
	return fail;
}

#endif
