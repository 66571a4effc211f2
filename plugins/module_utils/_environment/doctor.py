# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program cave-doctor on a host: one file, which the controller builds and brings where it differs."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import stat

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._atomic import replace_file
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import restore_labels

_MODE = 0o755
_MODE_OF_STARTER = 0o644
_STARTER = b"""\
# python -m cave_doctor: starts the program beside this environment's Python.
import os
import runpy
import sys

runpy.run_path(os.path.join(sys.prefix, "bin", "cave-doctor"), run_name="__main__")
"""
_LONGEST = 1 << 20
_MARK = b"module_utils/_doctor/cli.py"
"""What is in every cave-doctor, and in no other program."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of a program, with colons."""
    return readable(hashlib.sha256(content).hexdigest())


def digest_of_file(path: str) -> str:
    """Return the same of a file of any size."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_LONGEST), b""):
            found.update(chunk)
    return readable(found.hexdigest())


def readable(text: str) -> str:
    """Return the hex digits of a digest with colons: without them they would be taken for a token."""
    return ":".join(text[start : start + 8] for start in range(0, len(text), 8))


def is_current(path: str, wanted: str) -> bool:
    """Return whether the program at ``path`` has this digest, and everybody may run it."""
    content, mode = _read(path)
    return mode & 0o777 == _MODE and digest(content) == wanted


def is_there(path: str) -> bool:
    """Return whether there is a cave-doctor, of whatever version."""
    return _MARK in _read(path)[0]


def install(path: str, source: str) -> None:
    """Put the program in its place in one step.

    Raises:
        CaveError: another program has that name, or others than this account can write there.
        OSError: it could not be written.
    """
    check_place(path)
    with open(source, "rb") as file:
        content = file.read(_LONGEST)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _replace(path, content, _MODE)


def _replace(path: str, content: bytes, mode: int) -> None:
    folder = os.path.dirname(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        replace_file(descriptor, os.path.basename(path), content, mode=mode)
        restore_labels(path)
    finally:
        os.close(descriptor)


def is_in(environment: str, wanted: str) -> bool:
    """Return whether an environment has this program, and the module that starts it; ``wanted`` is its digest."""
    return is_current(_program(environment), wanted) and all(
        _read(path) == (_STARTER, stat.S_IFREG | _MODE_OF_STARTER) for path in _starters(environment)
    )


def install_in(environment: str, source: str) -> None:
    """Put the program into an environment as well, and the module that starts it: ``python -m cave_doctor``.

    Raises:
        CaveError: others than this account can write there.
        OSError: it could not be written.
    """
    install(_program(environment), source)
    for path in _starters(environment):
        _replace(path, _STARTER, _MODE_OF_STARTER)


def _program(environment: str) -> str:
    return os.path.join(environment, "bin", "cave-doctor")


def _starters(environment: str) -> list[str]:
    folders = glob.glob(os.path.join(glob.escape(environment), "lib", "python3.*", "site-packages"))
    return [os.path.join(folder, "cave_doctor.py") for folder in sorted(folders)]


def remove(path: str) -> None:
    """Remove the program; another one of that name stays.

    Raises:
        CaveError: others than this account can write there.
        OSError: it could not be removed.
    """
    check_place(path)
    if is_there(path):
        os.unlink(path)


def check_place(path: str) -> None:
    """Refuse a place that is not fit for a program that everybody runs.

    Raises:
        CaveError: another program has that name, or others than this account can write there.
    """
    found = _trust.changeable(os.path.dirname(path), {0, os.geteuid()})
    if found:
        raise CaveError(f"doctor: {found}, so others could replace {path}. Choose a folder that only root can change.")
    if path.endswith("/") or os.path.isdir(path):
        program = os.path.join(path, "cave-doctor")
        raise CaveError(f"doctor: {path} is a folder; expected the path of the program, such as {program}.")
    if os.path.lexists(path) and not is_there(path):
        raise CaveError(f"doctor: {path} is another program. Choose another path, or move it away.")


def _read(path: str) -> tuple[bytes, int]:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(_LONGEST), os.fstat(descriptor).st_mode
    return b"", 0
