# SPDX-License-Identifier: MIT
"""The backends that need VT-x, in a machine that has it: native, and QEMU, whose guest has it from KVM; and the slow one."""

import os
import pathlib
import shutil
import sys
import types
import unittest

import support
from support import PROJECT, machine
from machine_lib import kernels, kmodule, paths, rootfs

KERNEL = "6.1"
PROGRAM = pathlib.Path(os.environ.get("DUNE_BUILD", PROJECT / "build/release")) / "vm/stage/kern_enter_test"
PASSED = "[  PASSED  ]"


class Backend(support.Scratch):
    """Puts this program, the module and what the cache has of them into a machine, at the same places."""

    def setUp(self):
        super().setUp()
        self.assertTrue(PROGRAM.exists(), f"{PROGRAM} is not built")
        result = machine("run", "--kernel", KERNEL, "--", "true")  # fills the cache
        self.assertEqual(result.returncode, 0, result.stderr)
        self.kernel = kernels.Kernel(KERNEL)
        self.tree = self.scratch / "tree"
        for part in ("scripts", "kern"):
            shutil.copytree(PROJECT / part, self.tree / part, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROGRAM, self.tree)

    def module(self, name, identity):
        """A module that needs no building there."""
        target = self.tree / "build/kern" / name
        target.mkdir(parents=True)
        shutil.copy(PROJECT / "build/kern" / KERNEL / "dune.ko", target)
        (target / "identity").write_text(identity)

    def inside(self, script, *arguments):
        """The output of a shell script in the machine; it must succeed."""
        file = self.scratch / "script"
        file.write_text("set -e\n" + script)
        result = machine("run", "--kernel", KERNEL, "--no-module", "--package", "python3", *arguments,
                         "--copy-in", f"{self.tree}:{PROJECT}", "--copy-in", f"{file}:/script", "--", "sh", "/script")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout + result.stderr


class Native(Backend):
    def test_runs_the_command_in_this_system(self):
        headers = f"/lib/modules/{self.kernel.release}/build"
        here = types.SimpleNamespace(headers=headers, compiler="gcc")
        self.module("host", kmodule.identity(here, kmodule.make_arguments(here)))
        output = self.inside(f"""
            mkdir -p {headers}
            cd {PROJECT}
            status=0; scripts/machine run --backend native -- sh -c 'lsmod; exit 3' || status=$?
            echo status $status
            scripts/machine run --backend native --kvm loaded -- ./{PROGRAM.name}
            lsmod
        """, "--memory", 1024)
        self.assertIn("status 3", output)
        self.assertIn(PASSED, output)
        self.assertEqual(output.count("\ndune "), 1, "loaded during the run alone: " + output)


class Qemu(Backend):
    def test_is_chosen_and_runs_the_module(self):
        self.module(KERNEL, kmodule.identity(self.kernel, kmodule.make_arguments(self.kernel)))
        cache = self.scratch / "cache"
        kernel = cache / "kernels" / KERNEL
        (kernel / self.kernel.headers.relative_to(self.kernel.directory)).mkdir(parents=True)
        for name in ("release", "vmlinuz", "vmlinux"):
            shutil.copy(self.kernel.directory / name, kernel)
        shutil.copytree(paths.cache() / "resolved", cache / "resolved")
        root = rootfs.ensure(self.kernel, []).archive
        (cache / "rootfs").mkdir()
        shutil.copy(root, cache / "rootfs")
        for tree in rootfs.trees([]):
            shutil.copytree(tree, cache / "packages" / tree.name, symlinks=True)
        # The emulator has APICv, but refuses the controls with which KVM turns it on.
        output = self.inside(f"""
            export XDG_CACHE_HOME={paths.cache().parent}
            modprobe kvm_intel enable_apicv=0
            cd {PROJECT}
            (sleep 5; echo late) | scripts/machine run --kernel {KERNEL} --memory 256 \\
                --copy-in ./{PROGRAM.name}:/tmp/{PROGRAM.name} -- \\
                sh -c 'sed "s/^/it is /"; ls -ld /tmp; /tmp/{PROGRAM.name}'
        """, "--memory", 2048, "--package", "qemu-system-x86", "--package", "libc-bin", "--package", "bash",
            "--package", "binutils", "--copy-in", f"{cache}:{paths.cache()}")
        self.assertIn("backend qemu", output)
        self.assertIn("it is late\n", output)
        self.assertRegex(output, r"drwxrwxrwt .* /tmp\n")
        self.assertIn(PASSED, output)


class Bochs27(support.Case):
    def test_the_output_goes_to_a_full_disk(self):
        self.assert_full_disk_is_said("--backend", "bochs27")


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
