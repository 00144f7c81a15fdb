// SPDX-License-Identifier: MIT
// Write protection, with what Linux has learned for it since 2012.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "cases.h"
#include "libdune/dune.h"

namespace bench {
namespace {

char* page_of_many(Measure& measure) {
    constexpr std::size_t kPages = 16;  // a page with neighbours, as in a real heap
    char* const memory = arena(measure, kPages * kPage);
    madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
    std::memset(memory, 1, kPages * kPage);
    return memory + 7 * kPage;
}

// ---- protect and allow, without a fault between -------------------------------------------------

void pair_mprotect(Measure& measure) {
    char* const page = page_of_many(measure);
    measure.sample([page](unsigned) {
        mprotect(page, kPage, PROT_READ);
        mprotect(page, kPage, PROT_READ | PROT_WRITE);
    });
}

void pair_dune(Measure& measure) {
    enter_dune(measure);
    char* const page = page_of_many(measure);
    measure.sample([page](unsigned) {
        dune_vm_mprotect(pgroot, page, kPage, PERM_R);
        dune_vm_mprotect(pgroot, page, kPage, PERM_R | PERM_W);
    });
}

void pair_pkey(Measure& measure) {
    char* const page = page_of_many(measure);
    const int key = pkey_alloc(0, 0);
    if (key < 0 || pkey_mprotect(page, kPage, PROT_READ | PROT_WRITE, key) != 0)
        measure.fail("this CPU or kernel has no protection keys");
    measure.sample([key](unsigned) {
        pkey_set(key, PKEY_DISABLE_WRITE);
        pkey_set(key, 0);
    });
}

// ---- protect, write, have the fault handled -----------------------------------------------------

int userfault = -1;

void write_protect(char* page, bool on) {
    uffdio_writeprotect range = {};
    range.range.start = reinterpret_cast<std::uint64_t>(page) & ~(kPage - 1);
    range.range.len = kPage;
    range.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    ioctl(userfault, UFFDIO_WRITEPROTECT, &range);
}

/** Sees each fault and allows the page; ends with the process. */
void* userfault_monitor(void*) {
    for (;;) {
        uffd_msg message;
        if (read(userfault, &message, sizeof(message)) != sizeof(message))
            return nullptr;
        if (message.event == UFFD_EVENT_PAGEFAULT)
            write_protect(reinterpret_cast<char*>(message.arg.pagefault.address), false);
    }
}

void fault_userfaultfd(Measure& measure) {
    char* const page = page_of_many(measure);
    userfault = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api = {};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    uffdio_register range = {};
    range.range.start = reinterpret_cast<std::uint64_t>(page);
    range.range.len = kPage;
    range.mode = UFFDIO_REGISTER_MODE_WP;
    pthread_t monitor;
    if (userfault < 0 || ioctl(userfault, UFFDIO_API, &api) != 0 ||
        ioctl(userfault, UFFDIO_REGISTER, &range) != 0 ||
        pthread_create(&monitor, nullptr, userfault_monitor, nullptr) != 0)
        measure.fail("no userfaultfd with write protection: %s", std::strerror(errno));
    measure.sample([page](unsigned i) {
        write_protect(page, true);
        *static_cast<volatile char*>(page) = static_cast<char>(i);
    });
}

void allow_on_signal(int, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr) & ~(kPage - 1);
    mprotect(reinterpret_cast<void*>(address), kPage, PROT_READ | PROT_WRITE);
}

void fault_mprotect(Measure& measure) {
    char* const page = page_of_many(measure);
    struct sigaction action = {};
    action.sa_sigaction = allow_on_signal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    measure.sample([page](unsigned i) {
        mprotect(page, kPage, PROT_READ);
        *static_cast<volatile char*>(page) = static_cast<char>(i);
    });
}

void fault_dune(Measure& measure) {
    enter_dune(measure);
    char* const page = page_of_many(measure);
    dune_register_pgflt_handler([](std::uintptr_t address, std::uint64_t, dune_tf*) {
        dune_vm_mprotect(pgroot, reinterpret_cast<void*>(address & ~(kPage - 1)), kPage,
                         PERM_R | PERM_W);
    });
    measure.sample([page](unsigned i) {
        dune_vm_mprotect(pgroot, page, kPage, PERM_R);
        *static_cast<volatile char*>(page) = static_cast<char>(i);
    });
}

}  // namespace

void add_protect_cases(Cases& cases) {
    cases.insert(cases.end(),
                 {
                     {"protect/linux/mprotect", Needs::Linux, 500, 0, pair_mprotect},
                     {"protect/linux/protection_keys", Needs::Linux, 500, 0, pair_pkey},
                     {"protect/dune/vm_mprotect", Needs::Dune, 500, 0, pair_dune},
                     {"write_fault/linux/mprotect", Needs::Linux, 500, 0, fault_mprotect},
                     {"write_fault/linux/userfaultfd", Needs::Linux, 500, 0, fault_userfaultfd},
                     {"write_fault/dune/vm_mprotect", Needs::Dune, 500, 0, fault_dune},
                 });
}

}  // namespace bench
