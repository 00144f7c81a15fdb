// SPDX-License-Identifier: MIT
//
// Restarts the machine while threads go on asking for the guest's instruction pointer: each says
// that it is in a restartable sequence, so that dune.ko looks whether its guest is, also when there
// is no VMX any more. What Linux says of it is on the console.

#include <sys/reboot.h>
#include <sys/rseq.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "guest.h"
#include "rseq_section.h"

namespace {

std::atomic<int> inside = 0;

void run_for_ever() {
    alignas(32) static const rseq_cs section = dune::vmtest::rseq_wait_section();
    auto* const area = reinterpret_cast<struct rseq*>(
        static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
    guest::Vcpu& vcpu = guest::Vcpu::get();
    vcpu.prepare(
        [](void*) {
            inside++;
            for (;;) {
                asm volatile("pause");
            }
        },
        nullptr, {});
    for (;;) {
        // Linux takes it back whenever it finds the thread elsewhere.
        const auto pointer = reinterpret_cast<uint64_t>(&section);
        std::memcpy(&area->rseq_cs, &pointer, sizeof(pointer));
        vcpu.run_once(false);
    }
}

}  // namespace

int main() {
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    std::vector<std::thread> threads;
    for (long i = 0; i < cpus; i++) {
        threads.emplace_back(run_for_ever);
    }
    while (inside < cpus) {
        usleep(1000);
    }
    std::puts("restarting");
    std::fflush(stdout);
    reboot(RB_AUTOBOOT);
    for (;;) {
        pause();
    }
}
