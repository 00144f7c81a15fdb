// SPDX-License-Identifier: MIT

#include "logic.h"

#include "kern/vmx/vmx.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ull

struct vmx_config vmx_config;
struct dune_engine dune_vmx_engine;
const struct dune_engine* dune_engine = &dune_vmx_engine;
size_t shim_pages;
bool shim_five_levels;

static struct mm_struct mm;
static struct shim_task task = {&mm};
struct shim_task* current = &task;

static struct dune_process* proc;
static struct vmx_vcpu vmx;
static struct dune_vcpu_page page;
static struct vm_area_struct vma;
static void (*on_fault)(uint64_t va, bool write);
static void (*on_kick)(void);
static size_t kicks, locks;

/* --- what the shim promises --- */

void dune_debugfs_add(struct dune_process* shown) {
    (void)shown;
}

void dune_debugfs_remove(struct dune_process* shown) {
    (void)shown;
}

unsigned long get_zeroed_page(gfp_t gfp) {
    void* memory = aligned_alloc(PAGE_SIZE, 2 * PAGE_SIZE);

    (void)gfp;
    memset(memory, 0, 2 * PAGE_SIZE);
    shim_pages++;
    return (unsigned long)memory;
}

void __free_page(struct page* p) {
    shim_pages--;
    free((char*)p - PAGE_SIZE);
}

void shim_lock(int* held) {
    locks++;
    if ((*held)++)
        abort();
}

void shim_unlock(int* held) {
    if (--*held)
        abort();
}

static struct xa_entry* xa_at(struct xarray* xa, unsigned long index) {
    for (size_t i = 0; i < xa->count; i++)
        if (xa->entries[i].index == index)
            return &xa->entries[i];
    return NULL;
}

int xa_insert(struct xarray* xa, unsigned long index, void* value, gfp_t gfp) {
    (void)gfp;
    if (xa_at(xa, index))
        return -EBUSY;
    xa->entries = realloc(xa->entries, (xa->count + 1) * sizeof(*xa->entries));
    xa->entries[xa->count++] = (struct xa_entry){index, value};
    return 0;
}

void xa_erase(struct xarray* xa, unsigned long index) {
    struct xa_entry* entry = xa_at(xa, index);

    if (entry)
        *entry = xa->entries[--xa->count];
}

void xa_destroy(struct xarray* xa) {
    free(xa->entries);
    *xa = (struct xarray){NULL, 0};
}

void* shim_xa_find(struct xarray* xa, unsigned long* index, unsigned long last) {
    struct xa_entry* best = NULL;

    for (size_t i = 0; i < xa->count; i++) {
        struct xa_entry* e = &xa->entries[i];

        if (e->index >= *index && e->index <= last && (!best || e->index < best->index))
            best = e;
    }
    if (!best)
        return NULL;
    *index = best->index;
    return best->value;
}

struct vm_area_struct* vma_lookup(struct mm_struct* of, unsigned long addr) {
    (void)of;
    return addr >= vma.vm_start && addr < vma.vm_end ? &vma : NULL;
}

bool shim_touch(unsigned long addr, bool write) {
    if (addr < vma.vm_start || addr >= vma.vm_end ||
        !(vma.vm_flags & (write ? VM_WRITE : VM_READ | VM_WRITE | VM_EXEC)))
        return false;
    if (on_fault)
        on_fault(addr, write);
    return true;
}

void shim_kick(void) {
    void (*function)(void) = on_kick;

    on_kick = NULL;
    kicks++;
    if (function)
        function();
}

/* --- what the rest of the module does --- */

bool dune_vcpu_is_door(const struct vm_area_struct* area) {
    (void)area;
    return false;
}

int dune_tables_fill(struct dune_vcpu* vcpu) {
    while (vcpu->nr_tables < DUNE_TABLE_CACHE)
        vcpu->tables[vcpu->nr_tables++] = (void*)get_zeroed_page(GFP_KERNEL_ACCOUNT);
    return 0;
}

