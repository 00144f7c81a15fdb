// SPDX-License-Identifier: MIT
/**
 * @file
 * From samples to Google Benchmark's counters, and how they are printed and written.
 */
#pragma once

#include <benchmark/benchmark.h>

#include <string>

#include "measure.h"

namespace bench {

/** Median and spread of an outcome, per operation and without what measuring took. */
struct Summary {
    double median;
    double p10;
    double p90;
};
Summary summarize(const Outcome& outcome);

/** Name of a basic exit reason, as the counter's: "vmcall", "ept_violation", "reason_62". */
std::string exit_name(unsigned reason);

/** Set the counters of a run: instructions or cycles, exits in all and by reason, extras. */
void set_counters(benchmark::State& state, const Outcome& outcome);

/** Facts about the machine, for the head of the results. */
void describe_machine(bool dune);

/** One line a case. */
class TableReporter : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context& context) override;
    void ReportRuns(const std::vector<Run>& runs) override;
    bool failed() const { return failed_; }

  private:
    bool failed_ = false;
};

/**
 * Google Benchmark's JSON, without its times where they would be the emulator's.
 */
class FileReporter : public benchmark::JSONReporter {
  public:
    void ReportRuns(const std::vector<Run>& runs) override;
    void Finalize() override;
    /** Was there no room for the results? */
    bool failed() const { return failed_; }

  private:
    bool failed_ = false;
};

}  // namespace bench
