# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plugins on the controller need of Ansible, alike on all versions of ansible-core that are supported."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_ENCRYPTED_STRINGS = ("EncryptedString", "AnsibleVaultEncryptedUnicode")
"""Ansible's types for a vault string that is decrypted on use (ansible-core 2.19 and later, and before)."""

_SPEAKS_OF_TERMINALS = re.compile(rb"(?im)^\s*(requesttty[\s=]|include\s+(?!/etc/ssh/ssh_config\.d/))")


def is_encrypted(value: object) -> bool:
    """Return whether a value is a vault string that is decrypted on use."""
    return type(value).__name__ in _ENCRYPTED_STRINGS


def open_shared_tokens(hosts: Iterable[Mapping[str, Any]]) -> None:
    """Decrypt the tokens that several hosts have, once, in the process that Ansible's workers are copies of.

    A worker, one for each host and task, would do that anew. What one host alone has is left to its worker, as workers
    are many. Before ansible-core 2.19, values do not keep what they are decrypted to.

    Args:
        hosts: the variables of each, as they are.
    """
    values: dict[int, Any] = {}
    counts: Counter[int] = Counter()
    for variables in hosts:
        for value in _encrypted(variables.get("caveclient_tokens"), variables, set()):
            values[id(value)] = value
            counts[id(value)] += 1
    for number, count in counts.items():
        if count > 1:
            with contextlib.suppress(AnsibleError):  # the task says so
                str(values[number])


def _encrypted(value: Any, variables: Mapping[str, Any], seen: set[str]) -> Iterator[Any]:
    """Yield the vault strings in a value, and in the variables that its templates name."""
    if type(value).__name__ == _ENCRYPTED_STRINGS[0]:
        yield value
    elif isinstance(value, str):
        for name in re.findall(r"[A-Za-z_]\w*", value) if "{{" in value else ():
            if name in variables and name not in seen:
                seen.add(name)
                yield from _encrypted(variables[name], variables, seen)
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _encrypted(item, variables, seen)


_lifted: list[tuple[Any, Any]] = []
"""The inventory whose limit (``--limit``) does not hold at present, and that limit."""


def lift_limit(inventory: Any, lifted: bool) -> None:
    """Let plays take hosts that ``--limit`` leaves out, or let it hold again. Called by the main process.

    ``inventory`` is the one that Ansible's ``hostvars`` has. There is no public way to it in any version.
    """
    if lifted and not _lifted and inventory._subset:
        _lifted.append((inventory, inventory._subset))
        inventory.subset(None)
    elif not lifted and _lifted:
        earlier, limit = _lifted.pop()  # not the option's text: a file that it names may have changed since
        earlier._subset = limit


def forget_results(hostvars: Any) -> None:
    """Forget what earlier playbooks of this collection found in this run. Called by the main process.

    A task of its own would not reach the hosts that have failed since: a later rotation would take what was found on
    one of them for what is there now. There is no public way to what hosts have registered in any version.
    """
    manager = hostvars._variable_manager
    for registered in manager._nonpersistent_fact_cache.values():
        for name in [
            name for name in registered if name.startswith("__caveclient_") or name == "ansible_failed_result"
        ]:
            del registered[name]
    facts = hostvars.raw_get("localhost").get("ansible_facts") or {}
    stale = [name for name in ("cave_report", "cave_rotation") if facts.get(name)]
    if stale:
        manager.set_host_facts("localhost", {name: {} for name in stale})


def set_by_play(variables: Mapping[str, Any], others: Container[str] = ()) -> dict[str, Any]:
    """Return the variables of this collection, and the ``others``, that a play sets for all its hosts, as they are."""
    host, hostvars = variables.get("inventory_hostname"), variables.get("hostvars")
    own = hostvars.raw_get(host) if hostvars and host in hostvars else {}
    return {
        name: value
        for name, value in variables.items()
        if (name.startswith("caveclient_") or name in others) and (name not in own or _differ(own[name], value))
    }


def _differ(one: Any, other: Any) -> bool:
    try:
        return one is not other and bool(one != other)
    except AnsibleError:  # a vault string that does not open is no one's but the host's
        return False


