/* SPDX-License-Identifier: MIT */
/*
 * A program of plain C, as they were written for the published interface: built as one that is
 * linked statically or not, at a fixed address or not. Exit status 0 if everything worked.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libdune/cpu-x86.h"
#include "libdune/dune.h"
#include "libdune/elf.h"
#include "libdune/fpu.h"
#include "libdune/mmu.h"

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

static volatile int hits;

/* ---- traps and signals --------------------------------------------------------------------- */

static void skip_ud2(struct dune_tf* tf) {
    ++hits;
    tf->rip += 2;
}

static void count_signal(struct dune_tf* tf) {
    (void)tf;
    ++hits;
}

static void count_dune_signal(int sig) {
    hits += sig == SIGUSR2;
}

static void test_traps(void) {
    hits = 0;
    CHECK(dune_register_intr_handler(T_ILLOP, skip_ud2) == 0);
    __asm__ volatile("ud2");
    CHECK(hits == 1);
    CHECK(dune_register_intr_handler(T_PGFLT, skip_ud2) < 0);
    CHECK(dune_register_signal_handler(SIGUSR1, count_signal) == 0);
    raise(SIGUSR1);
    CHECK(hits == 2);
    CHECK(dune_signal(SIGUSR2, count_dune_signal) != SIG_ERR);
    raise(SIGUSR2);
    CHECK(hits == 3);
}

/* ---- pages and page tables ------------------------------------------------------------------ */

static void test_pages(void) {
    struct page* pg = dune_page_alloc();

    CHECK(pg != NULL);
    CHECK(dune_page_isfrompool(dune_page2pa(pg)));
    CHECK(dune_pa2page(dune_page2pa(pg)) == pg);
    CHECK(dune_page2pa(pg) >= PAGEBASE);
    dune_page_get(pg);
    dune_page_put(pg);
    dune_page_free(pg);
    dune_page_stats();
}

static char* barrier;

static void allow_write(uintptr_t addr, uint64_t fec, struct dune_tf* tf) {
    (void)tf;
    hits += (fec & FEC_W) != 0;
    CHECK(dune_vm_mprotect(pgroot, (void*)PGADDR(addr), PGSIZE, PERM_R | PERM_W) == 0);
}

static int count_entry(const void* arg, ptent_t* ptep, void* va) {
    (void)va;
    *(int*)*(void* const*)arg += *ptep != 0;
    return 0;
}

static void test_tables(void) {
    void* const va = (void*)0x300000000000;
    int entries = 0;
    void* counter = &entries;
    ptent_t* pte = NULL;
    ptent_t* copy;
    int perm = PERM_R; /* not a constant to the compiler */

    CHECK(dune_vm_map_pages(pgroot, va, 8 * PGSIZE, PERM_R | PERM_W) == 0);
    memset(va, 1, 8 * PGSIZE);
    CHECK(dune_vm_lookup(pgroot, va, CREATE_NONE, &pte) == 0 && (*pte & PTE_P));
    CHECK(dune_vm_lookup_page(pgroot, va) != NULL);
    CHECK(dune_vm_page_walk(pgroot, va, (char*)va + 8 * PGSIZE - 1, count_entry, &counter) == 0);
    CHECK(entries == 8);

    copy = dune_vm_clone(pgroot);
    CHECK(copy != NULL);
    dune_register_pgflt_handler(NULL);
    *(volatile char*)va = 2; /* copy on write */
    CHECK(*(volatile char*)va == 2);
    dune_vm_free(copy);
    CHECK(dune_vm_unmap(pgroot, va, 8 * PGSIZE) == 0);
    CHECK(dune_vm_unmap(pgroot, va, 8 * PGSIZE) < 0);

    barrier =
        dune_mmap(NULL, 4 * PGSIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(barrier != MAP_FAILED);
    memset(barrier, 0, 4 * PGSIZE);
    hits = 0;
    dune_register_pgflt_handler(allow_write);
    CHECK(dune_vm_mprotect(pgroot, barrier, 4 * PGSIZE, perm) == 0);
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 4; ++i)
            *(volatile char*)(barrier + i * PGSIZE) = 1;
        CHECK(hits == 4 * (round + 1));
        for (int i = 0; i < 4; ++i)
            CHECK(dune_vm_mprotect(pgroot, barrier + i * PGSIZE, PGSIZE, PERM_R) == 0);
    }
    CHECK((dune_vm_mprotect)(pgroot, barrier, PGSIZE, PERM_R | PERM_W) == 0);
    *(volatile char*)barrier = 1;
    CHECK(hits == 12);
    CHECK(dune_vm_mprotect(pgroot, barrier + 1, PGSIZE, PERM_R) == -EINVAL);
    CHECK(dune_vm_mprotect(pgroot, (void*)0x310000000000, PGSIZE, PERM_R) == -EINVAL);
    CHECK(dune_vm_mprotect(pgroot, barrier, PGSIZE, PERM_W) == -EINVAL);
    dune_register_pgflt_handler(NULL);
    load_cr3(read_cr3());
    dune_flush_tlb();
    dune_flush_tlb_one((unsigned long)barrier);
}

