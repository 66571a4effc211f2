# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several things done at the same time, each in a thread."""

from __future__ import annotations

import threading
from typing import Callable, Hashable, Iterable, TypeVar

AT_ONCE = 16
"""Threads of one host."""

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


def side_by_side(items: Iterable[Item], work: Callable[[Item], Result], at_once: int = AT_ONCE) -> dict[Item, Result]:
    """Return what ``work`` makes of each item, each distinct one once. The first exception is raised."""
    waiting = list(dict.fromkeys(items))[::-1]
    results: dict[Item, Result] = {}
    problems: list[BaseException] = []
    lock = threading.Lock()

    def do_some() -> None:
        while True:
            with lock:
                if not waiting or problems:
                    return
                item = waiting.pop()
            try:
                result = work(item)
            except BaseException as error:  # noqa: BLE001 (raised again below, by the caller)
                problems.append(error)
                return
            with lock:
                results[item] = result

    # Not a ThreadPoolExecutor: the interpreter waits for its threads when it ends.
    threads = [threading.Thread(target=do_some, name="cave-check", daemon=True) for _item in waiting[:at_once]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return results
