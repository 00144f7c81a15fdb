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

static __always_inline u16 vmcs_read16(unsigned long field)
{
	VMCS_CHECK(field, 0);
	return __vmcs_read(field);
}

static __always_inline u64 vmcs_read64(unsigned long field)
{
	VMCS_CHECK(field, 1);
	return __vmcs_read(field);
}

static __always_inline u32 vmcs_read32(unsigned long field)
{
	VMCS_CHECK(field, 2);
	return __vmcs_read(field);
}

static __always_inline unsigned long vmcs_readl(unsigned long field)
{
	VMCS_CHECK(field, 3);
	return __vmcs_read(field);
}

static __always_inline void vmcs_write16(unsigned long field, u16 val)
{
	VMCS_CHECK(field, 0);
	__vmcs_write(field, val);
}

static __always_inline void vmcs_write64(unsigned long field, u64 val)
{
	VMCS_CHECK(field, 1);
	__vmcs_write(field, val);
}

static __always_inline void vmcs_write32(unsigned long field, u32 val)
{
	VMCS_CHECK(field, 2);
	__vmcs_write(field, val);
}

static __always_inline void vmcs_writel(unsigned long field, unsigned long val)
{
	VMCS_CHECK(field, 3);
	__vmcs_write(field, val);
}

/*
 * These return true when they failed. Their operands lie in memory, and not on the stack, where each
 * function that has one would get a stack protector's canary for it.
 */
static __always_inline bool vmx_vmptrld(const u64 *pa)
{
	bool fail;

	asm volatile("vmptrld %[pa]" : "=@ccbe"(fail) : [pa] "m"(*pa) : "memory");
	return fail;
}

static __always_inline bool vmx_vmclear(const u64 *pa)
{
	bool fail;

	asm volatile("vmclear %[pa]" : "=@ccbe"(fail) : [pa] "m"(*pa) : "memory");
	return fail;
}

static __always_inline bool vmx_vmxon(const u64 *pa)
{
	bool fail;

	asm volatile("vmxon %[pa]" : "=@ccbe"(fail) : [pa] "m"(*pa) : "memory");
	return fail;
}

static __always_inline void vmx_vmxoff(void)
{
	asm volatile("vmxoff" : : : "cc", "memory");
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
