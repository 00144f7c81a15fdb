// SPDX-License-Identifier: MIT
// Address spaces, processes and threads: making them and changing between them.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "cases.h"
#include "libdune/dune.h"

namespace bench {
namespace {

// ---- another address space ----------------------------------------------------------------------

/** There and back, with or without what the TLB has of each. */
void switch_roots(Measure& measure, bool pcid) {
    enter_dune(measure);
    ptent_t* const other = dune_vm_clone(pgroot);
    if (other == nullptr)
        measure.fail("dune_vm_clone: no memory");
    unsigned long keep = 0;
    unsigned long number = 0;
    if (pcid) {
        write_cr4(read_cr4() | CR4_PCIDE);
        keep = CR3_NOFLUSH;
        number = 1;
    }
    const unsigned long here = read_cr3() | keep;
    const unsigned long there = dune_va_to_pa(other) | number | keep;
    measure.sample([=](unsigned) {
        load_cr3(there);
        load_cr3(here);
    });
    load_cr3(here & ~CR3_NOFLUSH);
    if (pcid)
        write_cr4(read_cr4() & ~CR4_PCIDE);
}

void switch_with_pcid(Measure& measure) {
    switch_roots(measure, true);
}

void switch_without_pcid(Measure& measure) {
    switch_roots(measure, false);
}

/** The only way Linux has: two processes, each of which waits for the other. */
void switch_processes(Measure& measure) {
    int there[2];
    int back[2];
    if (pipe(there) != 0 || pipe(back) != 0)
        measure.fail("no pipes: %s", std::strerror(errno));
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        close(there[1]);
        while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1) {
        }
        _exit(0);
    }
    measure.sample([&](unsigned) {
        char byte = 0;
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            _exit(1);
    });
    close(there[1]);
    waitpid(child, nullptr, 0);
}

// ---- a copy of an address space -----------------------------------------------------------------

constexpr std::size_t kCloned = std::size_t{100} << 20;

/** Copy-on-write copy of 100 MiB in 4 KiB pages; per page. */
void clone_dune(Measure& measure) {
    enter_dune(measure);
    page* const top = dune_page_alloc();
    if (top == nullptr)
        measure.fail("no page for the root");
    auto* const root = static_cast<ptent_t*>(dune_page2va(top));
    std::memset(root, 0, kPage);
    const int error =
        dune_vm_map_pages(root, reinterpret_cast<void*>(kArena), kCloned, PERM_R | PERM_W);
    if (error != 0)
        measure.fail("dune_vm_map_pages: error %d", -error);
    ptent_t* copy = nullptr;
    measure.divide_by(static_cast<double>(kCloned) / kPage);
    measure.sample_prepared(
        [&](unsigned) {
            if (copy != nullptr)
                dune_vm_free(copy);
        },
        [&](unsigned) { copy = dune_vm_clone(root); });
    if (copy == nullptr)
        measure.fail("dune_vm_clone: no memory");
}

/** fork() with 100 MiB in 4 KiB pages, to its return in the parent; per page. */
void clone_linux(Measure& measure) {
    char* const memory = arena(measure, kCloned);
    madvise(memory, kCloned, MADV_NOHUGEPAGE);
    std::memset(memory, 1, kCloned);
    measure.divide_by(static_cast<double>(kCloned) / kPage);
    pid_t child = -1;
    int wait_pipe[2] = {-1, -1};
    measure.sample_prepared(
        [&](unsigned) {
            if (child > 0) {
                close(wait_pipe[1]);  // the child may end
                waitpid(child, nullptr, 0);
                close(wait_pipe[0]);
            }
            if (pipe(wait_pipe) != 0)
                measure.fail("no pipe: %s", std::strerror(errno));
        },
        [&](unsigned) {
            child = fork();
            if (child == 0) {
                char byte;
                close(wait_pipe[1]);
                _exit(read(wait_pipe[0], &byte, 1) != 0);
            }
        });
    close(wait_pipe[1]);
    waitpid(child, nullptr, 0);
}

// ---- processes and threads ----------------------------------------------------------------------

void fork_exit(Measure& measure) {
    measure.sample([](unsigned) {
        const pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, nullptr, 0);
    });
}

void fork_exit_dune(Measure& measure) {
    enter_dune(measure);
    measure.sample([](unsigned) {
        const pid_t child = fork();
        if (child == 0)
            _exit(dune_enter() == 0 && dune_in_guest() ? 0 : 1);
        int status = 0;
        waitpid(child, &status, 0);
        if (status != 0)
            _exit(1);
    });
}

void thread_create(Measure& measure) {
    measure.sample([](unsigned) {
        pthread_t thread;
        if (pthread_create(
                &thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr) != 0)
            _exit(1);
        pthread_join(thread, nullptr);
    });
}

void thread_create_dune(Measure& measure) {
    enter_dune(measure);
    measure.sample([](unsigned) {
        pthread_t thread;
        const auto body = [](void*) -> void* {
            if (dune_enter() != 0 || !dune_in_guest())
                _exit(1);
            return nullptr;
        };
        if (pthread_create(&thread, nullptr, body, nullptr) != 0)
            _exit(1);
        pthread_join(thread, nullptr);
    });
}

/** Back to host mode, and in again, through the library. */
void leave_and_enter(Measure& measure) {
    enter_dune(measure);
    measure.sample([](unsigned) {
        dune_leave();
        dune_enter();
    });
}

}  // namespace

void add_process_cases(Cases& cases) {
    cases.insert(cases.end(),
                 {
                     {"switch_space/linux/two_processes", Needs::Linux, 500, 0, switch_processes},
                     {"switch_space/dune/pcid", Needs::Dune, 500, 0, switch_with_pcid},
                     {"switch_space/dune/flush", Needs::Dune, 500, 0, switch_without_pcid},
                     {"clone_100m_per_page/linux/fork", Needs::Linux, 8, 0, clone_linux},
                     {"clone_100m_per_page/dune/vm_clone", Needs::Dune, 8, 0, clone_dune},
                     {"fork_and_exit/linux/fork", Needs::Linux, 64, 0, fork_exit},
                     {"fork_and_exit/dune/fork_enter", Needs::Dune, 64, 0, fork_exit_dune},
                     {"thread/linux/create_join", Needs::Linux, 200, 0, thread_create},
                     {"thread/dune/create_enter_join", Needs::Dune, 200, 0, thread_create_dune},
                     {"enter/dune/leave_and_enter", Needs::Dune, 200, 0, leave_and_enter},
                 });
}

}  // namespace bench
