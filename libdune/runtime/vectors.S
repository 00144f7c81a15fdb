/* SPDX-License-Identifier: MIT */
/* What the interrupt table points to: a stub for each vector, VECTOR_STUB_SIZE bytes each. */
#include "entry.h"

	.text

.macro STUBS variant
FUNCTION dune_vectors_\variant
	.set	vector, 0
	.rept	DUNE_NR_VECTORS
	.balign	VECTOR_STUB_SIZE
	/* The exceptions with an error code (SDM vol. 3, table 6-1); the others get one of 0. */
	.if	!(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	push	$0
	.endif
	push	$vector
	jmp	dune_trap_\variant
	.set	vector, vector + 1
	.endr
	END dune_vectors_\variant
.endm

	STUBS fast
	STUBS legacy

	.section .note.GNU-stack, "", @progbits