def host_pattern(name: str) -> str:
    """Return a pattern for the host of this name alone, also where the name has white space, commas or quotes in it."""
    if re.fullmatch(r"\w[\w.:-]*", name) and split_host_pattern(name) == [name]:
        return name
    plain = (letter if letter.isalnum() or letter in "_-" else f"\\U{ord(letter):08x}" for letter in name)
    return f"~{''.join(plain)}$"


def vault_secrets(loader: Any) -> list[tuple[str, Any]]:
    """Return the vault ids and secrets that this run was started with; empty when it was started without any.

    ``loader`` is what Ansible hands to a plugin. There is no public way to them in any version.
    """
    return list(loader._vault.secrets or [])


def given(read: Callable[[], Any]) -> Any:
    """Return what ``read`` fills in; None where a template leaves it out (``{{ omit }}``). Raises AnsibleError."""
    try:
        value = read()
    except AnsibleError as error:
        if not is_omission(error):
            raise
        return None
    return None if is_omitted(value) else value


def is_omission(error: BaseException) -> bool:
    """Return whether an error means that a template leaves its value out (since ansible-core 2.19)."""
    return type(error).__name__ == "AnsibleValueOmittedError"


def is_omitted(value: object) -> bool:
    """Return whether a value stands for one that a template left out (since ansible-core 2.19, and before)."""
    return type(value).__name__ == "_OmitType" or (isinstance(value, str) and value.startswith("__omit_place_holder__"))


def plain_string(value: object, what: str) -> str:
    """Return a templated value as a plain ``str``, without the tags and the lazy decryption that Ansible adds.

    Raises CaveError when it isn't a string; ``what`` names it in the message, which never shows it.
    """
    if isinstance(value, str):
        return "".join(value)
    if is_encrypted(value):
        return "".join(str(value))
    if isinstance(value, (bool, int, float)):
        kind = "a boolean" if isinstance(value, bool) else "a number"
        raise CaveError(f"{what} is not a string: YAML read it as {kind}. Put it in quotes.")
    raise CaveError(f"{what} is not a string.")


def forces_terminal(program: str, options: str, host: str) -> bool:
    """Return whether one of SSH's files has a terminal for this host, in which what is piped to it never ends.

    That is ``RequestTTY force``: with ``yes``, SSH asks for none where its input is none. A process for each host takes
    time, so SSH itself is asked only where a file speaks of it.

    Args:
        program: of SSH.
        options: on its command line.
        host: its name or address.
    """
    try:
        words = shlex.split(options)
    except ValueError:
        return False  # SSH says so itself
    named = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "-F"]
    files = [*map(Path, named or _ssh_files()), *Path("/etc/ssh/ssh_config.d").glob("*.conf")]
    try:
        if not any(_SPEAKS_OF_TERMINALS.search(file.read_bytes()) for file in files if file.is_file()):
            return False
        told = subprocess.run([program, "-G", *words, host], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return False  # SSH, which needs both, says so itself
    return b"\nrequesttty force\n" in told.stdout


def _ssh_files() -> list[Path]:
    system = Path("/etc/ssh/ssh_config")
    try:
        return [Path(pwd.getpwuid(os.getuid()).pw_dir, ".ssh", "config"), system]
    except KeyError:  # in a container, for one, a process may have a number without an account
        return [system]


def made_once(name: str, make: Callable[[], tuple[str, bytes]]) -> Path:
    """Return the one file in a folder below the one that Ansible removes when the run is over.

    Ansible's workers begin all at once: the first makes the file, and the others wait for that.

    Args:
        name: of the folder.
        make: returns the file's name and its content.
    """
    folder = Path(constants.DEFAULT_LOCAL_TMP, "connectomics.cave", name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(folder.iterdir()):
            file, content = make()
            unfinished = folder.with_suffix(".new")  # in the folder, a file of any suffix is taken for the finished one
            unfinished.write_bytes(content)
            unfinished.replace(folder / file)
    return next(folder.iterdir())
