#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What `make run` shows, inside the machine: unmodified programs in the sandbox, a policy at work, and what
# it costs next to plain Linux. On the emulated machine with one CPU the time-stamp counter counts
# instructions.

set -u
work=$(mktemp -d)
cd "$work" || exit 1
trap 'rm -rf "$work"' EXIT

title() {
    printf '\n\033[1m%s\033[0m\n' "$*"
}

show() {
    printf '$ %s\n' "$*"
}

title "An unmodified program: /bin/ls in ring 3"
show "dune-sandbox -- /bin/ls -l /usr/bin | head -5"
dune-sandbox -- /bin/ls -l /usr/bin | head -5

if command -v python3 >/dev/null; then
    cat >primes.py <<'EOF'
sieve = bytearray([1]) * 20000
for n in range(2, 142):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, 20000, n)))
primes = [n for n in range(2, 20000) if sieve[n]]
print(len(primes), "primes below 20,000; the last is", primes[-1])
EOF
    title "A Python script, with no network and nothing to read but Python itself"
    show "dune-sandbox --preset compute --read /usr --read \$PWD -- python3 primes.py"
    dune-sandbox --quiet --preset compute --read /usr --read "$work" -- python3 primes.py
else
    cat >primes.awk <<'EOF'
BEGIN {
    for (n = 2; n < 3000; n++) if (!composite[n]) {
        count++; last = n
        for (m = n * n; m < 3000; m += n) composite[m] = 1
    }
    print count, "primes below 3,000; the last is", last
}
EOF
    title "A script that computes, with no network and no files but its own"
    show "dune-sandbox --preset compute --read \$PWD -- awk -f primes.awk"
    dune-sandbox --preset compute --read "$work" -- awk -f primes.awk
fi

title "A policy: /etc/shadow is nobody's business, though this is root"
cat >policy <<'EOF'
preset default
hide /etc/shadow
errno EACCES @net
EOF
show "dune-sandbox --policy policy --stats -- cat /etc/shadow"
dune-sandbox --policy policy --stats -- cat /etc/shadow
echo "exit status $?"

title "What it costs"
dune-sandbox -- /bin/true # so that the files are in memory
if command -v python3 >/dev/null; then
    workload="python3 primes.py"
else
    workload="awk -f primes.awk"
fi

# The number behind a word in a file.
number() {
    sed -n "s/.*[^0-9]\{0,1\}\b$1: \([0-9]*\).*/\1/p" "$2" | head -1
}

printf '%-24s %14s %14s %8s %10s %10s\n' program "plain Linux" sandbox ratio calls "VM exits"
for command in "/bin/true" "/bin/ls -l /usr/bin" "$workload" "cat /etc/passwd"; do
    $command >/dev/null 2>&1
    # shellcheck disable=SC2086 # the words of the command
    dune-ticks $command >/dev/null 2>plain
    # shellcheck disable=SC2086
    dune-ticks dune-sandbox --quiet --log report --stats -- $command >/dev/null 2>boxed
    plain=$(number ticks plain)
    boxed=$(number ticks boxed)
    calls=$(number "system calls" report)
    exits=$(number "VM exits" report)
    rm -f report
    printf '%-24s %14s %14s %7s%% %10s %10s\n' "${command#/bin/}" "$plain" "$boxed" \
        "$((boxed * 100 / plain))" "$calls" "$exits"
done
echo "(instructions on the emulated machine; its start in the sandbox is part of each program's)"
