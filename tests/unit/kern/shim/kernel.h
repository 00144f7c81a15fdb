/* SPDX-License-Identifier: MIT */
/*
 * What kern/'s page-table and slot logic uses of the kernel, in user space: each <linux/...> and
 * <asm/...> that it includes is this file. Pages and objects come of malloc(), so that
 * AddressSanitizer sees each use after free and each leak; there is one thread, one CPU, and the
 * host's page tables are made by the test.
 */
#ifndef DUNE_TESTS_UNIT_KERN_SHIM_KERNEL_H
#define DUNE_TESTS_UNIT_KERN_SHIM_KERNEL_H

#include <errno.h>
#include <linux/types.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef unsigned int gfp_t;

#define __init
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define noinline __attribute__((noinline))
#define __noendbr
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile __typeof__(x)*)&(x))
#define WRITE_ONCE(x, val) (*(volatile __typeof__(x)*)&(x) = (val))
#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), #condition)
#define TRACE_EVENT(...)
#define BUILD_BUG_ON_MSG(condition, text) ((void)(condition))
#define container_of(p, type, member) ((type*)((char*)(p)-offsetof(type, member)))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min_t(type, a, b) min((type)(a), (type)(b))
#define ERR_PTR(error) ((void*)(long)(error))
#define IS_ERR(p) ((unsigned long)(p) >= -4095ul)
#define ilog2(n) __builtin_ctzll(n)

static inline unsigned long array_index_mask_nospec(unsigned long index, unsigned long size) {
    return index < size ? ~0ul : 0;
}

struct pt_regs {
    unsigned long ax;
};

#define smp_mb() ((void)0)
#define smp_rmb() ((void)0)
#define cpu_relax() ((void)0)
#define lockdep_assert_held(lock) ((void)(lock))
#define lockdep_assert_irqs_disabled() ((void)0)
#define local_irq_disable() ((void)0)
#define local_irq_enable() ((void)0)
#define preempt_disable() ((void)0)
#define preempt_enable() ((void)0)
static inline bool need_resched(void) {
    return false;
}
static inline unsigned num_online_cpus(void) {
    return 1;
}

static inline void clear_bit(long nr, unsigned long* word) {
    *word &= ~(1ul << nr);
}

/* --- lists --- */

struct list_head {
    struct list_head *next, *prev;
};

/* Names cannot be put in parentheses. NOLINTBEGIN(bugprone-macro-parentheses) */
#define LIST_HEAD(name) struct list_head name = {&(name), &(name)}
#define list_entry(p, type, member) container_of(p, type, member)
#define list_for_each_entry(e, head, member)                                         \
    for (e = list_entry((head)->next, __typeof__(*e), member); &e->member != (head); \
         e = list_entry(e->member.next, __typeof__(*e), member))
#define list_for_each_entry_safe(e, n, head, member)            \
    for (e = list_entry((head)->next, __typeof__(*e), member),  \
        n = list_entry(e->member.next, __typeof__(*e), member); \
         &e->member != (head); e = n, n = list_entry(n->member.next, __typeof__(*n), member))
#define LLIST_HEAD(name) struct llist_head name = {NULL}
#define llist_for_each_entry_safe(e, n, node, member)                                             \
    for (struct llist_node* next_ = (node);                                                       \
         next_ != NULL && ((e) = list_entry(next_, __typeof__(*e), member), (n) = (e), (void)(n), \
                          next_ = next_->next, true);)
/* NOLINTEND(bugprone-macro-parentheses) */

struct llist_node {
    struct llist_node* next;
};
struct llist_head {
    struct llist_node* first;
};

/* True if the list was empty. */
static inline bool llist_add(struct llist_node* entry, struct llist_head* head) {
    entry->next = head->first;
    head->first = entry;
    return entry->next == NULL;
}

static inline struct llist_node* llist_del_all(struct llist_head* head) {
    struct llist_node* all = head->first;

    head->first = NULL;
    return all;
}

static inline void INIT_LIST_HEAD(struct list_head* head) {
    head->next = head->prev = head;
}

static inline void list_add(struct list_head* entry, struct list_head* head) {
    entry->next = head->next;
    entry->prev = head;
    head->next->prev = entry;
    head->next = entry;
}

static inline bool list_empty(const struct list_head* head) {
    return head->next == head;
}

static inline void list_del(struct list_head* entry) {
    entry->next->prev = entry->prev;
    entry->prev->next = entry->next;
    entry->next = entry->prev = NULL;
}

/* --- memory --- */

#define GFP_KERNEL 0u
#define GFP_KERNEL_ACCOUNT 0u
#define PAGE_SHIFT 12
#define PAGE_SIZE (1ul << PAGE_SHIFT)
#define PMD_SHIFT 21
#define PUD_SHIFT 30
#define PTRS_PER_PTE 512
#define TASK_SIZE_MAX ((1ul << 47) - PAGE_SIZE)

