# SPDX-License-Identifier: MIT
"""The command line of scripts/machine."""

import argparse
import os
import pathlib
import shutil
import signal
import sys

from . import backends, bochs_build, console, kernels, kmodule, listing, paths, rootfs, run
from .errors import STATUS_MACHINE, STATUS_USAGE, MachineError
from .request import Request

DESCRIPTION = "Gives a command a machine with VT-x, with dune.ko loaded. See docs/machine.md."


def parser():
    """The whole command line."""
    top = argparse.ArgumentParser(prog="scripts/machine", description=DESCRIPTION)
    commands = top.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    add_run(commands.add_parser("run", help="run a command in a machine and exit with its status"))
    add_machine_options(commands.add_parser("shell", help="an interactive console in a machine"))
    for name, text in (("module", "build dune.ko for a kernel, print its path"),
                       ("headers", "print the build directory of a kernel's headers"),
                       ("setup", "fetch and build what a machine needs")):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("--kernel", default=kernels.DEFAULT, help=KERNEL_HELP)
    commands.add_parser("list", help="show backends, kernels and what is cached")
    commands.add_parser("clean", help="remove the cache")
    return top


KERNEL_HELP = f"{', '.join(kernels.KNOWN)} or host (default {kernels.DEFAULT})"


def add_run(sub):
    """Options of run."""
    add_machine_options(sub)
    sub.add_argument("--copy-in", action="append", default=[], metavar="SRC[:DEST]",
                     help="put a host file or directory into the machine")
    sub.add_argument("--copy-out", action="append", default=[], metavar="SRC[:DEST]",
                     help="afterwards, bring a file or directory of the machine here")
    sub.add_argument("--timeout", type=float, default=0, metavar="S", help="seconds until the machine is stopped")
    sub.add_argument("--keep", action="store_true", help="leave dune.ko loaded when the command has ended")
    sub.add_argument("--dmesg", metavar="FILE", help="write the machine's whole kernel log to a file")
    sub.add_argument("--emulator-log", metavar="FILE", help="write the emulator's own log, as why a VM entry failed")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND…")


def add_machine_options(sub):
    """Options that say what machine it is."""
    sub.add_argument("--kernel", default=kernels.DEFAULT, help=KERNEL_HELP)
    sub.add_argument("--cpus", type=int, default=1, metavar="N", help="number of CPUs (default 1)")
    sub.add_argument("--cpu", default=Request.cpu, metavar="MODEL", help=f"model of the CPU (default {Request.cpu})")
    sub.add_argument("--memory", type=int, default=0, metavar="MiB", help="memory (default: 512, or what is needed)")
    sub.add_argument("--backend", default="auto", choices=["auto", *backends.ALL])
    sub.add_argument("--kvm", default="absent", choices=["loaded", "absent"], help="load kvm_intel before dune.ko")
    sub.add_argument("--module-args", default="", metavar="ARGS", help="parameters of dune.ko")
    sub.add_argument("--no-module", dest="module", action="store_false", help="do not build or load dune.ko")
    sub.add_argument("--cmdline", metavar="WORDS",
                     help="the kernel's command line instead of the fast default, which has nokaslr and mitigations=off")
    sub.add_argument("--package", dest="packages", action="append", default=[], metavar="DEBIAN-PACKAGE",
                     help="a Debian package that the machine has, with all it depends on")
    sub.add_argument("--build-dir", type=pathlib.Path, metavar="DIR",
                     help="the CMake build directory whose bin/ and lib/ the machine has (default build/release)")
    sub.add_argument("--quiet", action="store_true", help="say nothing but errors")


def request_from(options):
    """The Request of parsed options."""
    fields = {name: value for name, value in vars(options).items() if name not in ("subcommand", "quiet")}
    command = fields.pop("command", [])
    if command[:1] == ["--"]:
        command = command[1:]
    request = Request(command=command, **fields)
    if not 1 <= request.cpus <= 8:
        raise MachineError(f"--cpus {request.cpus}: from 1 to 8", STATUS_USAGE)
    if request.memory and not 128 <= request.memory <= 65536:
        raise MachineError(f"--memory {request.memory}: from 128 to 65536 MiB", STATUS_USAGE)
    if not request.timeout >= 0:
        raise MachineError(f"--timeout {request.timeout:g}: seconds, or 0 for none", STATUS_USAGE)
    if request.build_dir and not request.build_dir.is_dir():
        raise MachineError(f"--build-dir {request.build_dir}: no such directory", STATUS_USAGE)
    for option, file in (("--dmesg", request.dmesg), ("--emulator-log", request.emulator_log)):
        if file and not os.path.isdir(os.path.dirname(os.path.abspath(file))):
            raise MachineError(f"{option} {file}: there is no such directory", STATUS_USAGE)
    if request.kernel != kernels.HOST:
        kernels.check_known(request.kernel)
    request.build_dir = request.build_dir or paths.PROJECT / "build/release"
    return request


def do_run(options):
    """run: the status is the command's."""
    request = request_from(options)
    if not request.command:
        raise MachineError("no command: scripts/machine run [OPTIONS] -- COMMAND…", STATUS_USAGE)
    return run.run(request)


def do_shell(options):
    """shell: an interactive console, in a machine that ends with it."""
    if not os.isatty(0) or not os.isatty(1):
        raise MachineError("shell needs a terminal; for a script use: scripts/machine run -- sh -c …", STATUS_USAGE)
    request = request_from(options)
    request.command = ["sh", "-l"]
    request.interactive = True
    console.say("the shell's end (exit or Ctrl-D) ends the machine")
    return run.run(request)


def do_module(options):
    """module: prints where dune.ko is."""
    print(kmodule.ensure(kernels.ensure(options.kernel)))
    return 0


def do_headers(options):
    """headers: prints where a module is built."""
    print(kernels.ensure(options.kernel).headers)
    return 0


def do_setup(options):
    """setup: fills the cache."""
    bochs_build.ensure()
    rootfs.ensure(kernels.ensure(options.kernel), [])
    return 0


def do_list(_options):
    """list: what can be used here."""
    return listing.show()


def do_clean(_options):
    """clean: empties the cache when no machine uses it."""
    with paths.locked("in-use", waiting=lambda: console.say("waiting for the end of the machines that run")):
        for entry in paths.cache().iterdir():
            if entry.name == "locks":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return 0


COMMANDS = {"run": do_run, "shell": do_shell, "module": do_module, "headers": do_headers, "setup": do_setup,
            "list": do_list, "clean": do_clean}


def terminated(signum, _frame):
    """A polite end by signal runs all clean-up code."""
    raise SystemExit(128 + signum)


def open_standard_streams():
    """Gives a closed standard stream an end, so that nothing else which is opened later becomes it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def main(arguments=None):
    """Runs the program; returns its exit status."""
    open_standard_streams()
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGHUP, terminated)
    options = parser().parse_args(arguments)
    console.quiet = getattr(options, "quiet", False)
    try:
        return COMMANDS[options.subcommand](options)
    except MachineError as error:
        print(f"machine: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("machine: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"machine: {error}", file=sys.stderr)
        return STATUS_MACHINE
