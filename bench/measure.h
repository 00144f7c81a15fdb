// SPDX-License-Identifier: MIT
/**
 * @file
 * How a case is measured. Each runs in a child process of its own, so that none sees what another
 * left behind, and gives its samples back in memory shared with the program.
 */
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "clock.h"
#include "kern/dune.h"

namespace bench {

inline constexpr unsigned kMaxSamples = 2048;
inline constexpr unsigned kWarmUp = 32;

/** What a case hands to the program; in shared memory. */
struct Outcome {
    struct Extra {
        char name[32];
        double value;
    };
    std::array<std::uint64_t, kMaxSamples> samples;
    unsigned count;                                 ///< samples that are there
    std::uint64_t overhead;                         ///< ticks that a sample of nothing has
    double divisor;                                 ///< operations that a sample covers
    std::array<std::int64_t, DUNE_NR_EXITS> exits;  ///< of all samples, by basic exit reason
    std::array<Extra, 4> extras;
    unsigned extra_count;
    bool done;
    char error[256];
};

/** What the body of a case works with. Context: host mode, and ring 0 but for fail(). */
class Measure {
  public:
    /** The exits of this process as the module counts them. */
    using ReadStats = long (*)(int device, dune_stats* stats);

    Measure(Outcome& outcome, unsigned samples, long argument) noexcept;

    long argument() const noexcept { return argument_; }
    unsigned samples() const noexcept { return samples_; }
    /** Calls that op() gets in all, warm-up included; it is given their numbers in order. */
    unsigned calls() const noexcept { return samples_ + warm_up(); }
    Outcome& outcome() noexcept { return outcome_; }

    /** Have a sample stand for so many operations. */
    void divide_by(double operations) noexcept { outcome_.divisor = operations; }
    /** One more value that the report shows. */
    void extra(const char* name, double value) noexcept;

    /** Count exits from here on: opens /dev/dune. Host mode. */
    void count_exits(ReadStats read) noexcept;

    /** Time op(i), one sample a call. */
    template <class Op>
    void sample(Op&& op) noexcept {
        calibrate();
        run(warm_up(), 0, op);
        const Stats idle = stats();
        const Stats before = stats();
        run(samples_, warm_up(), op);
        const Stats after = stats();
        add_exits(idle, before, after);
        outcome_.count = samples_;
    }

    /** The same where something has to be prepared before each sample, uncounted. */
    template <class Prepare, class Op>
    void sample_prepared(Prepare&& prepare, Op&& op) noexcept {
        calibrate();
        std::uint64_t first = 0;
        for (unsigned i = 0; i < calls(); ++i) {
            prepare(i);
            const Stats idle = stats();
            const Stats before = stats();
            run(1, i, op);
            const Stats after = stats();
            if (i < warm_up())
                continue;
            // run() puts its sample first; the first of all goes there at last.
            (i == warm_up() ? first : outcome_.samples[i - warm_up()]) = outcome_.samples[0];
            add_exits(idle, before, after);
        }
        outcome_.samples[0] = first;
        outcome_.count = samples_;
    }

    /** The same where op(i) itself says how many ticks it took. */
    template <class Op>
    void sample_given(Op&& op) noexcept {
        calibrate();
        for (unsigned i = 0; i < warm_up(); ++i)
            op(i);
        const Stats idle = stats();
        const Stats before = stats();
        for (unsigned i = 0; i < samples_; ++i)
            outcome_.samples[i] = op(warm_up() + i);
        const Stats after = stats();
        add_exits(idle, before, after);
        outcome_.count = samples_;
    }

    /** Bytes of the nested page tables (EPT) of this process, now. */
    double nested_table_bytes() const noexcept;

    /** What a sample of nothing shows, for cases that take their samples themselves. */
    void calibrate() noexcept;

    /** The case cannot be measured: one line for a person. Ends the child. Host mode. */
    [[noreturn, gnu::format(printf, 2, 3)]] void fail(const char* format, ...) noexcept;

  private:
    using Stats = std::array<std::uint64_t, DUNE_NR_EXITS>;

    /** Not inlined, so that every case is timed by the same few instructions. */
    template <class Op>
    [[gnu::noinline]] void run(unsigned count, unsigned first, Op& op) noexcept {
        std::uint64_t* const samples = outcome_.samples.data();
        for (unsigned i = 0; i < count; ++i) {
            const std::uint64_t begin = ticks();
            op(first + i);
            samples[i] = ticks() - begin;
        }
    }

    unsigned warm_up() const noexcept {
        return samples_ == 1 ? 1 : samples_ < kWarmUp ? 2 : kWarmUp;
    }
    Stats stats() const noexcept;
    void add_exits(const Stats& idle, const Stats& before, const Stats& after) noexcept;

    Outcome& outcome_;
    unsigned samples_;
    long argument_;
    int device_ = -1;
    ReadStats read_stats_ = nullptr;
};

enum class Needs { Linux, Dune };

/** One row of the results. */
struct Case {
    std::string name;  ///< operation/system/variant
    Needs needs;
    unsigned samples;
    long argument;
    void (*body)(Measure&);
};

/** Run a case in a child. @return false, with outcome.error, if it failed */
bool run_case(const Case& wanted, Outcome& outcome) noexcept;

/** Zeroed memory that children share with the program. */
Outcome* shared_outcome() noexcept;

}  // namespace bench
