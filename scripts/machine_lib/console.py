# SPDX-License-Identifier: MIT
"""What the program tells its user, and running other programs for it."""

import os
import subprocess
import sys
import time

from . import paths
from .errors import MachineError

quiet = False


def say(text):
    """One line of progress on standard error."""
    if not quiet:
        print(f"machine: {text}", file=sys.stderr, flush=True)


def call(arguments, failure, log=None, environment=None, directory=None):
    """Runs a program and returns its standard output; when it fails, raises MachineError with the text of failure.

    All the program's output is appended to the file log, if one is given, and the error names it.
    """
    started = time.monotonic()
    try:
        result = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, "LC_ALL": "C", **(environment or {})}, cwd=directory, check=False)
    except FileNotFoundError as error:
        raise MachineError(f"{failure}: {arguments[0]} is not installed; install the packages that "
                           "scripts/packages names") from error
    output = result.stdout + result.stderr
    if log is not None:
        with paths.disk_errors(log.parent), open(log, "ab") as file:
            file.write(f"$ {' '.join(map(str, arguments))}\n".encode() + output)
            file.write(f"status {result.returncode}, {time.monotonic() - started:.1f} s\n".encode())
    if result.returncode != 0:
        raise MachineError(failed(failure, output.decode(errors="replace"), log))
    return result.stdout.decode(errors="replace")


def failed(failure, output, log):
    """The message for a program that failed: its most telling line, and where the rest is."""
    if "No space left on device" in output:
        return f"{failure}: " + paths.no_space(paths.cache())
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or line.startswith("E:")]
    message = f"{failure}: {(errors or lines or ['no output'])[0]}"
    return f"{message} (all of it: {log})" if log else message
