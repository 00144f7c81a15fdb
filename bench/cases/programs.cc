// SPDX-License-Identifier: MIT
// Whole programs of the distribution, plain and in dune-sandbox: from fork to wait.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "arena.h"
#include "cases.h"

namespace bench {
namespace {

constexpr const char* kInput = "/tmp/dune-bench.input";
constexpr const char* kLog = "/tmp/dune-bench.log";
constexpr const char* kSelf = "/proc/self/exe";

struct Program {
    const char* name;
    const char* words[4];  ///< the command, then nullptr
};

// Each computes for some hundred million instructions, so that its start does not count.
constexpr Program kPrograms[] = {
    {"true", {"/bin/true"}},
    {"gzip", {"/usr/bin/gzip", "-c", kInput}},
    {"python3", {"/usr/bin/python3", "-c", "print(sum(i * i % 7 for i in range(400000)))"}},
    {"sqlite3",
     {"/usr/bin/sqlite3", ":memory:",
      "create table t(a, b);"
      "insert into t with recursive c(x) as (select 1 union all select x + 1 from c where x < "
      "60000)"
      " select x, x * 7919 % 10007 from c;"
      "create index i on t(b); select sum(a) from t where b < 5000;"}},
};

/** Text that compresses about as text does. */
void make_input(Measure& measure) {
    const char* const words[] = {"page",   "table", "guest", "process",
                                 "kernel", "the ",  "of ",   "\n"};
    std::ofstream file(kInput, std::ios::trunc);
    Random random;
    for (std::size_t size = 0; size < std::size_t{1} << 20; size += 5)
        file << words[random.below(8)] << static_cast<char>('a' + random.below(26));
    file.close();
    if (!file)
        measure.fail("no room for %s", kInput);
}

/** Run a command with its output thrown away, or in a pipe. */
pid_t spawn(const std::vector<const char*>& words, int output) {
    const pid_t child = fork();
    if (child != 0)
        return child;
    dup2(output, STDOUT_FILENO);
    std::vector<char*> arguments;
    for (const char* const word : words)
        arguments.push_back(const_cast<char*>(word));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
}

bool run(const std::vector<const char*>& words, int output) {
    int status = 0;
    return waitpid(spawn(words, output), &status, 0) > 0 && status == 0;
}

std::vector<const char*> command(const Program& program, std::vector<const char*> before = {}) {
    for (const char* const word : program.words)
        if (word != nullptr)
            before.push_back(word);
    return before;
}

/** "VM exits: 884" in the report of the sandbox. */
double exits_in_log() {
    std::ifstream file(kLog);
    const std::string key = "VM exits: ";
    for (std::string line; std::getline(file, line);)
        if (const auto at = line.find(key); at != std::string::npos)
            return std::strtod(line.c_str() + at + key.size(), nullptr);
    return 0;
}

/**
 * While one lives, khugepaged sleeps. Every ten seconds, longer than a run, it joins pages of
 * whatever process it comes across: 0.4 million instructions for each 2 MiB, in one run and not in
 * the next. Huge pages at a page fault stay as they are. Without root it goes on.
 */
class NoBackgroundCollapse {
  public:
    NoBackgroundCollapse() {
        std::ifstream(kScanSleep) >> before_;
        set(kForEver);
    }
    ~NoBackgroundCollapse() { set(before_); }
    NoBackgroundCollapse(const NoBackgroundCollapse&) = delete;
    NoBackgroundCollapse& operator=(const NoBackgroundCollapse&) = delete;

  private:
    static constexpr const char* kScanSleep =
        "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
    static constexpr const char* kForEver = "4000000000";  // as near as its 32 bits come
    static void set(const std::string& milliseconds) {
        if (!milliseconds.empty())
            std::ofstream(kScanSleep) << milliseconds;
    }
    std::string before_;
};

void program(Measure& measure, bool sandbox) {
    const Program& chosen = kPrograms[measure.argument()];
    if (access(chosen.words[0], X_OK) != 0)
        measure.fail("%s is not installed here", chosen.words[0]);
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    make_input(measure);
    const auto words = command(chosen, sandbox ? std::vector{"dune-sandbox", "--quiet", "--"}
                                               : std::vector<const char*>{});
    bool good;
    {
        const NoBackgroundCollapse quiet;  // not there any more when fail() ends the process
        good = run(words, null);
        if (good)
            measure.sample([&](unsigned) { good = run(words, null) && good; });
    }
    if (!good)
        measure.fail("'%s' failed", sandbox ? "dune-sandbox" : chosen.words[0]);
    if (!sandbox)
        return;
    unlink(kLog);
    if (!run(command(chosen, {"dune-sandbox", "--stats", "--quiet", "--log", kLog, "--"}), null))
        measure.fail("'dune-sandbox --stats' failed");
    measure.extra("exits", exits_in_log());
}

void program_linux(Measure& measure) {
    program(measure, false);
}

void program_sandbox(Measure& measure) {
    program(measure, true);
}

/** A call as a program in the sandbox sees it: this program samples it there. */
void call_in_sandbox(Measure& measure) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        measure.fail("no pipe: %s", std::strerror(errno));
    char self[256] = "";
    if (readlink(kSelf, self, sizeof(self) - 1) < 0)
        measure.fail("cannot find this program: %s", std::strerror(errno));
    const pid_t child = spawn({"dune-sandbox", "--quiet", "--", self, kSampleGetpid}, ends[1]);
    close(ends[1]);
    FILE* const output = fdopen(ends[0], "r");
    Outcome& outcome = measure.outcome();
    unsigned long value = 0;
    unsigned count = 0;
    while (count < measure.samples() && std::fscanf(output, "%lu", &value) == 1)
        outcome.samples[count++] = value;
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0 || count != measure.samples())
        measure.fail("'dune-sandbox -- dune-bench' failed");
    outcome.count = count;
}

constexpr unsigned kCallSamples = 500;
constexpr unsigned kProgramSamples = 3;

}  // namespace

void sample_getpid_to_stdout() {
    static Outcome outcome;
    Measure measure(outcome, kCallSamples, 0);
    measure.sample([](unsigned) { raw_syscall(SYS_getpid); });
    for (unsigned i = 0; i < outcome.count; ++i)
        std::printf("%lu\n", outcome.samples[i] - std::min(outcome.samples[i], outcome.overhead));
}

void add_program_cases(Cases& cases) {
    cases.push_back({"sandbox_call/dune/getpid", Needs::Dune, kCallSamples, 0, call_in_sandbox});
    for (long i = 0; i < static_cast<long>(std::size(kPrograms)); ++i) {
        const std::string name = kPrograms[i].name;
        cases.push_back({"program/linux/" + name, Needs::Linux, kProgramSamples, i, program_linux});
        cases.push_back(
            {"program/sandbox/" + name, Needs::Dune, kProgramSamples, i, program_sandbox});
    }
}

}  // namespace bench
