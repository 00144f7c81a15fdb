# SPDX-License-Identifier: MIT
"""The rows of the tables, the paper's numbers, and what the parts of the project aim at."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Row:
    """One operation, on Linux and in Dune; paper: (Linux, Dune), cycles on a Xeon X3460 under Linux 3.0."""
    title: str
    linux: str | None
    dune: str | None
    paper: tuple | None = None


PAPER = [
    Row("getpid", "getpid/linux/syscall", "getpid/dune/vmcall", (138, 895)),
    Row("page fault: first touch of 4 KiB", "page_fault/linux/anonymous_4k", "page_fault/dune/anonymous_4k", (2687, 5093)),
    Row("page walk, 64 MiB in 4 KiB pages (a)", "page_walk/linux/4k/64m", "page_walk/dune/4k/64m", (35.8, 86.4)),
    Row("ptrace: interposed getpid", "interpose/linux/ptrace", "interpose/dune/ring3", (27317, 1091)),
    Row("trap: fault to handler", "trap_entry/linux/sigsegv", "trap_entry/dune/page_fault", (2821, 587)),
    Row("appel1, 100 pages", "appel1/linux/100", "appel1/dune/100", (701413, 94496)),
    Row("appel2, 100 pages", "appel2/linux/100", "appel2/dune/100", (684909, 94854)),
]

MORE = [
    ("System calls", [
        Row("call with an unknown number: the bare way out and in", "unknown_call/linux/syscall", "unknown_call/dune/vmcall"),
        Row("the same beside a loaded VMCS of KVM's", None, "unknown_call/dune/vmcall_beside_kvm"),
        Row("getpid beside a loaded VMCS of KVM's", None, "getpid/dune/vmcall_beside_kvm"),
        Row("getpid by VMCALL outside the gate", None, "getpid/dune/vmcall_no_gate"),
        Row("getpid by SYSCALL in ring 0 (the C library's way)", "getpid/linux/syscall", "getpid/dune/syscall"),
        Row("getpid the slow way, through host mode", None, "getpid/dune/vmcall_slow"),
        Row("getpid from ring 3 through a handler", "interpose/linux/seccomp_notify", "interpose/dune/ring3"),
        Row("getpid from ring 3, checked against a table", "interpose/linux/seccomp_notify", "interpose/dune/ring3_checked"),
        Row("ring 3 → handler → ring 3", None, "ring3_call/dune/nothing"),
        Row("clock_gettime by vDSO", "clock_gettime/linux/vdso", "clock_gettime/dune/vdso"),
        Row("getpid in each of 64 threads", "getpid_threads/linux/64", "getpid_threads/dune/64"),
    ]),
    ("Exits and entries", [
        Row("CPUID", None, "cpuid/dune/exit"),
        Row("hypercall that does nothing", None, "hypercall/dune/nop"),
        Row("enter and leave by lseek (Linux: unknown ioctl)", "enter/linux/ioctl_unknown", "enter/dune/lseek"),
        Row("enter and leave by ioctl", "enter/linux/ioctl_unknown", "enter/dune/ioctl"),
        Row("enter and leave by page fault", None, "enter/dune/door"),
        Row("dune_leave + dune_enter", None, "enter/dune/leave_and_enter"),
    ]),
    ("Memory", [
        Row("touch of a page that Linux has", None, "page_fault/dune/present_4k"),
        Row("first touch of a file's page", "page_fault/linux/file_4k", "page_fault/dune/file_4k"),
        Row("first touch of 2 MiB", "page_fault/linux/anonymous_2m", "page_fault/dune/anonymous_2m"),
        Row("all 512 pages of a large page", None, "page_fault/dune/all_of_2m"),
        Row("copy-on-write copy of 100 MiB, for each page", "clone_100m_per_page/linux/fork", "clone_100m_per_page/dune/vm_clone"),
    ]),
    ("Traps", [
        Row("fault and return", "trap/linux/sigsegv", "trap/dune/page_fault"),
        Row("handler to the faulting instruction", "trap_return/linux/sigsegv", "trap_return/dune/page_fault"),
        Row("fault to handler that uses vector registers", None, "trap_entry/dune/page_fault_vectors"),
        Row("from there to the faulting instruction", None, "trap_return/dune/page_fault_vectors"),
        Row("fault to handler that looks at no frame", None, "trap_entry/dune/page_fault_scratch"),
        Row("from there to the faulting instruction", None, "trap_return/dune/page_fault_scratch"),
        Row("divide error to handler", "trap_entry/linux/sigfpe", "trap_entry/dune/divide"),
        Row("appel1, 100 pages, handler changes the entries", "appel1/linux/100", "appel1/dune_pte/100"),
        Row("appel2, 100 pages, handler changes the entries", "appel2/linux/100", "appel2/dune_pte/100"),
    ]),
    ("What the years since added", [
        Row("write-protect a page, fault, allow: SIGSEGV", "write_fault/linux/mprotect", "write_fault/dune/vm_mprotect"),
        Row("write-protect a page, fault, allow: userfaultfd", "write_fault/linux/userfaultfd", "write_fault/dune/vm_mprotect"),
        Row("protect and allow a page: mprotect", "protect/linux/mprotect", "protect/dune/vm_mprotect"),
        Row("protect and allow a page: protection keys", "protect/linux/protection_keys", "protect/dune/vm_mprotect"),
        Row("to another address space and back, PCID", "switch_space/linux/two_processes", "switch_space/dune/pcid"),
        Row("the same without PCID (b)", "switch_space/linux/two_processes", "switch_space/dune/flush"),
        Row("fork, enter, exit, wait", "fork_and_exit/linux/fork", "fork_and_exit/dune/fork_enter"),
        Row("create a thread, enter, join", "thread/linux/create_join", "thread/dune/create_enter_join"),
    ]),
    ("Whole programs (c)", [
        Row("/bin/true", "program/linux/true", "program/sandbox/true"),
        Row("gzip of 1 MiB", "program/linux/gzip", "program/sandbox/gzip"),
        Row("a loop in python3", "program/linux/python3", "program/sandbox/python3"),
        Row("sqlite3 in memory", "program/linux/sqlite3", "program/sandbox/sqlite3"),
    ]),
]


def module_source():
    files = [path for path in sorted((ROOT / "kern").rglob("*.[chS]")) if not path.name.endswith(".mod.c")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def code_lines(_results):
    """Lines of the module that are neither empty nor comment."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", module_source(), flags=re.DOTALL)
    return sum(1 for line in code.splitlines() if line.strip())


