# SPDX-License-Identifier: MIT
"""The parts of scripts/machine that need no machine."""

import io
import os
import pathlib
import struct
import subprocess
import tarfile
import tempfile
import unittest
from unittest import mock

import support

from machine_lib import backends, bochs_build, bootimage, console, cpio, kernel_log, paths, payload, results, run
from machine_lib.backends import bochs, bochs27, kvm_probe, native, qemu
from machine_lib.errors import MachineError
from machine_lib.request import Request

BEGIN = f"[    1.0] {kernel_log.BEGIN}\n"


class KernelLog(unittest.TestCase):
    def test_complaints_are_found(self):
        for line in ("WARNING: CPU: 0 PID: 1 at mm/slab.c:1", "BUG: unable to handle page fault for address: 0",
                     "BUG dune_vcpu (Tainted: G    B): Objects remaining in dune_vcpu on __kmem_cache_shutdown()",
                     "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", "rcu: INFO: rcu_preempt detected stalls",
                     "INFO: task x:1 blocked for more than 120 seconds.", "general protection fault: 0000 [#1]",
                     "WARNING: possible circular locking dependency detected", "Kernel panic - not syncing: x",
                     "WARNING: suspicious RCU usage", "BUG: sleeping function called from invalid context"):
            self.assertEqual(len(kernel_log.complaints(f"{BEGIN}<4>[    2.0] {line}\n")), 1, line)

    def test_ordinary_lines_are_not(self):
        for line in ("dune: loading out-of-tree module taints kernel.", "dune: ready: VT-x",
                     "dune: module verification failed: signature and/or required key missing - tainting kernel",
                     "x[12]: segfault at 0 ip 0 sp 0 error 4 in x[1000]"):
            self.assertEqual(kernel_log.complaints(f"{BEGIN}<6>[    2.0] {line}\n"), [], line)

    def test_the_boots_are_not_the_runs(self):
        self.assertEqual(kernel_log.complaints(f"[    0.1] WARNING: at boot\n{BEGIN}"), [])

    def test_a_backtrace_that_was_asked_for_is_none(self):
        answer = "NMI backtrace for cpu 1\nCall Trace:\n <TASK>\n vmx_turn+0x1\n </TASK>\n"
        asked = "sysrq: Show backtrace of all active CPUs\n" + answer
        self.assertEqual(kernel_log.complaints(asked), [])
        self.assertEqual(kernel_log.complaints(answer), ["Call Trace:"])
        self.assertEqual(kernel_log.complaints(asked + "BUG: x\nCall Trace:\n"),
                         ["BUG: x", "Call Trace:"])

    def test_the_oom_killers_report_is_expected(self):
        report = ("x invoked oom-killer: gfp_mask=0\nCall Trace:\n <TASK>\nMem-Info:\n"
                  "Out of memory: Killed process 7 (x)\n")
        self.assertEqual(kernel_log.complaints(BEGIN + report), [])
        self.assertEqual(len(kernel_log.complaints(f"{BEGIN}{report}WARNING: after it\n")), 1)


