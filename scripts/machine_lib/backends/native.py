# SPDX-License-Identifier: MIT
"""This very system, when it has VT-x and may load modules. Never chosen by itself: a fault of the module is ours then."""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import time

from .. import console, kernel_log, kernels, kmodule, paths
from ..errors import STATUS_KERNEL_LOG, STATUS_TIMEOUT, STATUS_USAGE, MachineError
from ..payload import host_paths, split_pair

NAME = "native"
ABOUT = "this system itself"


class Kernel:
    """The running kernel, as kmodule.py wants one."""

    def __init__(self):
        self.version = "host"
        self.release = platform.release()
        self.headers = pathlib.Path(f"/lib/modules/{self.release}/build")
        self.compiler = "gcc"


def unavailable():
    """Why this backend cannot be used here, or None."""
    flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if not flags or "vmx" not in flags[1].split():
        return "this CPU has no VT-x (no vmx in /proc/cpuinfo)"
    if os.geteuid() != 0:
        return "loading a module takes root"
    disabled = pathlib.Path("/proc/sys/kernel/modules_disabled")
    if not disabled.exists() or disabled.read_text().strip() != "0":
        return "this kernel loads no modules"
    if not Kernel().headers.exists():
        return f"there are no headers of the running kernel (Debian's package linux-headers-{platform.release()})"
    return None


def run(request):
    """Loads the module, runs the command here, unloads it, and looks at the kernel's log."""
    check_request(request)
    module = kmodule.ensure(Kernel()) if request.module else None
    if request.kvm == "loaded":
        console.call(["modprobe", "kvm_intel"], "cannot load kvm_intel")
    with open("/dev/kmsg", "w", encoding="ascii") as log:
        log.write(f"<6>{kernel_log.BEGIN}\n")
    copy(request.copy_in)
    if module is not None:
        console.call(["insmod", module, *request.module_args.split()], "dune.ko does not load (look at dmesg)")
    try:
        status = run_command(request)
    finally:
        if module is not None and not request.keep:
            unload()
    copy(request.copy_out)
    log = console.call(["dmesg"], "cannot read the kernel's log")
    if request.dmesg:
        pathlib.Path(request.dmesg).write_text(log)
    complaints = kernel_log.complaints(log)
    if complaints:
        console.say(f"the kernel complained (the command's own status was {status}):\n" + "\n".join(complaints))
        return STATUS_KERNEL_LOG
    return status


def check_request(request):
    """Refuses what only a machine of its own can have."""
    for given, option in ((request.packages, "--package"), (request.cmdline is not None, "--cmdline"),
                          (request.memory, "--memory"), (request.cpus != 1, "--cpus"),
                          (request.kernel not in (kernels.DEFAULT, kernels.HOST), "--kernel"), (request.interactive, "shell")):
        if given:
            raise MachineError(f"{option} makes no sense with --backend native", STATUS_USAGE)


def run_command(request):
    """The command's status, with the build's programs and libraries first."""
    environment = {**os.environ, "PATH": f"{request.build_dir}/bin:{os.environ['PATH']}",
                   "LD_LIBRARY_PATH": f"{request.build_dir}/lib"}
    command = [os.path.abspath(word) if word in host_paths([word]) else word for word in request.command]
    try:
        return subprocess.run(command, env=environment, timeout=request.timeout or None, check=False).returncode & 0xff
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"no end after {request.timeout:g} s (--timeout)", STATUS_TIMEOUT) from error
    except FileNotFoundError:
        console.say(f"{command[0]}: not found")
        return 127


def unload():
    """Removes the module, which a process that is just ending may still hold."""
    for _ in range(20):
        if subprocess.run(["rmmod", "dune"], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise MachineError("dune.ko does not unload: something still uses it", STATUS_KERNEL_LOG)


def copy(pairs):
    """Copies files whose source and destination differ."""
    for text in pairs:
        source, destination = split_pair(text)
        if destination and os.path.realpath(source) != os.path.realpath(destination):
            with paths.disk_errors(destination):
                if os.path.isdir(source):
                    shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copy(source, destination)
