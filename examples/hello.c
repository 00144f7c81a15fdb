/* SPDX-License-Identifier: MIT */
/* A C program in ring 0: everything goes on, and privileged instructions work. */
#include <libdune/dune.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    int ret = dune_init_and_enter();

    if (ret) /* why has been said on stderr */
        return 1;
    printf("process %d runs in ring %d, its page tables are at %#lx\n", (int)getpid(),
           read_cs() & 3, read_cr3());
    return 0;
}
