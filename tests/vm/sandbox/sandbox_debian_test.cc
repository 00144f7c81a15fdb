// SPDX-License-Identifier: MIT
//
// Programs of the distribution as they are. Each runs plain and sandboxed, with the same output.

#include <gtest/gtest.h>

#include <fstream>

#include "same_as_plain.h"

namespace dune::sandbox_test {
namespace {

TEST(Debian, Python) {
    same_as_plain({"python3", "-c", "print(sum(i * i for i in range(20000)))"});
}

TEST(Debian, PythonThreadsAndProcesses) {
    std::ofstream("/tmp/threads.py") << R"(
import multiprocessing, os, signal, subprocess, sys, threading
results = []
threads = [threading.Thread(target=lambda i=i: results.append(i * i)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results))
print(subprocess.run(["sh", "-c", "echo child; exit 3"], capture_output=True).returncode)
print(subprocess.check_output(["sort"], input=b"b\na\n"))
def square(x): return x * x
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool: print(pool.map(square, range(8)))
signal.signal(signal.SIGALRM, lambda *a: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
signal.pause()
)";
    same_as_plain({"python3", "/tmp/threads.py"});
}

TEST(Debian, BashPipes) {
    same_as_plain(
        {"bash", "-c",
         "for i in 1 2 3; do echo $i; done | while read n; do echo $((n * n)); done | sort -r;"
         "x=$(ls / | wc -l); (( x > 5 )) && echo many; cat <(echo substituted);"
         "trap 'echo trapped' USR1; kill -USR1 $BASHPID; echo end"});
}

TEST(Debian, Perl) {
    same_as_plain(
        {"perl", "-e",
         "my %h; $h{$_ % 7}++ for 1..1000; print join(',', map {\"$_=$h{$_}\"} sort keys %h);"
         "if (my $p = fork) { waitpid $p, 0; print $? >> 8 } else { exit 5 }"});
}

TEST(Debian, Sqlite) {
    same_as_plain(
        {"sqlite3", ":memory:",
         "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n "
         "where i < 2000) insert into t select i, i * 7 % 13 from n; create index x on t(b);"
         "select b, count(*), sum(a) from t group by b;"});
}

TEST(Debian, TarGzipXz) {
    same_as_plain({"bash", "-c",
                   "rm -rf /tmp/w && mkdir -p /tmp/w/in && cd /tmp/w && seq 1 3000 >in/seq && "
                   "cp /etc/passwd in/ && tar -czf a.tgz in && tar -cf - in | xz -1 >a.txz && "
                   "mkdir out && tar -xzf a.tgz -C out && xz -dc a.txz | tar -tf - | sort && "
                   "cmp in/seq out/in/seq && echo same"});
}

// Go has a scheduler, stacks and signals of its own, and makes its system calls without libc.
TEST(Debian, Go) {
    std::ofstream("/tmp/tree.json") << R"({"a": [1, 2.5, {"b": null}], "c": "text", "d": true})";
    same_as_plain({"gron", "/tmp/tree.json"});
    same_as_plain({"sh", "-c", "gron /tmp/tree.json | gron --ungron"});
}

// Rust, with a pool of threads that walks directories.
TEST(Debian, Rust) {
    same_as_plain({"rg", "--sort", "path", "--line-number", "root:", "/etc/passwd", "/etc/group"});
    same_as_plain({"sh", "-c", "rg --threads 4 --files /usr/share | LC_ALL=C sort | tail -20"});
}

}  // namespace
}  // namespace dune::sandbox_test
