# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A finished build as one file, for other hosts of its kind: gzip of a line of JSON, and the content of all files.

It can hold nothing but folders, regular files with the modes 0644 and 0755, and links that stay in the build or lead to
its Python: there is no way to write down a device, an owner or a mode with setuid. All names are checked before the
first is made.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import stat
import zlib
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._environment import doctor as _doctor
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Parcel
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_FORMAT = 1
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 26
_LATEST = 1 << 33
"""Times and sizes are smaller."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


class Header(NamedTuple):
    """What an archive says of a build."""

    name: str
    record: Mapping[str, Any]
    folders: tuple[str, ...]
    """Paths in the build, each after the one that it is in."""
    files: tuple[tuple[str, bool, int, int], ...]
    """Path, whether it may be run, time of the last change (seconds since 1970), and size in bytes."""
    links: tuple[tuple[str, str], ...]
    """Path and target."""


# --- Packing ---


def pack(build: Path, record: Mapping[str, Any], leave: Iterable[str], archive: str) -> str:
    """Write a build into a new file that belongs to the owner of its folder, and return its digest.

    Args:
        build: its folder.
        record: of the build.
        leave: names in the build's folder that are this host's own affair.
        archive: the file.

    Raises:
        CaveError: the build holds what no other host is to have.
        OSError: it could not be written.
    """
    header = _header_of(build, record, {_installed.RECORD, *leave})
    with open(os.open(archive, _NEW, 0o600), "w+b") as file:
        with gzip.GzipFile("", "wb", 1, file, 0) as stream:
            stream.write(json.dumps({"format": _FORMAT, **header._asdict()}).encode() + b"\n")
            for path, _program, _time, size in header.files:
                with open(build / path, "rb") as source:
                    shutil.copyfileobj(source, stream, _CHUNK)
                    if source.tell() != size:
                        raise CaveError(f"{build / path} was changed while it was packed.")
        file.flush()
        folder = os.stat(os.path.dirname(archive))
        if os.geteuid() == 0:  # the connection's account fetches it
            os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
        return digest(file)


def _header_of(build: Path, record: Mapping[str, Any], leave: set[str]) -> Header:
    folders: list[str] = []
    files: list[tuple[str, bool, int, int]] = []
    links: list[tuple[str, str]] = []
    pending = [""]
    while pending:
        below = pending.pop()
        for entry in sorted(os.scandir(build / below), key=lambda entry: entry.name):
            if not below and entry.name in leave:
                continue
            path, info = os.path.join(below, entry.name), entry.stat(follow_symlinks=False)
            if info.st_uid != os.geteuid() or (not entry.is_symlink() and info.st_mode & 0o022):
                raise CaveError(f"{entry.path} can be changed by others, so no other host gets this build.")
            if entry.is_symlink():
                links.append((path, os.readlink(entry.path)))
            elif stat.S_ISDIR(info.st_mode):
                folders.append(path)
                pending.append(path)
            elif stat.S_ISREG(info.st_mode):
                files.append((path, bool(info.st_mode & 0o111), int(info.st_mtime), info.st_size))
            else:
                raise CaveError(f"{entry.path} is neither a file nor a folder, so no other host gets this build.")
    header = Header(build.name, record, tuple(folders), tuple(files), tuple(links))
    _check(header, str(record["base"]))
    return header


# --- Unpacking ---


@contextlib.contextmanager
def opened(parcel: Parcel, base: str) -> Iterator[tuple[Header, Any]]:
    """Open an archive, and give its header and the stream of its content, both as they were packed.

    Args:
        parcel: what was brought.
        base: the program to which the links of a Python may lead, with links resolved.

    Raises:
        CaveError: it is not what was packed, or holds what no build does.
    """
    with open(parcel.file, "rb") as file:
        if digest(file) != parcel.digest:
            raise CaveError("it was damaged on the way (its digest is another)")
        with contextlib.suppress(OSError):
            os.unlink(parcel.file)  # it is large, and this run may be killed
        with gzip.GzipFile(fileobj=file) as stream:
            yield _read_header(stream, base), stream


def _read_header(stream: Any, base: str) -> Header:
    try:
        values = json.loads(stream.readline(_LONGEST_HEADER))
        if values.pop("format") != _FORMAT:
            raise ValueError("another format")
        header = Header(**values)
        _check(header, base)
    except (*_DAMAGED, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CaveError("it is no build of this collection") from error
    return header


def unpack(header: Header, stream: Any, place: Path) -> None:
    """Write a build into a new folder, which nobody else can enter until it is whole.

    Raises:
        CaveError: the archive ends too early.
        OSError: something is there already, or could not be written.
    """
    umask = os.umask(0o022)
    try:
        place.mkdir(mode=0o700)
        below = f"{place}/"
        for path in header.folders:
            os.mkdir(below + path)
        for path, program, moment, size in header.files:
            # Ten thousands of files: without a stream of Python's for each, it takes half the time.
            descriptor = os.open(below + path, _NEW, 0o755 if program else 0o644)
            try:
                _write(descriptor, stream, size)
                os.utime(descriptor, (moment, moment))  # compiled files hold the time of their source
            finally:
                os.close(descriptor)
        for path, target in header.links:
            os.symlink(target, below + path)
        place.chmod(0o755)
    finally:
        os.umask(umask)


def _write(descriptor: int, stream: Any, size: int) -> None:
    while size:
        try:
            chunk = memoryview(stream.read(min(size, _CHUNK)))
        except _DAMAGED as error:
            raise CaveError("it is damaged") from error
        if not chunk:
            raise CaveError("it ends too early")
        size -= len(chunk)
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]


def digest(file: IO[bytes]) -> str:
    """Return the digest of a whole file, which is at its beginning afterwards."""
    found = hashlib.sha256()
    file.seek(0)
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        found.update(chunk)
    file.seek(0)
    return _doctor.readable(found.hexdigest())


# --- What an archive may hold ---


def _check(header: Header, base: str) -> None:
    """Raise CaveError, or another error, unless all that a header names stays in the build."""
    folders = {""}
    names: set[str] = set()

    def add(path: str) -> None:
        os.fsencode(path)
        parent, _slash, name = path.rpartition("/")
        if path in names or name in ("", ".", "..") or parent not in folders or "\0" in path or path.startswith("/"):
            raise CaveError(f"it holds {path!r}, which no build has")
        names.add(path)

    for folder in header.folders:
        add(folder)
        folders.add(folder)
    for path, program, moment, size in header.files:
        add(path)
        if not (isinstance(program, bool) and all(isinstance(n, int) and 0 <= n < _LATEST for n in (moment, size))):
            raise CaveError(f"it holds {path!r} with a mode, time or size that no build has")
    for path, target in header.links:
        add(path)
        os.fsencode(target)
        if not _stays_inside(path, target) and not (os.path.isabs(target) and os.path.realpath(target) == base):
            raise CaveError(f"it holds the link {path!r}, which leads out of the build ({target!r})")


def _stays_inside(path: str, target: str) -> bool:
    """Return whether a link leads to something in the build, by names alone.

    Steps upwards may come first, from a folder that is one; after a name they could go up from behind another link.
    """
    parts = target.split("/")
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    down = parts[ups:]
    return ups <= path.count("/") and not any(part in ("", ".", "..") or "\0" in part for part in down)