/* Lies behind its page, in the same allocation. */
struct page {
    struct list_head lru;
};

unsigned long get_zeroed_page(gfp_t gfp);
void __free_page(struct page* page);
extern size_t shim_pages; /* that are allocated now */

#define virt_to_page(p) ((struct page*)((char*)(p) + PAGE_SIZE))
#define __pa(p) ((u64)(unsigned long)(p))
#define __va(pa) ((void*)(unsigned long)(pa))

#define kzalloc(size, gfp) calloc(1, size)
#define kfree(p) free(p)
#define kvmalloc_array(n, size, gfp) calloc(n, size)
#define kvfree(p) free(p)

static inline void memset32(u32* p, u32 val, size_t count) {
    while (count--)
        *p++ = val;
}

/* --- locks, references, waiting: none of them is ever contended --- */

typedef struct {
    int held;
} spinlock_t;
struct mutex {
    int held;
};
typedef struct {
    int count;
} atomic_t;
struct kref {
    int count;
};
typedef struct {
    int sleepers;
} wait_queue_head_t;

#define DEFINE_MUTEX(name) struct mutex name
#define spin_lock_init(lock) ((lock)->held = 0)
#define mutex_init(lock) ((lock)->held = 0)
void shim_lock(int* held);
void shim_unlock(int* held);
#define spin_lock(lock) shim_lock(&(lock)->held)
#define spin_unlock(lock) shim_unlock(&(lock)->held)
#define mutex_lock(lock) shim_lock(&(lock)->held)
#define mutex_unlock(lock) shim_unlock(&(lock)->held)

#define atomic_inc(v) ((v)->count++)
#define atomic_dec(v) ((v)->count--)
#define atomic_read(v) ((v)->count)
#define msleep(ms) abort() /* there is one thread: for whom? */
#define kref_init(ref) ((ref)->count = 1)
#define kref_get(ref) ((ref)->count++)
static inline void kref_put_mutex(struct kref* ref, void (*release)(struct kref*),
                                  struct mutex* lock) {
    if (--ref->count == 0) {
        mutex_lock(lock);
        release(ref);
    }
}

#define init_waitqueue_head(queue) ((queue)->sleepers = 0)
#define wq_has_sleeper(queue) ((queue)->sleepers != 0)
#define wake_up_all(queue) ((queue)->sleepers = 0)
/* Nobody else runs: who would have to wait has met a fault of the test's. */
#define wait_event_interruptible(queue, condition) ((condition) ? 0 : (abort(), 0))

/* --- work: done at once, whatever the delay --- */

struct work_struct {
    void (*fn)(struct work_struct* work);
};
#define HZ 250
#define DECLARE_DELAYED_WORK(name, function) struct work_struct name = {function}
#define schedule_delayed_work(work, delay) ((work)->fn(work))
#define flush_delayed_work(work) ((void)(work))

/* --- the xarray: a short list will do --- */

struct xarray {
    struct xa_entry {
        unsigned long index;
        void* value;
    } * entries;
    size_t count;
};

#define XA_FLAGS_ACCOUNT 0
#define xa_init_flags(xa, flags) (*(xa) = (struct xarray){NULL, 0})
#define xa_mk_value(v) ((void*)((unsigned long)(v) << 1 | 1))
#define xa_to_value(p) ((unsigned long)(p) >> 1)
int xa_insert(struct xarray* xa, unsigned long index, void* value, gfp_t gfp);
void xa_erase(struct xarray* xa, unsigned long index);
void xa_destroy(struct xarray* xa);
/* The entry with the lowest index in [*index, last]; NULL if there is none. */
void* shim_xa_find(struct xarray* xa, unsigned long* index, unsigned long last);
/* NOLINTBEGIN(bugprone-macro-parentheses) */
#define xa_for_each_range(xa, index, entry, first, last) \
    for (index = (first); (entry = shim_xa_find(xa, &index, last)) != NULL; index++)
/* NOLINTEND(bugprone-macro-parentheses) */

/* --- processes and their memory --- */

struct task_struct;
struct preempt_notifier {
    int unused;
};
typedef unsigned long cpumask_var_t[1];
struct dentry;
struct rseq_cs {
    u64 start_ip, post_commit_offset, abort_ip;
};

struct mm_struct {
    u64* pgd;
};
struct vm_area_struct {
    unsigned long vm_start, vm_end, vm_flags;
};
struct shim_task {
    struct mm_struct* mm;
};
extern struct shim_task* current;
extern bool shim_five_levels;

