// SPDX-License-Identifier: MIT
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "guest.h"

// Threads that make system calls, spin and fault in the guest until told to stop.
class Workers {
  public:
    explicit Workers(int count) {
        for (int i = 0; i < count; i++) {
            threads_.emplace_back([this] { work(); });
        }
        while (ready_ < count) {
            usleep(1000);
        }
    }
    ~Workers() { stop(); }

    void stop() {
        stop_ = true;
        for (std::thread& thread : threads_) {
            thread.join();
        }
        threads_.clear();
    }
    uint64_t rounds() const { return rounds_; }
    uint64_t wrong() const { return wrong_; }

    // Whether they get on, within a fifth of a second.
    bool go_on() const {
        const uint64_t before = rounds_;
        usleep(200'000);
        return rounds_ > before;
    }

  private:
    void work() {
        char* page = guest::map(4096);
        const long pid = getpid();
        const guest::End end = guest::enter([&] {
            ready_++;
            while (!stop_.load(std::memory_order_relaxed)) {
                wrong_ += guest::call(SYS_getpid) != pid;
                *page = 1;
                wrong_ += guest::call(SYS_madvise, reinterpret_cast<long>(page), 4096,
                                      MADV_DONTNEED) != 0;
                wrong_ += *const_cast<volatile char*>(page) != 0;
                for (int i = 0; i < 5000; i++) {
                    asm volatile("");
                }
                rounds_++;
            }
        });
        wrong_ += !end.left();
        munmap(page, 4096);
    }

    std::vector<std::thread> threads_;
    std::atomic<bool> stop_ = false;
    std::atomic<int> ready_ = 0;
    std::atomic<uint64_t> rounds_ = 0, wrong_ = 0;
};
