# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The local servers of datastacks, learned once a run: from here, or else by the first host that can."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    Datastack,
    is_unconfirmed,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import plain_string

PATIENCE = 5.0
"""Seconds for the server's answer, and for another host that is asking."""
Pair = tuple[str, str]
"""Auth server and datastack."""


def with_local_servers(
    args: dict[str, Any], entries: str, asks: bool, run: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Run a module that looks at secrets files, with the local servers that this run has learned in its arguments.

    Args:
        args: of the task.
        entries: the option with the users' entries.
        asks: whether the task may ask a server.
        run: runs the module with such arguments, and returns its result, which says what it has learned itself.
    """
    pairs = _pairs(args, entries)
    if not pairs:
        return run(args)
    with _turn() if asks and not all(_known(pair) for pair in pairs) else contextlib.nullcontext():
        bundle = str(args.get("ca_path") or "/")  # of the host
        if asks:
            _ask(pairs, bundle if Path(bundle).is_file() else None)
        # What nobody but a host can ask about, one asks for all of them.
        if asks and any(not _known(pair) and is_unconfirmed(pair[0], _assumed(pair)) for pair in pairs):
            return _noted(run(_completed(args, entries)))
    return _noted(run(_completed(args, entries)))


def learn(tasks: Iterable[Mapping[str, Any]], entries: str, ca_path: str | None) -> None:
    """Learn, from here, the local servers of what such tasks name, with the tokens that are in their arguments."""
    found: dict[Pair, list[str]] = {}
    for args in tasks:
        for pair, tokens in _pairs(args, entries).items():
            found.setdefault(pair, []).extend(tokens)
    with _turn():
        _ask(found, ca_path)


def _ask(pairs: Mapping[Pair, list[str]], ca_path: str | None) -> None:
    """Ask for, and note, the local servers that nobody has asked for yet."""
    unasked = {pair: tokens for pair, tokens in pairs.items() if tokens and _known(pair) is None}
    if unasked:
        # HTTP is imported only where it is needed: Ansible's workers, one for each host, would all import it.
        from ansible_collections.connectomics.cave.plugins.module_utils._cave.local_servers import (
            learn_local_servers,
        )

        learned = learn_local_servers(unasked, timeout=PATIENCE, ca_path=ca_path)
        for server, datastack in unasked:
            _note((server, datastack), learned.get(server, {}).get(datastack, ""))


def _assumed(pair: Pair) -> Datastack:
    server, name = pair
    return parse_datastacks([name], server)[0]


# What the arguments name ----------------------------------------------------------------------------------------------


def _pairs(args: Mapping[str, Any], entries: str) -> dict[Pair, list[str]]:
    """Return the datastacks without a local server of the user's own, and the tokens that may see each.

    What makes no sense is left to the module to refuse.
    """
    found: dict[Pair, list[str]] = {}
    for entry in [{}, *_mappings(args.get(entries))]:
        server, stacks = _server_of(entry, args), _stacks_of(entry, args)
        for stack in stacks if server else ():
            with contextlib.suppress(CaveError):
                if isinstance(stack, str) or not stack.get("local_server"):
                    tokens = found.setdefault((server, parse_datastacks([stack], server)[0].name), [])
                    tokens += _tokens(entry or args)
    return found


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def _server_of(entry: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    with contextlib.suppress(CaveError):
        return server_address(entry.get("server") or args.get("server") or DEFAULT_SERVER)
    return ""


def _stacks_of(entry: Mapping[str, Any], args: Mapping[str, Any]) -> list[Any]:
    value: Any = entry.get("datastacks")
    if value is None and _server_of(entry, args) == _server_of({}, args):
        value = args.get("datastacks")
    items = value if isinstance(value, (list, tuple)) else ()
    return [item for item in items if isinstance(item, (str, Mapping))]


def _tokens(holder: Mapping[str, Any]) -> list[str]:
    """Return the token of an entry, unless its server is not to be asked about it."""
    with contextlib.suppress(CaveError, AnsibleError):
        token = clean_token(plain_string(holder.get("token"), "The token"))
        return [token] if holder.get("validate") is None or boolean(holder["validate"], strict=False) else []
    return []


def _completed(args: dict[str, Any], entries: str) -> dict[str, Any]:
    """Return a task's arguments with what is known of local servers in them."""

    def stacks(holder: Mapping[str, Any]) -> list[Any]:
        server = _server_of(holder, args)
        return [_with_server(server, stack) if server else stack for stack in holder["datastacks"]]

    def completed(holder: Mapping[str, Any]) -> Mapping[str, Any]:
        given = isinstance(holder, Mapping) and isinstance(holder.get("datastacks"), (list, tuple))
        return {**holder, "datastacks": stacks(holder)} if given else holder

    result = dict(completed(args))
    if isinstance(args.get(entries), (list, tuple)):
        result[entries] = [completed(entry) for entry in args[entries]]
    return result


def _with_server(server: str, stack: Any) -> Any:
    with contextlib.suppress(CaveError):
        if isinstance(stack, str) or (isinstance(stack, Mapping) and not stack.get("local_server")):
            name = parse_datastacks([stack], server)[0].name
            address = _known((server, name))
            return {"name": name, "local_server": address} if address else stack
    return stack


# What the hosts of a run have in common -------------------------------------------------------------------------------


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Keep the other hosts of this run waiting, or wait for one that does; not for long."""
    descriptor = os.open(_path("turn"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _is_locked(descriptor) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _path(name: str) -> Path:
    # The folder is that of the run, whose end removes it.
    return Path(str(constants.DEFAULT_LOCAL_TMP), f"cave-local-{name}")


def _place(pair: Pair) -> Path:
    return _path(hashlib.sha256(" ".join(pair).encode()).hexdigest())


def _known(pair: Pair) -> str | None:
    """Return the local server of a datastack; empty where this controller could not learn it, None: nobody asked."""
    with contextlib.suppress(OSError):
        return _place(pair).read_text(encoding="utf-8")
    return None


def _note(pair: Pair, local_server: str) -> None:
    with contextlib.suppress(OSError):
        written = _path(f"new-{os.getpid()}")
        written.write_text(local_server, encoding="utf-8")
        written.replace(_place(pair))


def _noted(result: dict[str, Any]) -> dict[str, Any]:
    """Note what a host has learned."""
    for user in _mappings(result.get("users")):
        learned: Any = user.get("local_servers")
        for name, address in learned.items() if isinstance(learned, Mapping) else ():
            with contextlib.suppress(CaveError):
                _note((server_address(user.get("server")), str(name)), server_address(address))
    return result
