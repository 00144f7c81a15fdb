// SPDX-License-Identifier: MIT
// Traps, and Appel and Li's two programs ("Virtual memory primitives for user programs", 1991).
//
// Everything here is done through the functions that libdune publishes; `pte` cases change the
// entry themselves, as a program in ring 0 may.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <numeric>
#include <vector>

#include "arena.h"
#include "cases.h"
#include "libdune/dune.h"

namespace bench {
namespace {

// ---- one trap -----------------------------------------------------------------------------------

// MOV $imm8, (%rax): what faults, of a known length.
[[gnu::always_inline]] inline void faulting_store(char* address) {
    asm volatile(".byte 0xc6, 0x00, 0x05 # movb $5, (%%rax)" : : "a"(address) : "memory");
}
constexpr unsigned kStoreSize = 3;

struct {
    volatile std::uint64_t entered;
    volatile std::uint64_t left;
} trap;

void skip_store(int, siginfo_t*, void* context) {
    trap.entered = ticks();
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += kStoreSize;
    trap.left = ticks();
}

// What a page fault saves depends on its handler: one that looks at the frame, one that uses vector
// registers, too, and one that does neither.
void skip_store_dune(std::uintptr_t, std::uint64_t, dune_tf* frame) {
    trap.entered = ticks();
    frame->rip += kStoreSize;
    trap.left = ticks();
}

void skip_store_vectors(std::uintptr_t, std::uint64_t, dune_tf* frame) {
    trap.entered = ticks();
    asm volatile("pxor %%xmm0, %%xmm0" ::: "xmm0");
    frame->rip += kStoreSize;
    trap.left = ticks();
}

void allow_store(std::uintptr_t address, std::uint64_t, dune_tf*) {
    trap.entered = ticks();
    dune_vm_mprotect(pgroot, reinterpret_cast<void*>(address & ~(kPage - 1)), kPage,
                     PERM_R | PERM_W);
    trap.left = ticks();
}

void skip_divide(dune_tf* frame) {
    trap.entered = ticks();
    frame->rip += 2;
    trap.left = ticks();
}

/** Argument 0: fault to handler; 1: handler to what comes behind the fault; 2: all of it. */
template <class Fault>
void sample_trap(Measure& measure, Fault fault, void (*prepare)(char*) = nullptr,
                 char* page = nullptr) {
    const long part = measure.argument();
    measure.sample_given([=](unsigned) {
        if (prepare != nullptr)
            prepare(page);
        const std::uint64_t begin = ticks();
        fault();
        const std::uint64_t end = ticks();
        return part == 0 ? trap.entered - begin : part == 1 ? end - trap.left : end - begin;
    });
}

char* read_only_page(Measure& measure) {
    char* const page = arena(measure, kPage);
    *page = 1;
    return page;
}

void on_signal(int signal, void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    sigaction(signal, &action, nullptr);
}

void trap_linux(Measure& measure) {
    char* const page = read_only_page(measure);
    mprotect(page, kPage, PROT_READ);
    on_signal(SIGSEGV, skip_store);
    sample_trap(measure, [page] { faulting_store(page); });
}

char* read_only_page_dune(Measure& measure) {
    enter_dune(measure);
    char* const page = read_only_page(measure);
    if (const int error = dune_vm_mprotect(pgroot, page, kPage, PERM_R); error != 0)
        measure.fail("dune_vm_mprotect: error %d", -error);
    return page;
}

void trap_dune(Measure& measure) {
    char* const page = read_only_page_dune(measure);
    dune_register_pgflt_handler(skip_store_dune);
    sample_trap(measure, [page] { faulting_store(page); });
}

void trap_dune_vectors(Measure& measure) {
    char* const page = read_only_page_dune(measure);
    dune_register_pgflt_handler(skip_store_vectors);
    sample_trap(measure, [page] { faulting_store(page); });
}

void trap_dune_scratch(Measure& measure) {
    char* const page = read_only_page_dune(measure);
    dune_register_pgflt_handler(allow_store);
    const auto protect = [](char* each) { dune_vm_mprotect(pgroot, each, kPage, PERM_R); };
    sample_trap(
        measure, [page] { faulting_store(page); }, protect, page);
}

void divide_linux(Measure& measure) {
    on_signal(SIGFPE, [](int, siginfo_t*, void* context) {
        trap.entered = ticks();
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 2;
        trap.left = ticks();
    });
    sample_trap(measure, [] { asm volatile("div %%ecx" : : "a"(1), "d"(0), "c"(0) : "memory"); });
}

void divide_dune(Measure& measure) {
    enter_dune(measure);
    dune_register_intr_handler(T_DIVIDE, skip_divide);
    sample_trap(measure, [] { asm volatile("div %%ecx" : : "a"(1), "d"(0), "c"(0) : "memory"); });
}

// ---- appel1 and appel2 --------------------------------------------------------------------------

/** The pages in the order in which they are touched, and how far it is. */
struct {
    char* memory;
    const std::uint32_t* order;
    unsigned count;
    unsigned at;  // number of the next page to protect; appel1 alone
    ptent_t* const* entries;
} appel;

/** How a page is protected and made writable: LinuxPages, DunePages or DuneEntries. */
struct LinuxPages {
    static void protect(char* page, std::size_t size) { mprotect(page, size, PROT_READ); }
    static void allow(char* page) { mprotect(page, kPage, PROT_READ | PROT_WRITE); }
};

struct DunePages {
    static void protect(char* page, std::size_t size) {
        dune_vm_mprotect(pgroot, page, size, PERM_R);
    }
    static void allow(char* page) { dune_vm_mprotect(pgroot, page, kPage, PERM_R | PERM_W); }
};

struct DuneEntries {
    static void protect(char* pages, std::size_t size) {
        for (char* page = pages; page != pages + size; page += kPage) {
            *entry(page) &= ~PTE_W;
            dune_flush_tlb_one(reinterpret_cast<unsigned long>(page));
        }
    }
    static void allow(char* page) {
        *entry(page) |= PTE_W;  // more rights: a stale entry only faults once more
        dune_flush_tlb_one(reinterpret_cast<unsigned long>(page));
    }
    static ptent_t* entry(const char* page) {
        return appel.entries[(page - appel.memory) / static_cast<std::ptrdiff_t>(kPage)];
    }
};

/** What every handler does: allow the page, and for appel1 protect the next. */
template <class Pages>
[[gnu::always_inline]] inline void handle(std::uintptr_t address, bool one) {
    Pages::allow(reinterpret_cast<char*>(address & ~(kPage - 1)));
    if (one && appel.at != appel.count)
        Pages::protect(appel.memory + appel.order[appel.at++] * kPage, kPage);
}

template <bool one>
void handle_signal(int, siginfo_t* info, void*) {
    handle<LinuxPages>(reinterpret_cast<std::uintptr_t>(info->si_addr), one);
}

template <bool one>
void handle_dune(std::uintptr_t address, std::uint64_t, dune_tf*) {
    handle<DunePages>(address, one);
}

template <bool one>
void handle_entries(std::uintptr_t address, std::uint64_t, dune_tf*) {
    DuneEntries::allow(reinterpret_cast<char*>(address & ~(kPage - 1)));
    if (one && appel.at != appel.count)
        DuneEntries::protect(appel.memory + appel.order[appel.at++] * kPage, kPage);
}

/** PROT1 + TRAP + UNPROT: there is one protected page at any time. */
template <class Pages>
void appel1(unsigned) {
    appel.at = 1;
    Pages::protect(appel.memory + appel.order[0] * kPage, kPage);
    for (unsigned i = 0; i < appel.count; ++i)
        *static_cast<volatile char*>(appel.memory + appel.order[i] * kPage) = 1;
}

/** PROTN + TRAP + UNPROT: all are protected at once. */
template <class Pages>
void appel2(unsigned) {
    Pages::protect(appel.memory, appel.count * kPage);
    for (unsigned i = 0; i < appel.count; ++i)
        *static_cast<volatile char*>(appel.memory + appel.order[i] * kPage) = 1;
}

/** Argument: pages. Map and touch them, and shuffle the order. */
class AppelPages {
  public:
    explicit AppelPages(Measure& measure) : order_(static_cast<std::size_t>(measure.argument())) {
        std::iota(order_.begin(), order_.end(), 0);
        Random random;
        for (auto i = static_cast<std::uint32_t>(order_.size() - 1); i > 0; --i)
            std::swap(order_[i], order_[random.below(i + 1)]);
        const std::size_t size = order_.size() * kPage;
        char* const memory = arena(measure, size);
        madvise(memory, size, MADV_NOHUGEPAGE);
        std::memset(memory, 1, size);
        appel = {memory, order_.data(), static_cast<unsigned>(order_.size()), 0, nullptr};
    }

