// SPDX-License-Identifier: MIT
//
// A vCPU in a box: the only memory that its guest-physical space shows is one area of its
// own, so whatever a fuzzed guest does, it does to that alone. Its system calls are not done.

#ifndef DUNE_TESTS_VM_KERN_FUZZ_BOX_H
#define DUNE_TESTS_VM_KERN_FUZZ_BOX_H

#include <cstddef>
#include <cstdint>

#include "kern/dune.h"

namespace fuzz {

// xorshift64*: the same cases for the same seed, everywhere.
class Random {
  public:
    Random(uint64_t seed, uint64_t index) : state_(seed * 0x9e3779b97f4a7c15 + index * 2 + 1) {
        next();
        next();
    }
    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1d;
    }
    uint64_t below(uint64_t n) { return (next() >> 11) % n; }
    bool one_in(uint64_t n) { return below(n) == 0; }
    // A value that code gets wrong more often than others.
    uint64_t nasty();

  private:
    uint64_t state_;
};

// How a case ended. Each is a defined end.
enum Outcome { kLeft, kException, kDied, kRefused, kTimedOut, kOutcomes };
const char* outcome_name(int outcome);

class Box {
  public:
    static constexpr uint64_t kBase = 0x200000000000;  // virtual
    static constexpr uint64_t kGpa = 1ULL << 30;       // guest-physical
    static constexpr size_t kPage = 4096;
    // Pages of the area.
    enum : size_t { kPml4, kPdpt, kPd, kPt, kCode, kData, kGdt, kIdt, kHandlers, kStack, kPages };

    Box();
    ~Box();
    Box(const Box&) = delete;
    Box& operator=(const Box&) = delete;

    // The area, the tables and the vCPU's page as for a run of the code page in ring 0.
    void reset();
    // The same, but the code page runs in ring 3.
    void enter_ring3();
    // Runs until something ends it.
    Outcome run();

    uint8_t* at(size_t page) const { return area_ + page * kPage; }
    uint64_t* table(size_t page) const { return reinterpret_cast<uint64_t*>(at(page)); }
    static uint64_t va(size_t page) { return kBase + page * kPage; }
    static uint64_t gpa(size_t page) { return kGpa + page * kPage; }
    dune_vcpu_page& page() const { return *page_; }
    int device() const { return device_; }
    int vcpu() const { return vcpu_; }
    int last_vector() const { return last_vector_; }

  private:
    void build();

    int device_ = -1;
    int vcpu_ = -1;
    dune_vcpu_page* page_ = nullptr;
    uint8_t* area_ = nullptr;
    uint8_t* pristine_ = nullptr;
    int last_vector_ = -1;
};

}  // namespace fuzz

#endif
