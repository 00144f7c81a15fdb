# SPDX-License-Identifier: MIT
"""Where things are, and how several processes share the cache.

What is in the cache is whole: directories and files are made under another name and renamed when they are complete.
"""

import contextlib
import errno
import fcntl
import glob
import os
import pathlib
import shutil
import tempfile
import time

from .errors import MachineError

LIBRARY = pathlib.Path(__file__).resolve().parent
PROJECT = LIBRARY.parent.parent


def cache_path():
    """Where the cache directory is, or will be."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dune"


def cache():
    """The cache directory, made when it is missing."""
    directory = cache_path()
    with disk_errors(directory):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise PermissionError(errno.EACCES, error.strerror) from error
    return directory


@contextlib.contextmanager
def disk_errors(directory):
    """Turns a full or read-only disk into a clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(no_space(directory)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise MachineError(f"cannot write to {directory}: {error.strerror}; "
                               "set XDG_CACHE_HOME to a directory that you may write to") from error
        raise


def no_space(directory):
    """The message for a full disk."""
    start = f"no disk space left in {directory}: free some"
    if pathlib.Path(directory).is_relative_to(cache_path()):
        return f"{start} (a whole cache takes 2 GiB), or set XDG_CACHE_HOME to a directory on another disk"
    if pathlib.Path(directory).is_relative_to(tempfile.gettempdir()):
        return f"{start}, or set TMPDIR to a directory on another disk"
    return start


@contextlib.contextmanager
def locked(name, shared=False, waiting=None):
    """Holds the lock of this name among all processes that use the cache; waiting(), if given, is called before a wait."""
    directory = cache() / "locks"
    with disk_errors(directory):
        directory.mkdir(exist_ok=True)
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def made_whole(target):
    """Gives a temporary directory that becomes target when the block ends well, and vanishes when it does not.

    Whoever makes the same target holds a lock: what else there is under such a name was left by one that was killed.
    """
    target = pathlib.Path(target)
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.????????"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


LEFT_SECONDS = 60
"""What nobody holds and is as old was left by a process that was killed; what is younger may not be held yet."""


@contextlib.contextmanager
def working_directory(prefix):
    """Gives a temporary directory for as long as the block takes, and removes those that killed processes left."""
    def hold(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        os.close(descriptor)
        return None

    for left in pathlib.Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}????????"):
        with contextlib.suppress(OSError):  # another user's, or gone by now
            if time.time() - left.stat().st_mtime > LEFT_SECONDS and (held := hold(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    held = hold(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def write_whole(path, data):
    """Writes a file so that others see either nothing, or the old content, or all of the new."""
    path = pathlib.Path(path)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(name, 0o644)
            os.rename(name, path)
        except BaseException:
            os.unlink(name)
            raise


def keep_newest(directory, count):
    """Removes all but the newest entries of a directory, by the time of their last change."""
    def changed(entry):
        try:
            return entry.lstat().st_mtime
        except FileNotFoundError:  # another process was faster
            return 0

    entries = [entry for entry in directory.iterdir() if not entry.name.startswith(".")] if directory.is_dir() else []
    for entry in sorted(entries, key=changed, reverse=True)[count:]:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
