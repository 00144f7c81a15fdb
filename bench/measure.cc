// SPDX-License-Identifier: MIT
#include "measure.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {
namespace {

constexpr unsigned kTimeout = 900;  // seconds of the machine's own time

}  // namespace

Measure::Measure(Outcome& outcome, unsigned samples, long argument) noexcept
    : outcome_(outcome), samples_(std::min(samples, kMaxSamples)), argument_(argument) {
}

void Measure::extra(const char* name, double value) noexcept {
    if (outcome_.extra_count == outcome_.extras.size())
        return;
    Outcome::Extra& extra = outcome_.extras[outcome_.extra_count++];
    std::snprintf(extra.name, sizeof(extra.name), "%s", name);
    extra.value = value;
}

void Measure::count_exits(ReadStats read) noexcept {
    device_ = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    if (device_ < 0)
        fail("cannot open " DUNE_DEVICE ": %s", std::strerror(errno));
    read_stats_ = read;
}

Measure::Stats Measure::stats() const noexcept {
    Stats reasons = {};
    if (read_stats_ == nullptr)
        return reasons;
    dune_stats stats = {};
    stats.size = sizeof(stats);
    read_stats_(device_, &stats);
    std::copy(std::begin(stats.exits), std::end(stats.exits), reasons.begin());
    return reasons;
}

double Measure::nested_table_bytes() const noexcept {
    dune_stats stats = {};
    stats.size = sizeof(stats);
    read_stats_(device_, &stats);
    return static_cast<double>(stats.ept_bytes);
}

// Reading the counters takes exits of its own: those between `idle` and `before`.
void Measure::add_exits(const Stats& idle, const Stats& before, const Stats& after) noexcept {
    for (std::size_t i = 0; i < after.size(); ++i)
        outcome_.exits[i] +=
            static_cast<std::int64_t>(after[i] - before[i] - (before[i] - idle[i]));
}

void Measure::calibrate() noexcept {
    constexpr unsigned kRuns = 101;
    auto nothing = [](unsigned) { asm volatile("" : : : "memory"); };
    run(kRuns, 0, nothing);
    const auto begin = outcome_.samples.begin();
    std::nth_element(begin, begin + kRuns / 2, begin + kRuns);
    outcome_.overhead = outcome_.samples[kRuns / 2];
    // Every page of it is there when samples are taken.
    outcome_.samples.fill(0);
}

void Measure::fail(const char* format, ...) noexcept {
    va_list arguments;
    va_start(arguments, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is initialized, one line up
    std::vsnprintf(outcome_.error, sizeof(outcome_.error), format, arguments);
    va_end(arguments);
    _exit(1);
}

Outcome* shared_outcome() noexcept {
    void* const memory = mmap(nullptr, sizeof(Outcome), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<Outcome*>(memory);
}

bool run_case(const Case& wanted, Outcome& outcome) noexcept {
    outcome = {};
    outcome.divisor = 1;
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(kTimeout);
        Measure measure(outcome, wanted.samples, wanted.argument);
        wanted.body(measure);
        outcome.done = true;
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        std::snprintf(outcome.error, sizeof(outcome.error), "cannot start a process: %s",
                      std::strerror(errno));
        return false;
    }
    if (outcome.done && outcome.count != 0)
        return true;
    if (outcome.error[0] == '\0' && WIFSIGNALED(status))
        std::snprintf(outcome.error, sizeof(outcome.error), "ended by signal %d (%s)",
                      WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (outcome.error[0] == '\0')
        std::snprintf(outcome.error, sizeof(outcome.error), "ended early with status %d",
                      WEXITSTATUS(status));
    return false;
}

}  // namespace bench
