# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command that was run, as a person would type it, and the commands of remedies with the same options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import host_pattern
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner

_LIMIT = ("-l", "--limit")
# What says how to get to the hosts and the vault. The rest (tags, a limit, check mode) is for one run.
_LASTING = {
    "-i": True, "--inventory": True, "--inventory-file": True, "-u": True, "--user": True, "-k": False,
    "--ask-pass": False, "-b": False, "--become": False, "-K": False, "--ask-become-pass": False,
    "--become-method": True, "--become-user": True, "--become-password-file": True, "--connection-password-file": True,
    "--private-key": True, "--key-file": True, "-J": False, "--ask-vault-pass": False, "--ask-vault-password": False,
    "--vault-id": True, "--vault-password-file": True, "--vault-pass-file": True, "-c": True, "--connection": True,
    "--ssh-common-args": True, "--ssh-extra-args": True, "-f": True, "--forks": True, "-T": True, "--timeout": True,
}  # fmt: skip
_VALUED = ("-e", "--extra-vars", "-t", "--tags", "--skip-tags", "--start-at-task", "-M", "--module-path", *_LIMIT)
_PROGRAMS = (
    "ansible|ansible-playbook|chmod|curl|env|getent|install|kubectl|mv|rm|sed|sh|sntp|ssh|ssh-copy-id|ssh-keygen|sudo"
)
_COMMAND = re.compile(rf"(?:^|(?<=: ))(?:{_PROGRAMS}) .*$")
_PLAYBOOK = re.compile(r"ansible-playbook (connectomics\.cave\.[a-z_]+)")
# A rotation is not among them: it has to know of all hosts, and is rightly not done while one is left.
_FOR_SOME_HOSTS = re.compile(
    r"(ansible-playbook (?:\S+ )*?connectomics\.cave\.(?:audit|provision|verify)\b)(?: --limit (?:'[^']*'|\S+))?"
)


def split(argv: Sequence[str]) -> list[list[str]]:
    """Return the arguments of ``ansible-playbook``, each option together with its value.

    ``argv`` is that of the process, also of ``python -m ansible playbook``.
    """
    words = list(argv[1:])
    if PurePath(argv[0]).name != "ansible-playbook" and words[:1] == ["playbook"]:
        del words[0]
    parts = []
    while words:
        word = words.pop(0)
        with_value = (_LASTING.get(word) or word in _VALUED) and words
        parts.append([word, words.pop(0)] if with_value else [word])
    return parts


def as_typed(parts: Sequence[Sequence[str]], clean: Cleaner) -> str:
    """Return the command; an argument that may hold a token is left out, and dots stand for it."""
    words = [
        word if clean.sentence(word) == word else "..." if not word.startswith("-") else f"{word.partition('=')[0]}=..."
        for part in parts
        for word in part
    ]
    return shlex.join(["ansible-playbook", *words])


def pattern_of(hosts: Iterable[str]) -> str:
    """Return hosts as ``--limit`` takes them."""
    return ",".join(map(host_pattern, hosts))


def with_limit(parts: Sequence[Sequence[str]], limit: str, clean: Cleaner) -> str:
    """Return the same command for other hosts."""
    kept = [part for part in parts if _name(part) not in _LIMIT]
    return as_typed([*kept, ["--limit", limit]], clean)


def lasting_options(parts: Sequence[Sequence[str]], clean: Cleaner) -> str:
    """Return the options that say how to get to the hosts and the vault, as text that begins with a space, or empty."""
    kept = [part for part in parts if _name(part) in _LASTING]
    return as_typed(kept, clean).removeprefix("ansible-playbook")


def completed(text: str, options: str) -> str:
    """Return a remedy whose commands have the options that the user's own command had."""
    return _PLAYBOOK.sub(lambda found: f"ansible-playbook{options} {found[1]}", text) if options else text


def for_hosts(text: str, hosts: Iterable[str]) -> str:
    """Return a remedy whose commands are for some hosts alone, where a command can be; for none: for all hosts."""
    limit = pattern_of(hosts)
    words = f" --limit {shlex.quote(limit)}" if limit else ""
    return _FOR_SOME_HOSTS.sub(lambda found: f"{found[1]}{words}", text)


def without_command(text: str) -> tuple[str, str]:
    """Return a remedy up to the command that it ends with, and that command; either may be empty."""
    found = _COMMAND.search(text)
    return (text[: found.start()].rstrip(), text[found.start() :]) if found else (text, "")


def _name(part: Sequence[str]) -> str:
    """Return an option's name: --limit for --limit=ws1, -l for -lws1."""
    word = part[0]
    return word.partition("=")[0] if word.startswith("--") else word[:2]