void dune_tables_free(struct list_head* freed) {
    struct page *p, *next;

    list_for_each_entry_safe(p, next, freed, lru) {
        list_del(&p->lru);
        __free_page(p);
    }
}

/* --- the process --- */

void logic_host_five_levels(bool on) {
    shim_five_levels = on;
}

void logic_start(int max_level, bool accessed_bits, unsigned gpa_bits) {
    vmx_config = (struct vmx_config){.ept_ad = accessed_bits};
    dune_vmx_engine = (struct dune_engine){
        .gpa_bits = gpa_bits,
        .max_level = max_level,
        .map = vmx_ept_map,
        .zap = vmx_ept_zap,
        .young = vmx_ept_young,
        .mirror_create = vmx_ept_create,
        .mirror_destroy = vmx_ept_destroy,
    };
    mm.pgd = (u64*)get_zeroed_page(GFP_KERNEL);
    dune_mirror_init();
    proc = dune_process_get();
    memset(&vmx, 0, sizeof(vmx));
    memset(&page, 0, sizeof(page));
    vmx.vcpu.page = &page;
    vmx.vcpu.proc = proc;
    memset(&vma, 0, sizeof(vma));
    on_fault = NULL;
    on_kick = NULL;
    kicks = 0;
}

void logic_small_code(void) {
    vmx_config.small_code = true;
}

static void free_host_table(u64* table, int level) {
    for (int i = 0; level > 1 && i < 512; i++)
        if (table[i] & _PAGE_PRESENT && !(table[i] & _PAGE_PSE))
            free_host_table(__va(table[i] & ENTRY_ADDRESS), level - 1);
    __free_page(virt_to_page(table));
}

size_t logic_end(void) {
    while (vmx.vcpu.nr_tables)
        __free_page(virt_to_page(vmx.vcpu.tables[--vmx.vcpu.nr_tables]));
    dune_mirror_notifier_ops.release(&proc->notifier, &mm);
    dune_process_put(proc);
    free_host_table(mm.pgd, shim_five_levels ? 5 : 4);
    return shim_pages;
}

bool logic_map(uint64_t gpa, uint64_t pa, int level, unsigned access) {
    struct dune_leaf leaf = {.pa = pa, .level = level, .access = access};
    bool done;

    dune_tables_fill(&vmx.vcpu);
    spin_lock(&proc->lock);
    done = vmx_ept_map(&vmx.vcpu, gpa, &leaf);
    spin_unlock(&proc->lock);
    return done;
}

static bool zap(uint64_t start, uint64_t end, bool unmapped) {
    LIST_HEAD(freed);
    bool flush;

    spin_lock(&proc->lock);
    flush = vmx_ept_zap(proc, start, end, unmapped, &freed);
    spin_unlock(&proc->lock);
    dune_tables_free(&freed);
    return flush;
}

bool logic_zap(uint64_t start, uint64_t end) {
    return zap(start, end, false);
}

bool logic_unmap(uint64_t start, uint64_t end) {
    return zap(start, end, true);
}

bool logic_young(uint64_t start, uint64_t end, bool clear, bool* flush) {
    *flush = false;
    return vmx_ept_young(proc, start, end, clear, flush);
}

struct logic_found logic_walk(uint64_t gpa) {
    struct logic_found walk = {0};
    u64* table = proc->root;

    for (int level = 4; level >= 1; level--) {
        int shift = 12 + 9 * (level - 1);
        u64 entry = table[gpa >> shift & 511], offset = (1ull << shift) - 1;

        if (!(entry & 7))
            return walk;
        if (level > 1 && !(entry & BIT(7))) {
            walk.malformed |= (entry & 0xff8) != 0 || entry >> 52;
            table = __va(entry & ENTRY_ADDRESS);
            continue;
        }
        walk.present = true;
        walk.level = level;
        walk.pa = (entry & ENTRY_ADDRESS & ~offset) | (gpa & offset);
        walk.access = entry & 0x3f;
        walk.accessed = entry >> 8 & 1;
        walk.ignore_pat = entry >> 6 & 1;
        walk.malformed |= level == 4 || (entry & ENTRY_ADDRESS & offset) || entry >> 52;
        return walk;
    }
    return walk;
}

