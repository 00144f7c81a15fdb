# SPDX-License-Identifier: MIT
"""Fetching packages: what is half there is never used, and the error says what to do.

apt is played by a script that keeps to apt's manner of failing; dpkg-deb is the real one.
"""

import os
import subprocess
import unittest
from unittest import mock

import support

from machine_lib import console, paths
from machine_lib.apt import Apt
from machine_lib.errors import MachineError

APT = """#!/bin/sh
# Plays apt-get and apt-cache: $FAKE_APT holds packages to give, and files that say how to fail.
case "$1 $2 $3" in
indextargets*) echo "http://mirror.invalid/debian bookworm" ;;
"update"*)
    [ -e "$FAKE_APT/no-network" ] && { echo "E: Failed to fetch: Could not resolve 'mirror.invalid'" >&2; exit 100; }
    exit 0 ;;
*download*)
    for archive in "$FAKE_APT"/*.deb; do
        if [ -e "$FAKE_APT/interrupted" ]; then
            head -c 300 "$archive" > "$(basename "$archive")"
            echo "E: Failed to fetch $(basename "$archive"): Connection failed" >&2
            exit 100
        fi
        cp "$archive" .
    done ;;
esac
"""


class Download(support.Scratch):
    def setUp(self):
        super().setUp()
        tools = self.scratch / "tools"
        tools.mkdir()
        for name in ("apt-get", "apt-cache"):
            (tools / name).write_text(APT)
            (tools / name).chmod(0o755)
        self.mirror = self.scratch / "mirror"
        self.mirror.mkdir()
        self.set_environment(PATH=f"{tools}:{os.environ['PATH']}", FAKE_APT=str(self.mirror),
                             XDG_CACHE_HOME=str(self.scratch / "cache"))
        console.quiet = True
        self.package = self.make_package()

    def set_environment(self, **variables):
        old = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)

        def restore():
            for name, value in old.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self.addCleanup(restore)

    def make_package(self):
        tree = self.scratch / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text("Package: some\nVersion: 1:2\nArchitecture: all\nMaintainer: x <x@x>\n"
                                             "Description: x\n")
        (tree / "usr/share").mkdir(parents=True)
        (tree / "usr/share/file").write_text("content")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, self.mirror / "some_1%3a2_all.deb"], check=True,
                       capture_output=True)
        return ("some", "1:2")

    def fetch(self):
        [tree] = Apt("bookworm").unpacked([self.package])
        return (tree / "usr/share/file").read_text()

    def fail(self, how):
        """Fetches while the mirror fails in this way; returns the message."""
        (self.mirror / how).touch()
        with self.assertRaises(MachineError) as caught:
            self.fetch()
        (self.mirror / how).unlink()
        return str(caught.exception)

    def left_over(self):
        """What a failure left in the cache, but for locks and apt's own files."""
        return [path for path in paths.cache().rglob("*")
                if path.is_file() and path.relative_to(paths.cache()).parts[0] not in ("locks", "apt")]

    def test_good(self):
        self.assertEqual(self.fetch(), "content")

    def test_interrupted(self):
        message = self.fail("interrupted")
        self.assertIn("cannot fetch packages; check the network", message)
        self.assertIn("Connection failed", message)
        self.assertEqual(self.left_over(), [])
        self.assertEqual(self.fetch(), "content")

    def test_no_network(self):
        message = self.fail("no-network")
        self.assertIn("cannot fetch the package lists of bookworm; check the network", message)
        self.assertNotIn("\n", message)
        self.assertEqual(self.fetch(), "content")

    def test_damaged_package(self):
        archive = self.mirror / "some_1%3a2_all.deb"
        good = archive.read_bytes()
        archive.write_bytes(good[:len(good) // 2])
        with self.assertRaises(MachineError):
            self.fetch()
        self.assertEqual(self.left_over(), [])
        archive.write_bytes(good)
        self.assertEqual(self.fetch(), "content")

    def test_no_network_is_needed_twice(self):
        self.fetch()
        (self.mirror / "no-network").touch()
        (self.mirror / "interrupted").touch()
        self.assertEqual(self.fetch(), "content")

    def test_killed_in_the_middle(self):
        with self.assertRaises(KeyboardInterrupt), paths.made_whole(paths.cache() / "thing") as work:
            (work / "half").write_text("half")
            raise KeyboardInterrupt
        self.assertFalse((paths.cache() / "thing").exists())
        self.assertEqual(self.left_over(), [])

    def test_killed_without_a_chance_to_clean_up(self):
        with mock.patch.object(paths.shutil, "rmtree"), self.assertRaises(KeyboardInterrupt), \
                paths.made_whole(paths.cache() / "thing") as work:
            (work / "half").write_text("half")
            raise KeyboardInterrupt
        self.assertNotEqual(self.left_over(), [])
        with paths.made_whole(paths.cache() / "thing") as work:
            (work / "whole").write_text("whole")
        self.assertEqual(self.left_over(), [paths.cache() / "thing/whole"])


if __name__ == "__main__":
    unittest.main()
