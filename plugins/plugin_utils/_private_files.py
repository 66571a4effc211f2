# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on the controller that only their owner can read, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils import _atomic
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, with the folders above it; one that exists is left as it is.

    Raises:
        CaveError: it cannot be made, or something else has its name.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing or [path]):
            folder.mkdir(mode=0o700, exist_ok=True)  # with parents=True those above would be open to all
    except OSError as error:
        raise CaveError(f"The folder {path} cannot be made: {error.strerror}. Name another one.") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, all at once: a reader sees the old one or the new one.

    It is written beside its place and renamed; what a run that was killed left beside it is removed. A symbolic link of
    that name is replaced, not followed.

    Args:
        path: of the file, in a folder that exists.
        content: all of it.

    Raises:
        CaveError: it cannot be written. The old file is as it was.
    """
    require_plain_file(path)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _replace(folder, path.name, content)
        finally:
            os.close(folder)
    except OSError as error:
        raise CaveError(f"The file {path} cannot be written: {error.strerror}. Name another place.") from error


def require_plain_file(path: Path) -> None:
    """Raise CaveError where a device or a pipe is: root would replace /dev/null, and reading might never end."""
    with contextlib.suppress(OSError):  # there is none, or who opens it says why that fails
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise CaveError(f"{path} is a device or a pipe, not a file. Name another place.")


class _TakenForLeftoverError(Exception):
    """Another run removed the temporary file before it was locked."""


def _replace(folder: int, name: str, content: bytes) -> None:
    _remove_leftovers(folder, name)
    while True:
        with contextlib.ExitStack() as until_renamed, contextlib.suppress(_TakenForLeftoverError):

            def lock(descriptor: int) -> None:
                copy = os.dup(descriptor)  # keeps the lock when the descriptor itself is closed
                until_renamed.callback(os.close, copy)
                if not _locks(copy, where_none_are=True) or not os.fstat(copy).st_nlink:
                    raise _TakenForLeftoverError

            _atomic.replace_file(folder, name, content, when_made=lock)
            return


def _remove_leftovers(folder: int, name: str) -> None:
    """Remove the files that killed runs left beside another one: those that nobody has locked."""
    for entry in filter(_atomic.temporary_pattern(name).fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):
            descriptor = os.open(entry, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                if _locks(descriptor, where_none_are=False):
                    os.unlink(entry, dir_fd=folder)
            finally:
                os.close(descriptor)


def _locks(descriptor: int, where_none_are: bool) -> bool:
    """Return whether a file could be locked; ``where_none_are`` is the answer of a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return where_none_are
    return True


def replace_link(path: Path, target: str) -> None:
    """Make a symbolic link, or let one lead elsewhere, all at once; what a killed run left beside it is removed.

    Raises:
        CaveError: it cannot be made, since something else has its name for example.
    """
    try:
        pattern = _atomic.temporary_pattern(path.name)
        for left in [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]:
            if left.is_symlink():
                left.unlink(missing_ok=True)
        made = False
        while not made:
            temporary = path.with_name(_atomic.temporary_name(path.name))
            temporary.symlink_to(target)
            try:
                # Another run may have taken it for one that was left.
                with contextlib.suppress(FileNotFoundError):
                    temporary.replace(path)
                    made = True
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CaveError(f"The link {path} cannot be made: {error.strerror}. Remove what is in its place.") from error


def remove_file(path: Path) -> bool:
    """Remove a file; return whether there was one.

    Raises:
        CaveError: it cannot be removed.
    """
    require_plain_file(path)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CaveError(f"The file {path} cannot be removed: {error.strerror}. Remove it by hand.") from error
    return True
