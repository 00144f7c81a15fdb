# SPDX-License-Identifier: MIT
"""What the tests of scripts/machine share: starting it, and caches of their own that borrow the real one's contents."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

PROJECT = pathlib.Path(__file__).resolve().parents[2]
MACHINE = PROJECT / "scripts/machine"
sys.path.insert(0, str(PROJECT / "scripts"))

from machine_lib import paths  # noqa: E402
from machine_lib.errors import STATUS_MACHINE  # noqa: E402

BORROWED = ("apt", "bochs", "kernels", "packages", "resolved", "rootfs", "toolchains")
LIMIT_SECONDS = 600


def machine(*arguments, cache=None, **options):
    """Runs scripts/machine to its end; the result has text in stdout and stderr."""
    defaults = {"stdin": subprocess.DEVNULL, "text": True} if "input" not in options else {"text": True}
    return subprocess.run([MACHINE, *map(str, arguments)], env=environment(cache), capture_output=True,
                          timeout=LIMIT_SECONDS, check=False, **{**defaults, **options})


def run(*arguments, cache=None, **options):
    """`machine run` without the module, which these tests do not need."""
    return machine("run", "--no-module", *arguments, cache=cache, **options)


def start(*arguments, cache=None, stdin=subprocess.DEVNULL):
    """The same in the background. Ctrl-C reaches it, even where the tests themselves ignore it as a shell's job."""
    return subprocess.Popen([MACHINE, "run", "--no-module", *map(str, arguments)], env=environment(cache),
                            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def environment(cache):
    """The environment with another cache directory."""
    return {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}


def borrow_cache(directory):
    """Makes directory a cache that has all of the real one but its saved states."""
    own = pathlib.Path(directory) / "dune"
    own.mkdir(parents=True, exist_ok=True)
    for name in BORROWED:
        (paths.cache() / name).mkdir(exist_ok=True)
        (own / name).symlink_to(paths.cache() / name)
    return own


def emulators_of(pid):
    """Process ids of a machine program's direct children that emulate."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "bochs" in pathlib.Path(f"/proc/{child}/comm").read_text()]


class Scratch(unittest.TestCase):
    """A test with a scratch directory."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="dune-test-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)


class Case(Scratch):
    """A test for which a machine is ready to start."""

    @classmethod
    def setUpClass(cls):
        result = run("--", "true")
        if result.returncode != 0:
            raise AssertionError(f"no machine: {result.stderr}")

    def assert_status(self, result, status):
        """Fails with all that the program said."""
        self.assertEqual(result.returncode, status, f"\n{result.stdout}\n{result.stderr}")

    def assert_full_disk_is_said(self, *options):
        """Fails unless a command whose output goes to a full disk ends in a line about it."""
        with open("/dev/full", "wb") as full:
            result = subprocess.run([MACHINE, "run", "--no-module", *options, "--", "echo", "x"], check=False, text=True,
                                    stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, STATUS_MACHINE, result.stderr)
        self.assertIn("the command's output cannot be written", result.stderr)
