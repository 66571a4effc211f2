# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A finished build as one file, for other hosts of its kind: JSON, and the content of all files one after the other.

Both are cut into blocks, each with its length before it. Threads compress as many at a time as there are processors.

It can hold nothing but folders, regular files with the modes 0644 and 0755, and links that stay in the build or lead to
its Python: there is no way to write down a device, an owner or a mode with setuid. All names are checked before the
first is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import zlib
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Callable, Generator, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._environment import doctor as _doctor
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Parcel
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 26
_MOST_THREADS, _AT_ONCE = 8, 8
_LATEST = 1 << 33
"""Times and sizes are smaller."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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

    Left out are its record, and the names in ``leave``: they are this host's own affair.

    Raises:
        CaveError: the build holds what no other host is to have.
        OSError: it could not be written.
    """
    header, found = _header_of(build, record, {_installed.RECORD, *leave}), hashlib.sha256()
    with open(os.open(archive, _NEW, 0o600), "wb") as file:
        for block in _in_order(_deflated, _blocks_of(build, header)):
            found.update(block)
            file.write(block)
        folder = os.stat(os.path.dirname(archive))
        if os.geteuid() == 0:  # the connection's account fetches it
            os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
    return _doctor.readable(found.hexdigest())


def _blocks_of(build: Path, header: Header) -> Iterator[bytes]:
    yield json.dumps(header).encode()
    block = bytearray()
    for path, _program, _time, size in header.files:
        with open(build / path, "rb") as source:
            while True:
                piece = source.read(_BLOCK - len(block))
                block += piece
                if len(block) == _BLOCK:
                    yield bytes(block)
                    block.clear()
                elif not piece:
                    break
            if source.tell() != size:
                raise CaveError(f"{build / path} was changed while it was packed.")
    yield bytes(block)


def _deflated(block: bytes) -> bytes:
    data = zlib.compress(block, 1)
    return len(data).to_bytes(4, "big") + data


def _in_order(function: Callable[[bytes], bytes], blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yield what a function makes of each block, worked out by threads: zlib lets others run meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        for some in iter(lambda: list(islice(blocks, _AT_ONCE * threads)), []):
            yield from pool.map(function, some)


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
def opened(parcel: Parcel, base: str) -> Iterator[tuple[Header, Iterator[bytes]]]:
    """Open an archive, and give its header and the blocks of its content, both as they were packed.

    Args:
        parcel: what was brought.
        base: the program to which the links of a Python may lead, with links resolved.

    Raises:
        CaveError: it is not what was packed, or holds what no build does.
    """
    with open(parcel.file, "rb") as file:
        if _doctor.digest_of_file(parcel.file) != parcel.digest:
            raise CaveError("it was damaged on the way (its digest is another)")
        with contextlib.suppress(OSError):
            os.unlink(parcel.file)  # it is large, and this run may be killed
        compressed = _compressed_blocks(file)
        try:
            header = Header(*json.loads(_inflated(next(compressed, b""), _LONGEST_HEADER)))
            _check(header, base)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CaveError("it is no build of this collection") from error
        with contextlib.closing(_in_order(partial(_inflated, longest=_BLOCK), compressed)) as blocks:
            yield header, blocks


def _compressed_blocks(file: IO[bytes]) -> Iterator[bytes]:
    for length in iter(lambda: file.read(4), b""):
        yield file.read(int.from_bytes(length, "big"))


def _inflated(data: bytes, longest: int) -> bytes:
    stream, block = zlib.decompressobj(), b""
    with contextlib.suppress(zlib.error):
        block = stream.decompress(data, longest + 1)
    if not stream.eof or len(block) > longest:
        raise CaveError("it is damaged, or no build of this collection")
    return block


def unpack(header: Header, blocks: Iterator[bytes], place: Path) -> None:
    """Write a build into a new folder, which nobody else can enter until it is whole.

    Raises:
        CaveError: the archive ends too early.
        OSError: something is there already, or could not be written.
    """
    umask = os.umask(0o022)
    try:
        place.mkdir(mode=0o700)
        below, rest = f"{place}/", memoryview(b"")
        for path in header.folders:
            os.mkdir(below + path)
        for path, program, moment, size in header.files:
            # Ten thousands of files: without a stream of Python's for each, it takes half the time.
            descriptor = os.open(below + path, _NEW, 0o755 if program else 0o644)
            try:
                left = size
                while left:
                    rest = rest or memoryview(next(blocks, b""))
                    if not rest:
                        raise CaveError("it ends too early")
                    written = os.write(descriptor, rest[:left])
                    left, rest = left - written, rest[written:]
                os.utime(descriptor, (moment, moment))  # compiled files hold the time of their source
            finally:
                os.close(descriptor)
        for path, target in header.links:
            os.symlink(target, below + path)
        place.chmod(0o755)
    finally:
        os.umask(umask)


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