def all_lines(_results):
    return len(module_source().splitlines())


def value(name):
    return lambda results: results.value(name)


def above(name, base):
    """How much more one case takes than another."""
    def difference(results):
        a, b = results.value(name), results.value(base)
        return None if a is None or b is None else a - b
    return difference


def times(name, base):
    def ratio(results):
        a, b = results.value(name), results.value(base)
        return None if not a or not b else a / b
    return ratio


@dataclasses.dataclass(frozen=True)
class Goal:
    """At most `limit`, in the emulator with mitigations=off."""
    part: str
    title: str
    limit: float
    measured: object
    why: str = ""  # said when it is missed


GOALS = [
    Goal("module", "getpid by VMCALL, fast way", 260, value("getpid/dune/vmcall")),
    Goal("module", "bare exit → entry", 145, value("unknown_call/dune/vmcall")),
    Goal("module", "bare exit → entry beside a VMCS of KVM's", 170, value("unknown_call/dune/vmcall_beside_kvm")),
    Goal("module", "getpid, slow way", 1150, value("getpid/dune/vmcall_slow"),
         "through libdune's trampoline; the module's part is the way out to host mode and back in"),
    Goal("module", "CPUID exit", 180, value("cpuid/dune/exit")),
    Goal("module", "fresh 4 KiB page, above Linux", 450, above("page_fault/dune/anonymous_4k", "page_fault/linux/anonymous_4k")),
    Goal("module", "page that Linux has", 400, value("page_fault/dune/present_4k")),
    Goal("module", "exits for 2 MiB in a large page", 1, lambda results: results.exits("page_fault/dune/all_of_2m")),
    Goal("module", "enter and leave", 950, value("enter/dune/lseek")),
    Goal("module", "lines of code", 4000, code_lines,
         "what keeps the host safe from two hypervisors in one thread came last; without the ABI header, 133 lines fewer"),
    Goal("module", "lines, with comments and empty ones", 4000, all_lines,
         "a quarter of them say why; the code alone stays below"),
    Goal("runtime", "fault → page-fault handler", 45, value("trap_entry/dune/page_fault"),
         "the frame moves from the IST stack to below the red zone"),
    Goal("runtime", "fault → handler that uses vector registers", 45, value("trap_entry/dune/page_fault_vectors"),
         "the entry saves the vector registers for the handler and moves the frame below the red zone"),
    Goal("runtime", "handler → faulting instruction", 45, value("trap_return/dune/page_fault")),
    Goal("runtime", "… from one that uses vector registers", 45, value("trap_return/dune/page_fault_vectors")),
    Goal("runtime", "ring 3 → handler → ring 3", 80, value("ring3_call/dune/nothing"),
         "the vector registers of ring 3 are saved for the handler"),
    Goal("runtime", "interposed getpid above a VMCALL", 120, above("interpose/dune/ring3", "getpid/dune/vmcall")),
    Goal("runtime", "appel1, 100 pages", 15000, value("appel1/dune/100"), "two dune_vm_mprotect() and a trap a page"),
    Goal("runtime", "appel2, 100 pages", 9000, value("appel2/dune/100"),
         "more than half of it are the traps and their returns, see above"),
    Goal("runtime", "dune_vm_clone, for each 4 KiB page", 25, value("clone_100m_per_page/dune/vm_clone")),
    Goal("sandbox", "checked call above a VMCALL", 250, above("sandbox_call/dune/getpid", "getpid/dune/vmcall")),
    Goal("sandbox", "gzip, times Linux", 1.02, times("program/sandbox/gzip", "program/linux/gzip")),
    Goal("sandbox", "python3 loop, times Linux", 1.02, times("program/sandbox/python3", "program/linux/python3")),
    Goal("sandbox", "sqlite3 in memory, times Linux", 1.02, times("program/sandbox/sqlite3", "program/linux/sqlite3")),
    Goal("sandbox", "start of /bin/true, times Linux", 3, times("program/sandbox/true", "program/linux/true")),
]


def goal(title):
    [found] = [each for each in GOALS if each.title == title]
    return found.limit, found.measured


# Columns of the table of machines: title, limit or None, what is measured.
MATRIX = [
    ("getpid: SYSCALL of Linux", None, value("getpid/linux/syscall")),
    ("getpid: VMCALL", *goal("getpid by VMCALL, fast way")),
    ("… beside KVM's VMCS", None, value("getpid/dune/vmcall_beside_kvm")),
    ("bare exit → entry", *goal("bare exit → entry")),
    ("… beside KVM's VMCS", *goal("bare exit → entry beside a VMCS of KVM's")),
    ("slow way", *goal("getpid, slow way")),
    ("CPUID", *goal("CPUID exit")),
    ("fresh page: Linux", None, value("page_fault/linux/anonymous_4k")),
    ("… above Linux", *goal("fresh 4 KiB page, above Linux")),
    ("page that Linux has", *goal("page that Linux has")),
    ("exits for 2 MiB", *goal("exits for 2 MiB in a large page")),
    ("enter and leave", *goal("enter and leave")),
]
