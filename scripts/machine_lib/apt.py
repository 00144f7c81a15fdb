# SPDX-License-Identifier: MIT
"""Debian packages in the cache: found, fetched and checked by apt, unpacked by dpkg-deb, never installed.

apt runs with a configuration, lists and (empty) state of its own, so that suites the system does not use can be read
and the system is left as it is. The mirrors are those of the system's own sources.
"""

import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from . import paths
from .console import call, say
from .errors import MachineError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STALE_SECONDS = 24 * 3600
NETWORK_HINT = "check the network (or apt's proxy settings) and start again; what was fetched is kept"

SUITES = {
    "bookworm": ["bookworm", "bookworm-updates", "bookworm-security"],
    "trixie": ["trixie", "trixie-updates", "trixie-security", "trixie-backports"],
}


def mirrors():
    """The system's mirrors of Debian and of its security archive."""
    listing = call(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"], "cannot read apt's sources")
    archive = security = None
    for line in listing.splitlines():
        site, _, release = line.partition(" ")
        if re.fullmatch(r"\w+-security|\w+/updates", release):
            security = security or site
        elif re.fullmatch(r"bookworm|trixie|stable|oldstable|testing|sid", release):
            archive = archive or site
    if archive is None:
        raise MachineError("apt's sources name no mirror of Debian: add one to /etc/apt/sources.list.d")
    return archive, security or archive.rstrip("/") + "-security"


class Apt:
    """One family of suites (a key of SUITES) with its own lists."""

    def __init__(self, family):
        self.family = family
        self.directory = paths.cache() / "apt" / family
        self.fresh = False

    def _configure(self):
        archive, security = mirrors()
        for part in ("sources", "state/lists/partial", "cache/archives/partial"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        text = "".join(
            f"deb{source} [signed-by={KEYRING}] {security if suite.endswith('-security') else archive} {suite} main\n"
            for suite in SUITES[self.family] for source in ("", "-src")
            if source == "" or suite == "trixie")
        (self.directory / "sources/debian.list").write_text(text)
        (self.directory / "status").touch()
        (self.directory / "apt.conf").write_text(
            f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{self.directory}/sources";\n'
            f'Dir::Etc::Preferences "/dev/null";\nDir::Etc::PreferencesParts "/dev/null";\n'
            f'Dir::State "{self.directory}/state";\nDir::State::status "{self.directory}/status";\n'
            f'Dir::Cache "{self.directory}/cache";\nAPT::Architecture "amd64";\nAPT::Architectures {{ "amd64"; }};\n'
            'APT::Install-Recommends "false";\nAPT::Sandbox::User "";\nAcquire::Retries "3";\n'
            'Acquire::Languages "none";\nAcquire::http::Timeout "20";\n')

    def _run(self, failure, *arguments, directory=None):
        return call(arguments, failure, log=self.directory / "log", directory=directory,
                    environment={"APT_CONFIG": str(self.directory / "apt.conf")})

    def _update(self):
        """Fetches the lists unless they are of this day."""
        stamp = self.directory / "updated"
        if self.fresh or (stamp.exists() and time.time() - stamp.stat().st_mtime < STALE_SECONDS):
            return
        say(f"fetching the package lists of {self.family}")
        with paths.disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._configure()
        try:
            self._run(f"cannot fetch the package lists of {self.family}; {NETWORK_HINT}",
                      "apt-get", "update", "-q", "--error-on=any")
            stamp.touch()
        except MachineError:
            if not stamp.exists():
                raise
        self.fresh = True

    def names(self, pattern):
        """Names of the packages that match a regular expression as a whole."""
        with paths.locked(f"apt-{self.family}"):
            self._update()
            names = self._run("cannot read the package lists", "apt-cache", "pkgnames").split()
        return [name for name in names if re.fullmatch(pattern, name)]

    def closure(self, packages):
        """(name, version) of the packages and all that they depend on."""
        with paths.locked(f"apt-{self.family}"):
            self._update()
            try:
                result = self._run(f"cannot find the package {' or '.join(packages)} (or what it depends on) in "
                                   f"{self.family}", "apt-get", "-q", "-s", "-o", "Debug::NoLocking=1", "install", *packages)
            except MachineError:
                self._candidates(packages)  # says which one there is not
                raise
        return re.findall(r"^Inst (\S+) \(([^ )]+)", result, re.MULTILINE)

    def candidates(self, packages):
        """(name, version) of the packages alone."""
        with paths.locked(f"apt-{self.family}"):
            self._update()
            return self._candidates(packages)

    def _candidates(self, packages):
        text = self._run("cannot read the package lists", "apt-cache", "policy", *packages)
        found = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)", text, re.MULTILINE)
        missing = set(packages) - {name for name, version in found if version != "(none)"}
        if missing:
            raise MachineError(f"{self.family} has no package {', '.join(sorted(missing))}: check the name")
        return found

    def unpacked(self, packages):
        """The directories into which the given (name, version) are unpacked, fetching those that are not yet."""
        trees = {package: paths.cache() / "packages" / "{}_{}".format(*package).replace(":", "%3a")
                 for package in packages}
        if all(tree.is_dir() for tree in trees.values()):
            return list(trees.values())
        with paths.locked("packages"):
            missing = [package for package, tree in trees.items() if not tree.is_dir()]
            if missing:
                self._fetch(missing, trees)
        return list(trees.values())

    def _fetch(self, missing, trees):
        with paths.locked(f"apt-{self.family}"):
            self._update()
            with paths.disk_errors(paths.cache()):
                directory = pathlib.Path(tempfile.mkdtemp(prefix=".fetch.", dir=paths.cache()))
            try:
                say(f"fetching {len(missing)} package{'s' if len(missing) > 1 else ''}: "
                    f"{' '.join(name for name, _ in missing[:4])}{' …' if len(missing) > 4 else ''}")
                self._run(f"cannot fetch packages; {NETWORK_HINT}", "apt-get", "-q", "download",
                          *("=".join(package) for package in missing), directory=directory)
                for package in missing:
                    name, version = package
                    [archive] = directory.glob(f"{name.split(':')[0]}_{version.replace(':', '%3a')}_*.deb")
                    with paths.made_whole(trees[package]) as tree:
                        call(["dpkg-deb", "-x", archive, tree], f"cannot unpack {archive.name}")
                    archive.unlink()
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def source_tarball(self, package, directory):
        """Fetches the upstream tarball of a source package and returns its path.

        The description file of an old source package may be gone from a mirror while the tarball is there, so it is
        apt's index, which is signed, that gives the name and the checksum.
        """
        with paths.locked(f"apt-{self.family}"):
            self._update()
            text = self._run(f"no source package {package} in {self.family}", "apt-cache", "showsrc",
                             "--only-source", package)
            sums = re.findall(r"^ ([0-9a-f]{64}) (\d+) (\S+\.orig\.tar\.\w+)$", text, re.MULTILINE)
            if not sums:
                raise MachineError(f"the source package {package} of {self.family} names no upstream tarball")
            checksum, _, name = sums[-1]
            subprocess.run(["apt-get", "-q", "source", "--download-only", "--only-source", package],
                           env={"PATH": "/usr/bin:/bin", "LC_ALL": "C",
                                "APT_CONFIG": str(self.directory / "apt.conf")},
                           cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        tarball = pathlib.Path(directory) / name
        if not tarball.exists():
            raise MachineError(f"cannot fetch {name}; {NETWORK_HINT}")
        if call(["sha256sum", tarball], f"cannot read {name}").split()[0] != checksum:
            raise MachineError(f"{name} is not what Debian's signed index describes; start again to fetch it anew")
        return tarball
