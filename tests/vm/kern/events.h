// SPDX-License-Identifier: MIT
//
// What the tests of events in the guest share.

#ifndef DUNE_TESTS_VM_KERN_EVENTS_H
#define DUNE_TESTS_VM_KERN_EVENTS_H

#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <time.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "guest.h"
#include "traps.h"

namespace events {

inline void interrupt(const guest::Vcpu& vcpu, uint32_t vector) {
    ASSERT_EQ(ioctl(vcpu.fd(), DUNE_INTERRUPT, &vector), 0) << strerror(errno);
}

// Processor time of the calling thread.
inline double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// A handler.
inline bool count_it(guest::TrapFrame& frame, guest::Cpu& cpu) {
    cpu.count = cpu.count + 1;
    cpu.seen[0] = frame.vector;
    return true;
}

// In the guest.
inline void spin(int times) {
    for (int i = 0; i < times; i++) {
        asm volatile("");
    }
}

}  // namespace events

#endif
