# SPDX-License-Identifier: MIT
"""Finding complaints in a kernel's log."""

import re

BEGIN = "machine: run begins"
"""The first process writes this into the log: what stands before it is the boot's."""

COMPLAINTS = re.compile("|".join([
    r"\bBUG:", r"\bBUG at\b", r"\bWARNING:", r"\bOops\b", r"general protection fault", r"Kernel panic",
    r"divide error:", r"invalid opcode:", r"double fault:", r"unable to handle kernel", r"Bad page state",
    r"Bad rss-counter", r"rcu:? .*(stall|detected)", r"\bsuspicious RCU usage", r"soft lockup", r"hard LOCKUP",
    r"blocked for more than \d+ seconds", r"possible (circular|recursive) locking", r"inconsistent lock state",
    r"scheduling while atomic", r"sleeping function called from invalid context", r"Objects remaining in",
    r"Slab .* (corruption|has been corrupted)", r"kmem_cache_destroy .* still has objects", r"unregister_netdevice",
    r"list_(add|del) corruption", r"refcount_t:", r"use-after-free", r"KASAN:", r"UBSAN:", r"kmemleak:",
    r"unchecked MSR access error", r"Call Trace:", r"unexpected VMX",
]))

# Words that look like a complaint and are none.
HARMLESS = re.compile("|".join([
    r"loading out-of-tree module taints kernel", r"module verification failed", r"oom-kill:", r"Out of memory:",
    r"invoked oom-killer",
    # A user program that died of a signal, as some tests want it.
    r"^(\[[ \d.]+\] )?traps: .* ip:[0-9a-f]+ sp:[0-9a-f]+ error:",
]))


def lines(text):
    """The log's lines without their priority."""
    return [re.sub(r"^<\d+>", "", line) for line in text.splitlines()]


def complaints(text):
    """The lines since the run began that a healthy kernel does not write."""
    found = lines(text)
    starts = [index for index, line in enumerate(found) if BEGIN in line]
    since = found[starts[-1]:] if starts else found
    # The OOM killer, which a test may well provoke, prints a trace: it is one report, up to the line about its victim.
    # So does a CPU that sysrq-l asks what it does.
    report, out_of_memory, asked, answer = [], False, False, False
    for line in since:
        if "sysrq: Show backtrace of all active CPUs" in line:
            asked = True
        elif asked and "NMI backtrace for cpu" in line:
            answer = True
        elif "</TASK>" in line:
            answer = False
        if answer and "Call Trace:" in line:
            continue
        if "invoked oom-killer" in line:
            out_of_memory = True
        elif out_of_memory and ("Killed process" in line or "Memory cgroup out of memory" in line):
            out_of_memory = False
        elif not out_of_memory and COMPLAINTS.search(line) and not HARMLESS.search(line):
            report.append(line)
    return report