class Cpio(unittest.TestCase):
    def test_the_archive_is_what_cpio_reads(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            with open(root / "archive", "wb") as file:
                archive = cpio.Archive(file)
                archive.data("deep/er/file", b"content", 0o640)
                archive.link("link", "deep/er/file")
                archive.data("odd", b"x")
                archive.close()
            (root / "out").mkdir()
            busybox = next((support.paths.cache() / "packages").glob("busybox-static_*/bin/busybox"))
            with open(root / "archive", "rb") as file:
                subprocess.run([busybox, "cpio", "-id"], stdin=file, cwd=root / "out", check=True, capture_output=True)
            self.assertEqual((root / "out/deep/er/file").read_bytes(), b"content")
            self.assertEqual((root / "out/deep/er/file").stat().st_mode & 0o777, 0o640)
            self.assertEqual(os.readlink(root / "out/link"), "deep/er/file")

    def test_the_same_as_tar(self):
        file = io.BytesIO()
        archive = cpio.Tar(file)
        archive.data("deep/er/file", b"content", 0o640)
        archive.link("link", "deep/er/file")
        archive.directory("home", 0o700, 1000)
        archive.close()
        with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
            entries = {entry.name: entry for entry in tar}
            self.assertEqual(tar.extractfile("deep/er/file").read(), b"content")
        self.assertEqual((entries["deep/er/file"].mode, entries["deep/er/file"].mtime), (0o640, cpio.MTIME))
        self.assertTrue(entries["deep"].isdir() and entries["deep/er"].isdir())
        self.assertEqual(entries["link"].linkname, "deep/er/file")
        self.assertEqual((entries["home"].mode, entries["home"].uid), (0o700, 1000))

    def test_equal_contents_are_equal_archives(self):
        def build():
            file = io.BytesIO()
            archive = cpio.Archive(file)
            archive.copy("tree", support.PROJECT / "scripts/machine_lib/boot")
            archive.close()
            return file.getvalue()
        self.assertEqual(build(), build())


class MemoryMap(unittest.TestCase):
    def test_regions_do_not_overlap_and_the_memory_is_all_there(self):
        for memory in (128, 512, 2048, 3072, 4096, 6144, 65536):
            regions = sorted(bootimage.e820(memory))
            for (start, size, _), (following, _, _) in zip(regions, regions[1:]):
                self.assertLessEqual(start + size, following)
            ram = sum(size for _, size, kind in regions if kind == bootimage.E820_RAM)
            self.assertAlmostEqual(ram / bootimage.MIB, memory, delta=3)

    def test_a_disk_is_beside_the_memory(self):
        for memory in (128, 512, 2048, 4096):
            for disk in (1, 40 << 20, 330_000_000):
                total = bootimage.with_disk(memory, disk)
                regions = sorted(bootimage.e820(total, disk))
                for (start, size, _), (following, _, _) in zip(regions, regions[1:]):
                    self.assertLessEqual(start + size, following)
                ram = sum(size for _, size, kind in regions if kind == bootimage.E820_RAM)
                self.assertAlmostEqual(ram / bootimage.MIB, memory, delta=3)
                [(start, size, _)] = [region for region in regions if region[2] == bootimage.E820_PERSISTENT]
                self.assertEqual(start, bootimage.disk_address(total, disk))
                self.assertGreaterEqual(size, disk)
                self.assertEqual((start % bootimage.DISK_ALIGNMENT, size % bootimage.DISK_ALIGNMENT), (0, 0))
                self.assertLessEqual(start + size, bootimage.INITRD_END)

    def test_the_buffer_is_reserved(self):
        for memory in (128, 512, 4096):
            buffer = (bootimage.buffer_address(memory), bootimage.BUFFER_SIZE, bootimage.E820_RESERVED)
            self.assertIn(buffer, bootimage.e820(memory))

    def test_the_rom_is_one_the_bios_takes(self):
        with tempfile.TemporaryDirectory() as scratch:
            rom = bootimage.boot_rom(0x1000200, pathlib.Path(scratch))
        self.assertEqual((len(rom), rom[:3], sum(rom) & 0xff), (512, b"\x55\xaa\x01", 0))
        self.assertEqual(struct.unpack_from("<I", rom, bootimage.ENTRY_OFFSET)[0], 0x1000200)


class CopyOut(support.Scratch):
    """A machine is not trusted with the host's files."""

    def archive(self, *members):
        with tarfile.open(self.scratch / "tar", "w") as tar:
            for name, link in members:
                member = tarfile.TarInfo(name)
                if link:
                    member.type, member.linkname = tarfile.SYMTYPE, link
                    tar.addfile(member)
                else:
                    member.size = 1
                    tar.addfile(member, io.BytesIO(b"x"))
        return self.scratch / "tar"

    def test_nothing_is_written_elsewhere(self):
        target = self.scratch / "out"
        results.deliver(self.archive(("./data/../../escape", None), ("./data/file", None)), [f"/data:{target}"])
        self.assertEqual([path.name for path in target.iterdir()], ["file"])
        self.assertFalse((self.scratch / "escape").exists())

    def test_nothing_is_written_through_a_link(self):
        victim = self.scratch / "victim"
        victim.write_text("safe")
        target = self.scratch / "out"
        results.deliver(self.archive(("./data/file", str(victim)), ("./data/file", None)), [f"/data:{target}"])
        self.assertEqual(victim.read_text(), "safe")

    def test_nothing_is_written_through_a_linked_directory(self):
        victim = self.scratch / "victim"
        victim.mkdir()
        target = self.scratch / "out"
        with self.assertRaises(MachineError):
            results.deliver(self.archive(("./data/dir", str(victim)), ("./data/dir/file", None)), [f"/data:{target}"])
        self.assertEqual(list(victim.iterdir()), [])

    def test_what_is_missing_is_an_error(self):
        with self.assertRaises(MachineError) as caught:
            results.deliver(self.archive(("./data", None)), [f"/other:{self.scratch}/out"])
        self.assertIn("/other", str(caught.exception))


class Words(unittest.TestCase):
    def test_pairs(self):
        self.assertEqual(payload.split_pair("a"), ("a", None))
        self.assertEqual(payload.split_pair("a:/b"), ("a", "/b"))
        for text in ("", ":b", "a:"):
            with self.assertRaises(MachineError):
                payload.split_pair(text)

    def test_only_the_hosts_own_files_are_taken_along(self):
        self.assertEqual(payload.host_paths(["sh", "/", "/tmp", "/usr", "/dev/null", "/proc/self", __file__]), [__file__])


class Fallback(unittest.TestCase):
    def test_debians_emulator_serves_where_the_other_cannot_be_built(self):
        with mock.patch.object(bochs_build, "is_built", lambda: False), \
                mock.patch.object(bochs_build, "build", side_effect=MachineError("cannot compile Bochs: no space")), \
                mock.patch.object(bochs, "prepare", lambda request, kernel: bochs_build.ensure()), \
                mock.patch.object(bochs27, "prepare", lambda request, kernel: "ready"), \
                mock.patch.object(run.console, "say") as said:
            self.assertEqual(run.prepare(bochs, None, None), (bochs27, "ready"))
        self.assertIn("cannot compile Bochs", said.call_args[0][0])
        self.assertIn("2.7", said.call_args[0][0])


class Choice(unittest.TestCase):
    def setUp(self):
        for backend in (native, qemu):
            patch = mock.patch.object(backend, "unavailable", lambda: None)
            patch.start()
            self.addCleanup(patch.stop)
        console.quiet = True

    def test_the_fastest_that_works(self):
        self.assertIs(backends.choose(Request([])), qemu)
        with mock.patch.object(qemu, "unavailable", lambda: "for a reason"):
            self.assertIs(backends.choose(Request([])), bochs)

    def test_a_model_of_a_cpu_is_the_emulators(self):
        self.assertIs(backends.choose(Request([], cpu="corei5_lynnfield_750")), bochs)
        for name in ("native", "qemu"):
            self.assertIs(backends.choose(Request([], backend=name)).NAME, name)
            with self.assertRaises(MachineError) as caught:
                backends.choose(Request([], backend=name, cpu="corei5_lynnfield_750"))
            self.assertIn("--cpu corei5_lynnfield_750", str(caught.exception))

    def test_this_system_is_as_it_is(self):
        native.check_request(Request([]))
        for option, value in (("cpus", 2), ("memory", 512), ("kernel", "6.12"), ("cmdline", "x"), ("packages", ["x"])):
            with self.assertRaises(MachineError):
                native.check_request(Request([], **{option: value}))


class Clean(support.Scratch):
    def test_empties_the_cache_when_nobody_uses_it(self):
        cache = self.scratch / "dune"
        (cache / "snapshots/one").mkdir(parents=True)
        (cache / "bochs-build.log").touch()
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(self.scratch)):
            with paths.locked("in-use", shared=True):
                process = subprocess.Popen([support.MACHINE, "clean"], stderr=subprocess.PIPE, text=True)
                self.assertIn("waiting for the end of the machines that run", process.stderr.readline())
                self.assertTrue((cache / "snapshots/one").exists())
            with process:
                self.assertEqual(process.wait(60), 0, process.stderr.read())
        self.assertEqual([path.name for path in cache.iterdir()], ["locks"])