static u64 count_tables(u64* table, int level) {
    u64 n = 1;

    for (int i = 0; level > 1 && i < 512; i++)
        if (table[i] & 7 && !(table[i] & BIT(7)))
            n += count_tables(__va(table[i] & ENTRY_ADDRESS), level - 1);
    return n;
}

uint64_t logic_tables(void) {
    return proc->nr_tables;
}

uint64_t logic_reachable_tables(void) {
    return count_tables(proc->root, 4);
}

uint64_t logic_flush_gen(void) {
    return proc->flush_gen;
}

size_t logic_kicks(void) {
    return kicks;
}

size_t logic_locks(void) {
    return locks;
}

int logic_set_slots(uint32_t first, uint32_t count, const uint32_t* va_slots) {
    return dune_process_set_slots(proc, first, count, va_slots);
}

uint32_t logic_slot(uint32_t slot) {
    return proc->slots[slot];
}

uint32_t logic_shown_in(uint32_t va_slot) {
    struct xa_entry* entry = xa_at(&proc->va_slots, va_slot);

    return entry ? xa_to_value(entry->value) : 0;
}

/* --- the mirror --- */

void logic_host_set(uint64_t va, int level, uint64_t entry) {
    u64* table = mm.pgd;

    for (int l = shim_five_levels ? 5 : 4; l > level; l--) {
        u64* e = &table[va >> (12 + 9 * (l - 1)) & 511];

        if (!(*e & _PAGE_PRESENT))
            *e = get_zeroed_page(GFP_KERNEL) | _PAGE_PRESENT | _PAGE_RW | _PAGE_USER;
        table = __va(*e & ENTRY_ADDRESS);
    }
    table[va >> (12 + 9 * (level - 1)) & 511] = entry;
}

void logic_host_vma(uint64_t start, uint64_t end, unsigned access) {
    vma = (struct vm_area_struct){start, end, access};
}

void logic_host_on_fault(void (*function)(uint64_t va, bool write)) {
    on_fault = function;
}

void logic_on_kick(void (*function)(void)) {
    on_kick = function;
}

bool logic_try(uint64_t gpa, unsigned access) {
    return dune_mirror_try(&vmx.vcpu, gpa, access);
}

int logic_fault(uint64_t gpa, unsigned access) {
    page.fault_signal = 0;
    page.fault_si_code = 0;
    return dune_mirror_fault(&vmx.vcpu, gpa, access);
}

uint32_t logic_fault_signal(void) {
    return page.fault_signal;
}

int32_t logic_fault_code(void) {
    return page.fault_si_code;
}

void logic_invalidate_start(uint64_t start, uint64_t end) {
    struct mmu_notifier_range range = {start, end, MMU_NOTIFY_CLEAR};

    dune_mirror_notifier_ops.invalidate_range_start(&proc->notifier, &range);
}

void logic_unmap_start(uint64_t start, uint64_t end) {
    struct mmu_notifier_range range = {start, end, MMU_NOTIFY_UNMAP};

    dune_mirror_notifier_ops.invalidate_range_start(&proc->notifier, &range);
}

void logic_invalidate_end(uint64_t start, uint64_t end) {
    struct mmu_notifier_range range = {start, end};

    dune_mirror_notifier_ops.invalidate_range_end(&proc->notifier, &range);
}

bool logic_test_young(uint64_t va) {
    return dune_mirror_notifier_ops.test_young(&proc->notifier, &mm, va);
}

bool logic_clear_flush_young(uint64_t start, uint64_t end) {
    return dune_mirror_notifier_ops.clear_flush_young(&proc->notifier, &mm, start, end);
}

bool logic_clear_young(uint64_t start, uint64_t end) {
    return dune_mirror_notifier_ops.clear_young(&proc->notifier, &mm, start, end);
}
