// SPDX-License-Identifier: MIT
// dune-bench: what Dune costs and what it wins, beside Linux. docs/performance.md explains the
// cases.
#include <sys/personality.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>

#include "cases/cases.h"
#include "results.h"

namespace bench {
namespace {

constexpr const char* kUsage =
    "usage: dune-bench [--list] [--out FILE] [REGEX...]\n"
    "Measures the cases whose name one of the regular expressions matches, or all: instructions "
    "and\n"
    "VM exits in the emulator, cycles on hardware.\n"
    "  --list      print the names of the cases\n"
    "  --out FILE  write the results as JSON too\n"
    "Options of Google Benchmark (--benchmark_...) work as well.\n";

[[noreturn, gnu::format(printf, 1, 2)]] void die(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fputs("dune-bench: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::exit(2);
}

Cases all_cases() {
    Cases cases;
    add_module_cases(cases);
    add_call_cases(cases);
    add_memory_cases(cases);
    add_trap_cases(cases);
    add_protect_cases(cases);
    add_ring3_cases(cases);
    add_process_cases(cases);
    add_program_cases(cases);
    return cases;
}

struct Options {
    bool list = false;
    std::string out;
    std::vector<std::regex> wanted;
    std::vector<std::string> wanted_text;
    std::vector<std::string> google;  ///< for benchmark::Initialize()
};

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--help" || word == "-h") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        } else if (word == "--list") {
            options.list = true;
        } else if (word == kSampleGetpid) {
            sample_getpid_to_stdout();
            std::exit(0);
        } else if (word == "--out") {
            if (++i == argc)
                die("--out needs the name of a file");
            options.out = argv[i];
        } else if (word.rfind("--benchmark_out=", 0) == 0) {
            options.out = word.substr(std::strlen("--benchmark_out="));
        } else if (word.rfind("--benchmark_", 0) == 0) {
            options.google.push_back(word);
        } else if (word.starts_with('-')) {
            die("unknown option %s; see dune-bench --help", word.c_str());
        } else {
            options.wanted_text.push_back(word);
        }
    }
    for (const std::string& text : options.wanted_text)
        try {
            options.wanted.emplace_back(text);
        } catch (const std::regex_error& error) {
            die("'%s' is no regular expression: %s", text.c_str(), error.what());
        }
    return options;
}

Cases choose(const Options& options) {
    Cases all = all_cases();
    if (options.wanted.empty())
        return all;
    Cases chosen;
    std::vector<bool> used(options.wanted.size());
    for (Case& one : all) {
        bool take = false;
        for (std::size_t i = 0; i < options.wanted.size(); ++i)
            if (std::regex_search(one.name, options.wanted[i])) {
                used[i] = true;
                take = true;
            }
        if (take)
            chosen.push_back(std::move(one));
    }
    for (std::size_t i = 0; i < used.size(); ++i)
        if (!used[i])
            die("no case is called '%s'; dune-bench --list names them",
                options.wanted_text[i].c_str());
    return chosen;
}

bool needs_dune(const Cases& cases) {
    for (const Case& one : cases)
        if (one.needs == Needs::Dune)
            return true;
    return false;
}

/** Addresses decide how many page tables there are and which caches collide: the same each time. */
void without_random_addresses(char** argv) {
    constexpr unsigned long kAsk = 0xffffffff;
    const int now = personality(kAsk);
    if (now < 0 || (now & ADDR_NO_RANDOMIZE) != 0)
        return;
    if (personality(static_cast<unsigned long>(now) | ADDR_NO_RANDOMIZE) >= 0)
        execv("/proc/self/exe", argv);
}

void run(benchmark::State& state, const Case& one, Outcome& outcome) {
    const bool good = run_case(one, outcome);
    const double seconds = unit() == Unit::Cycles ? 1 / ticks_per_second() : 0;
    unsigned i = 0;
    if (!good)
        state.SkipWithError(outcome.error);
    for ([[maybe_unused]] auto _ : state) {
        const double ticks = static_cast<double>(outcome.samples[i++ % outcome.count]) -
                             static_cast<double>(outcome.overhead);
        state.SetIterationTime(ticks * seconds / outcome.divisor);
    }
    if (good)
        set_counters(state, outcome);
}

/** Fails where the file cannot be written, before an hour is spent. */
void check_out(const std::string& path) {
    std::ofstream file(path, std::ios::app);
    if (!file)
        die("cannot write the results to %s: %s", path.c_str(), std::strerror(errno));
}

int benchmark_main(int argc, char** argv) {
    Options options = parse(argc, argv);
    const Cases cases = choose(options);
    if (options.list) {
        for (const Case& one : cases)
            std::printf("%s\n", one.name.c_str());
        return 0;
    }
    const bool dune = needs_dune(cases);
    if (dune && access(DUNE_DEVICE, R_OK | W_OK) != 0)
        die(errno == ENOENT ? "there is no %s: run 'modprobe dune' as root, or choose cases of "
                              "Linux alone with 'linux'"
                            : "no permission to use %s: run as root or join its group",
            DUNE_DEVICE);
    without_random_addresses(argv);

    std::vector<std::string> words = {argv[0]};
    words.insert(words.end(), options.google.begin(), options.google.end());
    if (!options.out.empty()) {
        check_out(options.out);
        words.push_back("--benchmark_out=" + options.out);
    }
    std::vector<char*> pointers;
    pointers.reserve(words.size());
    for (std::string& word : words)
        pointers.push_back(word.data());
    int count = static_cast<int>(pointers.size());
    benchmark::Initialize(&count, pointers.data());
    if (count > 1)
        die("unknown option %s; see dune-bench --help", pointers[1]);
    describe_machine(dune);

    Outcome* const outcome = shared_outcome();
    if (outcome == nullptr)
        die("no memory for the samples");
    for (const Case& one : cases)
        // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): Google Benchmark keeps it
        benchmark::RegisterBenchmark(
            one.name.c_str(),
            [&one, outcome](benchmark::State& state) { run(state, one, *outcome); })
            ->Iterations(one.samples)
            ->UseManualTime();

    TableReporter table;
    FileReporter file;
    benchmark::RunSpecifiedBenchmarks(&table, options.out.empty() ? nullptr : &file);
    benchmark::Shutdown();
    if (file.failed())
        die("no room for the results in %s", options.out.c_str());
    return table.failed() ? 1 : 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::benchmark_main(argc, argv);
}