#define task_tgid_nr(task) 1
static inline bool signal_pending(const struct shim_task* task) {
    return task == NULL;
}
#define zalloc_cpumask_var(mask, gfp) ((*(mask))[0] = 0, true)
#define free_cpumask_var(mask) ((void)(mask))
void shim_kick(void); /* calls other CPUs */
#define smp_call_function_many(mask, fn, arg, wait) ((void)(mask), (void)(fn), shim_kick())

enum mmu_notifier_event { MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR };
struct mmu_notifier_range {
    unsigned long start, end;
    enum mmu_notifier_event event;
};
struct mmu_notifier {
    const struct mmu_notifier_ops* ops;
};
struct mmu_notifier_ops {
    int (*invalidate_range_start)(struct mmu_notifier* mn, const struct mmu_notifier_range* range);
    void (*invalidate_range_end)(struct mmu_notifier* mn, const struct mmu_notifier_range* range);
    void (*release)(struct mmu_notifier* mn, struct mm_struct* mm);
    int (*clear_flush_young)(struct mmu_notifier* mn, struct mm_struct* mm, unsigned long start,
                             unsigned long end);
    int (*clear_young)(struct mmu_notifier* mn, struct mm_struct* mm, unsigned long start,
                       unsigned long end);
    int (*test_young)(struct mmu_notifier* mn, struct mm_struct* mm, unsigned long address);
    void (*free_notifier)(struct mmu_notifier* mn);
};
#define mmu_notifier_register(mn, mm) ((void)(mm), 0)
#define synchronize_rcu() ((void)0)
#define mmu_notifier_put(mn) ((mn)->ops->free_notifier(mn))

/* --- the fault path: user memory is there or not as the test says --- */

#define __user
#define VM_READ 1ul
#define VM_WRITE 2ul
#define VM_EXEC 4ul
#define VM_SHADOW_STACK (1ul << 37)
typedef unsigned int vm_fault_t;
enum {
    VM_FAULT_OOM = 1,
    VM_FAULT_SIGBUS = 2,
    VM_FAULT_HWPOISON = 0x10,
    VM_FAULT_HWPOISON_LARGE = 0x20,
    VM_FAULT_SIGSEGV = 0x40,
    VM_FAULT_RETRY = 0x400,
    VM_FAULT_COMPLETED = 0x4000,
    VM_FAULT_ERROR = 0x73,
};
enum {
    FAULT_FLAG_WRITE = 1,
    FAULT_FLAG_DEFAULT = 0x214,
    FAULT_FLAG_TRIED = 0x20,
    FAULT_FLAG_USER = 0x40,
    FAULT_FLAG_INSTRUCTION = 0x100,
};

bool shim_touch(unsigned long addr, bool write);
struct vm_area_struct* vma_lookup(struct mm_struct* mm, unsigned long addr);
#define userfaultfd_armed(vma) ((void)(vma), false)
#define arch_vma_access_permitted(vma, write, execute, foreign) \
    ((void)(vma), (void)(write), (void)(execute), true)
#define __get_user(val, p) ((void)((val) = 0), shim_touch((unsigned long)(p), false) ? 0 : -EFAULT)
#define mmap_read_lock_killable(mm) ((void)(mm), 0)
#define mmap_read_unlock(mm) ((void)(mm))
#define handle_mm_fault(vma, addr, flags, regs) \
    ((void)(vma), shim_touch(addr, FAULT_FLAG_WRITE & (flags)) ? 0u : VM_FAULT_SIGBUS)

/* --- the CPU --- */

#define MSR_IA32_CR_PAT 0x277
#define rdmsrl(msr, val) ((val) = 0x0007040600070406ull) /* as Linux sets PAT up */
#define wrmsrl(msr, val) ((void)(val))
#define pgtable_l5_enabled() shim_five_levels
#define raw_smp_processor_id() 0
#define DECLARE_PER_CPU(type, name) extern type name

#define _PAGE_PRESENT BIT(0)
#define _PAGE_RW BIT(1)
#define _PAGE_USER BIT(2)
#define _PAGE_PWT BIT(3)
#define _PAGE_PCD BIT(4)
#define _PAGE_DIRTY BIT(6)
#define _PAGE_PSE BIT(7)
#define _PAGE_PAT BIT(7)
#define _PAGE_SPECIAL BIT(9)
#define _PAGE_PAT_LARGE BIT(12)
#define _PAGE_NX BIT(63)
#define PTE_PFN_MASK 0x000ffffffffff000ull

struct desc_ptr {
    u16 size;
    unsigned long address;
};
enum { GUEST_RSP = 0x681c, GUEST_RIP = 0x681e, GUEST_RFLAGS = 0x6820 };

#include "shim/cpu.h"

#endif
