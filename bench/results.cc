// SPDX-License-Identifier: MIT
#include "results.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>

#include "fmt/format.h"

namespace bench {
namespace {

// External interrupts are the machine's, not the operation's: how many fall into a case depends on
// where it begins.
constexpr unsigned kExternalInterrupt = 1;

const std::map<unsigned, std::string> kExitNames = {
    // SDM vol. 3, appendix C
    {0, "exception_or_nmi"},
    {1, "external_interrupt"},
    {2, "triple_fault"},
    {7, "interrupt_window"},
    {10, "cpuid"},
    {12, "hlt"},
    {14, "invlpg"},
    {18, "vmcall"},
    {28, "cr_access"},
    {29, "dr_access"},
    {30, "io"},
    {31, "rdmsr"},
    {32, "wrmsr"},
    {40, "pause"},
    {48, "ept_violation"},
    {49, "ept_misconfiguration"},
    {52, "preemption_timer"},
    {55, "xsetbv"},
    {58, "invpcid"},
};

std::string first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::string cpu_model() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.rfind("model name", 0) == 0)
            return line.substr(line.find(':') + 2);
    return "unknown";
}

void describe_module() {
    dune_info info = {};
    info.size = sizeof(info);
    const int device = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    if (device >= 0 && ioctl(device, DUNE_GET_INFO, &info) == 0) {
        benchmark::AddCustomContext("fast_system_calls",
                                    info.features & DUNE_FEAT_FAST_SYSCALLS ? "on" : "off");
        benchmark::AddCustomContext("vmx", info.features & DUNE_FEAT_KVM ? "kvm's" : "dune's own");
    }
    if (device >= 0)
        close(device);
}

bool is_emulator() {
    return unit() == Unit::Instructions;
}

}  // namespace

std::string exit_name(unsigned reason) {
    const auto found = kExitNames.find(reason);
    return found == kExitNames.end() ? fmt::format("reason_{}", reason) : found->second;
}

Summary summarize(const Outcome& outcome) {
    std::vector<std::uint64_t> sorted(outcome.samples.begin(),
                                      outcome.samples.begin() + outcome.count);
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&](std::size_t tenths) {
        const auto ticks = static_cast<double>(sorted[(sorted.size() - 1) * tenths / 10]);
        return std::max(0.0, ticks - static_cast<double>(outcome.overhead)) / outcome.divisor;
    };
    return {.median = at(5), .p10 = at(1), .p90 = at(9)};
}

void set_counters(benchmark::State& state, const Outcome& outcome) {
    const Summary summary = summarize(outcome);
    const char* const what = is_emulator() ? "instructions" : "cycles";
    state.counters[what] = summary.median;
    state.counters[std::string(what) + "_p10"] = summary.p10;
    state.counters[std::string(what) + "_p90"] = summary.p90;
    const double operations = outcome.count * outcome.divisor;
    double all = 0;
    for (unsigned reason = 0; reason < outcome.exits.size(); ++reason) {
        if (outcome.exits[reason] == 0 || reason == kExternalInterrupt)
            continue;
        const double each = static_cast<double>(outcome.exits[reason]) / operations;
        state.counters["exits_" + exit_name(reason)] = each;
        all += each;
    }
    state.counters["exits"] = all;
    for (unsigned i = 0; i < outcome.extra_count; ++i)
        state.counters[outcome.extras[i].name] = outcome.extras[i].value;
}

void describe_machine(bool dune) {
    utsname kernel = {};
    uname(&kernel);
    benchmark::AddCustomContext("machine", is_emulator() ? "emulator" : "hardware");
    benchmark::AddCustomContext(
        "unit", is_emulator() ? "instructions; times mean nothing here and are left out"
                              : "cycles of the time-stamp counter, nanoseconds");
    benchmark::AddCustomContext("kernel", kernel.release);
    benchmark::AddCustomContext("kernel_command_line", first_line("/proc/cmdline"));
    benchmark::AddCustomContext("cpu", cpu_model());
    if (dune)
        describe_module();
}

bool TableReporter::ReportContext(const Context&) {
    std::cout << fmt::format("{}: {} for an operation, median [10th .. 90th of 100], VM exits\n",
                             is_emulator() ? "In the emulator" : "On hardware",
                             is_emulator() ? "instructions" : "cycles");
    return true;
}

void TableReporter::ReportRuns(const std::vector<Run>& runs) {
    for (const Run& run : runs) {
        const std::string name = run.run_name.function_name;
        if (run.error_occurred) {
            failed_ = true;
            std::cout << fmt::format("{:<42} failed: {}\n", name, run.error_message);
            continue;
        }
        if (run.run_type != Run::RT_Iteration)
            continue;
        const auto value = [&run](const std::string& counter) {
            const auto found = run.counters.find(counter);
            return found == run.counters.end() ? 0.0 : static_cast<double>(found->second);
        };
        const std::string what = is_emulator() ? "instructions" : "cycles";
        std::string rest;
        for (const auto& [counter, number] : run.counters)
            if (counter.rfind("exits_", 0) == 0)
                rest += fmt::format(" {}:{:.3g}", counter.substr(6), static_cast<double>(number));
            else if (counter != "exits" && counter.rfind(what, 0) != 0)
                rest += fmt::format(" {}={:.0f}", counter, static_cast<double>(number));
        std::cout << fmt::format("{:<42}{:>13.1f} [{:.1f} .. {:.1f}]{}\n", name, value(what),
                                 value(what + "_p10"), value(what + "_p90"), rest);
    }
    std::cout.flush();
}

void FileReporter::ReportRuns(const std::vector<Run>& runs) {
    std::vector<Run> kept;
    for (Run run : runs) {
        run.run_name.iterations.clear();
        run.run_name.time_type.clear();
        run.cpu_accumulated_time = 0;  // how long the whole case took, set-up included
        kept.push_back(run);
    }
    JSONReporter::ReportRuns(kept);
}

void FileReporter::Finalize() {
    JSONReporter::Finalize();
    GetOutputStream().flush();
    failed_ = !GetOutputStream().good();
}

}  // namespace bench
