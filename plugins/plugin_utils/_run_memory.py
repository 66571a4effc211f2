# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one process of a run has found out, for all others: it is asked for once, and no file ever has it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ansible import constants

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_HEAD = 8
"""Bytes of a number, in front of each record and of all of them."""


class _Noted(NamedTuple):
    """What is known under a key: a text, or why there is none, and when that was found out (time.monotonic)."""

    text: str | None
    error: str
    time: float


class RunMemory:
    """Texts by key, in memory that the process that made it shares with its copies.

    Ansible works on hosts in such copies. What no longer fits into ``size`` bytes is asked for again.
    """

    def __init__(self, size: int = 1 << 20) -> None:
        self._memory = mmap.mmap(-1, size)
        self._known: dict[str, _Noted] = {}
        self._read_to = 0

    def once(self, key: str, find_out: Callable[[], str], *, afresh: bool = False) -> str:
        """Return the text of a key, which is found out by the first process that asks; the others wait for it.

        Args:
            key: names it.
            find_out: returns it, or raises CaveError, which those who wait get as well, and those who ask later do not.
            afresh: whether it is found out again.
        """
        began = time.monotonic()
        with self._alone(key) as lock:
            known = None if afresh else self._get(key)
            if known is not None and known.text is not None:
                return known.text
            if known is not None and known.time > began:
                raise CaveError(known.error)
            try:
                text = find_out()
            except CaveError as error:
                self._put(lock, key, _Noted(None, error.message, time.monotonic()))
                raise
            self._put(lock, key, _Noted(text, "", time.monotonic()))
        return text

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[int | None]:
        """Let no other process of the run be in here with the same key; nobody waits for one that was killed."""
        try:
            # Empty, and in the folder of the run, whose end removes it.
            path = Path(str(constants.DEFAULT_LOCAL_TMP), "cave-once")
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield None
            return
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX, 1, 1 + hash(key) % 2**30)
            yield lock
        finally:
            os.close(lock)

    def _get(self, key: str) -> _Noted | None:
        end = int.from_bytes(self._memory[:_HEAD], "big")
        while self._read_to < end:
            begin = 2 * _HEAD + self._read_to
            size = int.from_bytes(self._memory[begin - _HEAD : begin], "big")
            known, *noted = json.loads(self._memory[begin : begin + size])
            self._known[known] = _Noted(*noted)
            self._read_to += _HEAD + size
        return self._known.get(key)

    def _put(self, lock: int | None, key: str, noted: _Noted) -> None:
        if lock is None:
            return
        record = json.dumps([key, *noted]).encode()
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
        end = int.from_bytes(self._memory[:_HEAD], "big")
        begin = _HEAD + end
        if begin + _HEAD + len(record) <= len(self._memory):
            self._memory[begin : begin + _HEAD + len(record)] = len(record).to_bytes(_HEAD, "big") + record
            # Last, so that a process that is killed here leaves nothing that is half written.
            self._memory[:_HEAD] = (end + _HEAD + len(record)).to_bytes(_HEAD, "big")
