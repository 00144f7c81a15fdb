// SPDX-License-Identifier: MIT
// Memory that goes bad under a program in Dune mode: it is told what any program is told.
#include <sched.h>
#include <setjmp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "bad_memory.h"
#include "support.h"

namespace {

using namespace dune::test;
using dune::vmtest::frame_of;
using dune::vmtest::Where;

struct Wish {
    std::uint32_t frame;
    Where where;
};

int wishes[2], answers[2];
sigjmp_buf back;
volatile sig_atomic_t count;
siginfo_t seen[2];

void on_signal(int, siginfo_t* info, void*) {
    if (count < 2)
        seen[count] = *info;
    count = count + 1;
    siglongjmp(back, 1);
}

/** The guest has no ports: somebody else does it, on the same CPU. */
[[noreturn]] void serve() {
    for (Wish wish; read(wishes[0], &wish, sizeof(wish)) == sizeof(wish);) {
        dune::vmtest::go_bad(wish.frame, wish.where, 0);
        if (write(answers[1], "", 1) != 1)
            break;
    }
    _exit(0);
}

void go_bad(const char* page) {
    const std::uint32_t frame = frame_of(page);
    if (!dune_in_guest()) {
        dune::vmtest::go_bad(frame, Where::kProcess, 0);
        return;
    }
    const Wish wish = {frame, Where::kGuestRing0};
    char answer;
    if (write(wishes[1], &wish, sizeof(wish)) != sizeof(wish) || read(answers[0], &answer, 1) != 1)
        _exit(77);
}

/** Exits with 0 if that page is told to be bad, twice. */
int meets_it_and_lives() {
    Pages page(1);
    *page.at() = 1;
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, nullptr);
    if (sigsetjmp(back, 1) == 0) {
        go_bad(page.at());
        dune::vmtest::read_on(page.at());
    }
    if (sigsetjmp(back, 1) == 0)
        dune::vmtest::read_on(page.at());
    if (count != 2)
        return 2;
    for (const siginfo_t& info : seen) {
        if (info.si_signo != SIGBUS || info.si_code != BUS_MCEERR_AR)
            return 3;
        if (info.si_addr != page.at() || info.si_addr_lsb != PGSHIFT)
            return 4;
    }
    return 0;
}

int meets_it() {
    Pages page(1);
    *page.at() = 1;
    go_bad(page.at());
    dune::vmtest::read_on(page.at());
    return 1;
}

TEST(RuntimeMachineChecks, AreTheSignalsThatTheyAreNatively) {
    if (const char* why = dune::vmtest::open_bad_memory(); why != nullptr)
        GTEST_SKIP() << why;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    ASSERT_EQ(sched_setaffinity(0, sizeof(first), &first), 0);
    ASSERT_EQ(pipe(wishes), 0);
    ASSERT_EQ(pipe(answers), 0);
    const pid_t server = fork();
    if (server == 0) {
        close(wishes[1]);
        serve();
    }
    for (const bool dune : {false, true}) {
        if (dune) {
            ASSERT_EQ(dune_init_and_enter(), 0);
        }
        const Outcome handled = in_child(meets_it_and_lives);
        EXPECT_TRUE(handled.exited(0)) << dune << ": " << handled.status << handled.stderr_;
        const Outcome killed = in_child(meets_it);
        EXPECT_TRUE(killed.killed(SIGBUS)) << dune << ": " << killed.status << killed.stderr_;
    }
    kill(server, SIGKILL);
    waitpid(server, nullptr, 0);
}

}  // namespace
