# SPDX-License-Identifier: MIT
"""dune.ko where a test inside the machine cannot look: before it is loaded, and when the machine restarts."""

import os
import pathlib
import unittest

import support
from support import PROJECT, machine, run

BUILD = pathlib.Path(os.environ.get("DUNE_BUILD", PROJECT / "build/release"))


class Restart(support.Case):
    def test_with_guests_that_never_end(self):
        """Linux has turned VMX off before it lets go of them."""
        for kernel in ("6.1", "6.12"):
            result = machine("run", "--kernel", kernel, "--kvm", "loaded", "--cpus", 2, "--timeout", 60, "--",
                             BUILD / "vm/bin/kern_restart_subject")
            self.assertIn("restarting\n", result.stdout, result.stderr)
            logs = pathlib.Path(result.stderr.partition("its logs are in ")[2].split("\n")[0])
            console = (logs / "console").read_text(errors="replace")
            self.assertIn("reboot: Restarting system", console)
            for complaint in ("invalid opcode", "Oops", "BUG", "WARNING", " failed ("):
                self.assertNotIn(complaint, console)


class Load(support.Case):
    def test_beside_a_kvm_that_cannot_be_shared(self):
        """It would turn VMX on later, and takes the system-call MSRs that it finds then for Linux' own."""
        for kernel, why in (("6.1", "kvm_intel is loaded, but makes no VM for us (/dev/kvm: -2)"),
                            ("7.3", "VMX is in use, but not by a kvm that could share it (/dev/kvm: -2)")):
            self.beside(kernel, why)

    def test_beside_something_that_is_no_kvm(self):
        """A file on a tmpfs has no ioctl at all."""
        module = machine("module", "--kernel", "6.1").stdout.split()[-1]
        result = run("--kernel", "6.1", "--copy-in", f"{module}:/tmp/dune.ko", "--", "sh", "-c",
                     "rm -f /dev/kvm; : > /dev/kvm; insmod /tmp/dune.ko && dmesg | tail -n 1 && rmmod dune")
        self.assert_status(result, 0)
        self.assertIn("VMX on for each entry", result.stdout)

    def beside(self, kernel, why):
        module = machine("module", "--kernel", kernel).stdout.split()[-1]
        result = run("--kernel", kernel, "--kvm", "loaded", "--copy-in", f"{module}:/tmp/dune.ko", "--", "sh", "-c",
                     "mv /dev/kvm /dev/hidden; insmod /tmp/dune.ko; dmesg | tail -n 1;"
                     "mv /dev/hidden /dev/kvm; insmod /tmp/dune.ko && dmesg | tail -n 1 && rmmod dune;"
                     "rmmod kvm_intel; insmod /tmp/dune.ko && dmesg | tail -n 1 && rmmod dune")
        self.assert_status(result, 0)
        refused, ready, alone = [line for line in result.stdout.splitlines() if "dune: " in line]
        self.assertIn(why, refused)
        self.assertIn("VMX shared with kvm", ready)
        self.assertIn("VMX on for each entry", alone)


if __name__ == "__main__":
    unittest.main()
