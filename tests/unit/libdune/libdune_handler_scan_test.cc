// SPDX-License-Identifier: MIT
//
// What the code of page-fault handlers shows that they need: in machine code by hand, since what a
// compiler makes is its own affair.
#include "runtime/handler_scan.h"

#include <gtest/gtest.h>

#include "libdune/dune.h"
#include "libdune/vm.h"
#include "mm/protect.h"

namespace dune::test {
namespace {

using rt::HandlerNeeds;
using rt::scan_handler;

extern "C" {
extern const char scan_nothing[], scan_mprotect[], scan_tail_call[], scan_frame[], scan_one_path[];
extern const char scan_preserved[], scan_local[], scan_vector[], scan_vector_in_callee[];
extern const char scan_vector_on_a_branch[], scan_pointer[], scan_pointer_in_data[], scan_loop[];
extern const char scan_recursion[], scan_return_address[], scan_above[], scan_stack_switch[];
extern const char scan_unbalanced[], scan_long[], scan_third_argument[], scan_back_from_callee[];
extern const char scan_jump_table[], scan_system_call[], scan_deep[], scan_read_only_pointer[];
}

// Each is a function; what calls dune_vm_mprotect() names it as a program does.
asm(R"(
	.text
scan_nothing:
	endbr64
	mov	%rdi, %rax
	and	$-4096, %rax
	invlpg	(%rax)
	ret
scan_mprotect:
	sub	$8, %rsp
	and	$-4096, %rdi
	mov	%rdi, %rsi
	xor	%edi, %edi
	mov	$4096, %edx
	mov	$3, %ecx
	call	dune_vm_mprotect
	add	$8, %rsp
	ret
scan_tail_call:
	mov	$4096, %edx
	jmp	dune_vm_mprotect
scan_third_argument:
	jmp	dune_vm_mprotect
scan_frame:
	addq	$3, 128(%rdx)
	ret
scan_one_path:
	test	%esi, %esi
	je	1f
	xor	%edx, %edx
1:	mov	(%rdx), %rax
	ret
scan_preserved:
	push	%rbx
	mov	%rdi, %rbx
	mov	$4096, %edx
	sub	$16, %rsp
	call	dune_vm_mprotect
	add	$16, %rsp
	pop	%rbx
	ret
scan_local:
	sub	$24, %rsp
	mov	%rdi, 16(%rsp)
	mov	16(%rsp), %rax
	add	$24, %rsp
	ret
scan_vector:
	movups	(%rdi), %xmm0
	ret
scan_vector_in_callee:
	call	scan_vector
	ret
scan_vector_on_a_branch:
	test	%esi, %esi
	jne	scan_vector
	ret
scan_pointer:
	call	*%rdi
	ret
scan_pointer_in_data:
	jmp	*scan_word(%rip)
scan_read_only_pointer:
	mov	$4096, %edx
	jmp	*scan_relro_word(%rip)
scan_loop:
	mov	$10, %ecx
1:	dec	%ecx
	jne	1b
	ret
scan_recursion:
	test	%esi, %esi
	je	1f
	call	scan_recursion
1:	ret
scan_return_address:
	push	%rdi
	mov	%rsi, 8(%rsp)
	pop	%rdi
	ret
scan_above:
	mov	8(%rsp), %rax
	ret
scan_stack_switch:
	mov	%rdi, %rsp
	ret
scan_unbalanced:
	push	%rdi
	ret
scan_long:
	.rept	1000
	inc	%eax
	.endr
	ret
scan_back_from_callee:
	call	scan_nothing
	mov	(%rdx), %rax
	ret
scan_jump_table:
	notrack jmp *%rax
scan_system_call:
	mov	$39, %eax
	syscall
	ret
scan_deep:
	.rept	500
	test	%esi, %esi
	je	1f
	.endr
1:	ret
	.data
	.balign	8
scan_word:
	.quad	dune_vm_mprotect
	.section .data.rel.ro, "aw"
	.balign	8
scan_relro_word:
	.quad	dune_vm_mprotect
	.zero	8192	# read-only pages are whole ones
	.text
)");

TEST(HandlerScan, TheRegistersThatAnyFunctionMayChange) {
    EXPECT_EQ(scan_handler(scan_nothing), HandlerNeeds::Scratch);
    EXPECT_EQ(scan_handler(scan_mprotect), HandlerNeeds::Scratch);
    EXPECT_EQ(scan_handler(scan_tail_call), HandlerNeeds::Scratch);
    EXPECT_EQ(scan_handler(scan_local), HandlerNeeds::Scratch);
    EXPECT_EQ(scan_handler(scan_loop), HandlerNeeds::Scratch);
    EXPECT_EQ(scan_handler(scan_recursion), HandlerNeeds::Scratch);
}

TEST(HandlerScan, AFrame) {
    EXPECT_EQ(scan_handler(scan_frame), HandlerNeeds::Frame);
    EXPECT_EQ(scan_handler(scan_one_path), HandlerNeeds::Frame);
    EXPECT_EQ(scan_handler(scan_preserved), HandlerNeeds::Frame);
    EXPECT_EQ(scan_handler(scan_third_argument), HandlerNeeds::Frame);
    EXPECT_EQ(scan_handler(scan_back_from_callee), HandlerNeeds::Frame);
}

TEST(HandlerScan, VectorRegisters) {
    EXPECT_EQ(scan_handler(scan_vector), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_vector_in_callee), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_vector_on_a_branch), HandlerNeeds::Vectors);
}

TEST(HandlerScan, WhatCannotBeFollowedNeedsAll) {
    EXPECT_EQ(scan_handler(scan_pointer), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_pointer_in_data), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_return_address), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_above), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_stack_switch), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_unbalanced), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_long), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_deep), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_jump_table), HandlerNeeds::Vectors);
    EXPECT_EQ(scan_handler(scan_system_call), HandlerNeeds::Vectors);
}

TEST(HandlerScan, AWordThatNobodyCanChange) {
    EXPECT_EQ(scan_handler(scan_read_only_pointer), HandlerNeeds::Scratch);
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
// What the functions of libdune/vm.h promise: a usual handler is compiled into one that needs
// little.
TEST(HandlerScan, AUsualHandlerAsCompiled) {
    const auto handler = [](std::uintptr_t address, std::uint64_t, dune_tf*) {
        dune_vm_mprotect(pgroot, reinterpret_cast<void*>(address & ~std::uintptr_t{4095}), PGSIZE,
                         PERM_R | PERM_W);
    };
    void (*const function)(std::uintptr_t, std::uint64_t, dune_tf*) = handler;
    EXPECT_EQ(scan_handler(reinterpret_cast<const void*>(function)), HandlerNeeds::Scratch);
}
#endif

}  // namespace
}  // namespace dune::test