/* ---- ring 3 --------------------------------------------------------------------------------- */

static void on_syscall(struct dune_tf* tf) {
    if (tf->rax == 1000)
        dune_ret_from_user(ARG0(tf) == (unsigned long)getpid() ? 7 : 8);
    dune_passthrough_syscall(tf);
}

static void test_ring3(void) {
    /* mov $39, %eax; syscall; mov %rax, %rdi; mov $1000, %eax; syscall: getpid() to the handler */
    static const unsigned char code[] = {0xb8, 39,   0,    0, 0, 0x0f, 0x05, 0x48, 0x89,
                                         0xc7, 0xb8, 0xe8, 3, 0, 0,    0x0f, 0x05};
    char* const page =
        mmap(NULL, PGSIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct dune_tf tf;

    CHECK(page != MAP_FAILED);
    memcpy(page, code, sizeof(code));
    CHECK(dune_vm_map_phys(pgroot, page, PGSIZE, (void*)dune_mmap_addr_to_pa(page), PERM_UCODE) ==
          0);
    dune_register_syscall_handler(on_syscall);
    memset(&tf, 0, sizeof(tf));
    tf.rip = (uint64_t)page;
    tf.rsp = (uint64_t)page + PGSIZE;
    dune_set_user_fs(0x1000);
    CHECK(dune_jump_to_user(&tf) == 7);
    CHECK(dune_get_user_fs() == 0x1000);
    /* Page faults still find their handler, now that there is a ring 3. */
    hits = 0;
    dune_register_pgflt_handler(allow_write);
    CHECK(dune_vm_mprotect(pgroot, barrier, PGSIZE, PERM_R) == 0);
    *(volatile char*)barrier = 3;
    CHECK(hits == 1);
    dune_register_pgflt_handler(NULL);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static int areas;

static void count_area(const struct dune_procmap_entry* entry) {
    areas += entry->end > entry->begin;
}

static int count_header(struct dune_elf* elf, Elf64_Phdr* phdr) {
    ++*(int*)elf->priv;
    return phdr->p_filesz > phdr->p_memsz;
}

static void test_files(void) {
    struct dune_elf elf;
    int headers = 0;

    CHECK(dune_procmap_iterate(count_area) == 0 && areas > 3);
    CHECK(dune_elf_open(&elf, "/proc/self/exe") == 0);
    elf.priv = &headers;
    CHECK(dune_elf_iter_ph(&elf, count_header) == 0 && headers == elf.hdr.e_phnum);
    CHECK(dune_elf_close(&elf) == 0);
    CHECK(dune_elf_open(&elf, "/nonexistent") < 0);
}

static void* enter_in_thread(void* result) {
    *(int*)result = dune_enter();
    return dune_in_guest() ? result : NULL;
}

static void test_threads_and_processes(void) {
    pthread_t thread;
    void* returned = NULL;
    int result = 1;
    int status = 0;
    pid_t pid;

    CHECK(pthread_create(&thread, NULL, enter_in_thread, &result) == 0);
    CHECK(pthread_join(thread, &returned) == 0 && returned == &result && result == 0);
    pid = fork();
    if (pid == 0)
        _exit(dune_enter() == 0 && dune_in_guest() ? 42 : 1);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK(dune_leave() == 0 && !dune_in_guest());
    CHECK(dune_leave() < 0);
    CHECK(dune_enter() == 0 && dune_in_guest());
}

static void test_fpu(void) {
    static struct dune_fpu state;
    double number = 1.5;

    dune_fpu_init(&state);
    dune_fpu_save(&state);
    dune_fpu_load(&state);
    CHECK(number * 2 == 3.0);
}

int main(void) {
    CHECK(dune_enter() < 0);
    CHECK(dune_init_and_enter() == 0);
    CHECK(dune_in_guest());
    CHECK(dune_get_ticks() != 0);
    dune_printf("ring %d\n", read_cs() & 3);
    test_traps();
    test_pages();
    test_tables();
    test_ring3();
    test_files();
    test_threads_and_processes();
    test_fpu();
    return 0;
}
