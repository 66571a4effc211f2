# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on the controller that only their owner can read, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, with the folders above it; one that exists is left as it is.

    Raises:
        CaveError: it cannot be made, or something else has its name.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CaveError(f"The folder {path} cannot be made: {error.strerror}. Name another one.") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, all at once: a reader sees the old one or the new one.

    It is written beside its place and renamed. A symbolic link of that name is replaced, not followed.

    Args:
        path: of the file, in a folder that exists.
        content: all of it.

    Raises:
        CaveError: it cannot be written. The old file is as it was.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _replace(folder, path.name, content)
        finally:
            os.close(folder)
    except OSError as error:
        raise CaveError(f"The file {path} cannot be written: {error.strerror}. Name another place.") from error


def _replace(folder: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def remove_file(path: Path) -> bool:
    """Remove a file; return whether there was one.

    Raises:
        CaveError: it cannot be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CaveError(f"The file {path} cannot be removed: {error.strerror}. Remove it by hand.") from error
    return True