class WorkingDirectory(support.Scratch):
    def test_what_a_killed_process_left_is_removed(self):
        with mock.patch.object(tempfile, "tempdir", str(self.scratch)):
            left, young, other = (self.scratch / name for name in ("p-abcdefgh", "p-12345678", "q-abcdefgh"))
            for directory in (left, young, other):
                directory.mkdir()
                (directory / "file").touch()
            for directory in (left, other):
                os.utime(directory, (1, 1))
            with paths.working_directory("p-") as first:
                os.utime(first, (1, 1))
                with paths.working_directory("p-") as second:
                    self.assertTrue(first.is_dir())
                    self.assertTrue(second.is_dir())
            self.assertEqual(sorted(self.scratch.iterdir()), sorted([young, other]))


class Probe(unittest.TestCase):
    def test_no_device(self):
        self.assertEqual(kvm_probe.unavailable("/no/such/device"), "there is no /no/such/device")

    def test_not_a_kvm(self):
        self.assertIn("does not work", kvm_probe.unavailable("/dev/null"))

    def test_cpuid_without_vmx(self):
        self.assertFalse(kvm_probe.has_vmx({(1, 0): (0, 0, 0xffffffff & ~kvm_probe.CPUID_1_ECX_VMX, 0)}))
        self.assertTrue(kvm_probe.has_vmx({(1, 0): (0, 0, kvm_probe.CPUID_1_ECX_VMX, 0)}))
        self.assertFalse(kvm_probe.has_vmx({}))


if __name__ == "__main__":
    unittest.main()