    /** Have a 4 KiB entry for each page, and know where. */
    void find_entries(Measure& measure) {
        DunePages::protect(appel.memory, appel.count * kPage);
        for (unsigned i = 0; i < appel.count; ++i) {
            ptent_t* entry = nullptr;
            DunePages::allow(appel.memory + i * kPage);
            if (dune_vm_lookup(pgroot, appel.memory + i * kPage, CREATE_NONE, &entry) != 0)
                measure.fail("dune_vm_lookup finds no entry");
            entries_.push_back(entry);
        }
        appel.entries = entries_.data();
    }

  private:
    std::vector<std::uint32_t> order_;
    std::vector<ptent_t*> entries_;
};

template <bool one>
void appel_linux(Measure& measure) {
    const AppelPages pages(measure);
    on_signal(SIGSEGV, handle_signal<one>);
    measure.sample(one ? appel1<LinuxPages> : appel2<LinuxPages>);
}

template <bool one>
void appel_dune(Measure& measure) {
    enter_dune(measure);
    const AppelPages pages(measure);
    dune_register_pgflt_handler(handle_dune<one>);
    measure.sample(one ? appel1<DunePages> : appel2<DunePages>);
}

template <bool one>
void appel_entries(Measure& measure) {
    enter_dune(measure);
    AppelPages pages(measure);
    pages.find_entries(measure);
    dune_register_pgflt_handler(handle_entries<one>);
    measure.sample(one ? appel1<DuneEntries> : appel2<DuneEntries>);
}

}  // namespace

void add_trap_cases(Cases& cases) {
    const char* const parts[] = {"trap_entry", "trap_return", "trap"};
    for (long part = 0; part < 3; ++part) {
        const std::string name = parts[part];
        cases.insert(
            cases.end(),
            {
                {name + "/linux/sigsegv", Needs::Linux, 1000, part, trap_linux},
                {name + "/linux/sigfpe", Needs::Linux, 1000, part, divide_linux},
                {name + "/dune/page_fault", Needs::Dune, 1000, part, trap_dune},
                {name + "/dune/page_fault_vectors", Needs::Dune, 1000, part, trap_dune_vectors},
                {name + "/dune/page_fault_scratch", Needs::Dune, 1000, part, trap_dune_scratch},
                {name + "/dune/divide", Needs::Dune, 1000, part, divide_dune},
            });
    }
    for (const long count : {1, 10, 100, 1000}) {
        const std::string pages = std::to_string(count);
        cases.insert(cases.end(),
                     {
                         {"appel1/linux/" + pages, Needs::Linux, 16, count, appel_linux<true>},
                         {"appel1/dune/" + pages, Needs::Dune, 16, count, appel_dune<true>},
                         {"appel1/dune_pte/" + pages, Needs::Dune, 16, count, appel_entries<true>},
                         {"appel2/linux/" + pages, Needs::Linux, 16, count, appel_linux<false>},
                         {"appel2/dune/" + pages, Needs::Dune, 16, count, appel_dune<false>},
                         {"appel2/dune_pte/" + pages, Needs::Dune, 16, count, appel_entries<false>},
                     });
    }
}

}  // namespace bench
