# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a rotation that are done on the controller: prove, begin, wait, end.

What to do is decided in ``_rotation``; here the server is asked, and the vault written. Between the steps lie the tasks
on the hosts. Tokens are read anew from the variables and the vault in every step, or handed on sealed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError

from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import prove as ask_servers
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import TokenApi
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import Selection, ServerToken, iso
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token, fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import plain_string
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import Owner, Subject
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import seal, unseal
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import file as _file
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_edit import label

CANARIES = 3
"""Hosts that are tried, one after the other, before it is given up that the first one of the fleet is well."""

_VARIABLE_FILES = ("group_vars", "host_vars")
_SUFFIXES = ("", ".yml", ".yaml", ".json")


class Holder(NamedTuple):
    """An entry of a host's ``caveclient_tokens``."""

    host: str
    user: str
    server: str
    token: str
    datastacks: tuple[str, ...]

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"<{self.user} on {self.host}: {fingerprint(self.token)}>"


class Settings(NamedTuple):
    """What the user asked for; see the documentation of the module ``token_rotation``."""

    strategy: str
    name: str
    users: frozenset[str]
    vault_files: tuple[str, ...]
    vault_id: str | None
    own_store: bool
    other_person: bool
    revoke: str
    grace: float
    timeout: int
    retries: int
    ca_path: str | None
    check: bool


# Who has which token --------------------------------------------------------------------------------------------------


def holders_of(host: str, variables: Mapping[str, Any]) -> list[Holder]:
    """Return the entries of one host's variables that a rotation is about.

    Raises CaveError when they cannot be read. A token is never shown.
    """
    try:
        entries = variables.get("caveclient_tokens") or []
        server = variables.get("caveclient_server") or DEFAULT_SERVER
        stacks = variables.get("caveclient_datastacks") or []
        found = []
        for number, entry in enumerate(entries, 1):
            if not isinstance(entry, Mapping):
                raise CaveError(f"Entry {number} of caveclient_tokens is not a mapping with user and token.")
            if entry.get("state") == "absent":
                continue
            own = server_address(entry.get("server") or server)
            default = stacks if own == server_address(server) else []
            names = parse_datastacks(default if entry.get("datastacks") is None else entry["datastacks"], own)
            value = entry.get("token")
            token = clean_token(plain_string(value, "The token") if value is not None else None)
            found.append(Holder(host, str(entry.get("user") or ""), own, token, tuple(item.name for item in names)))
        return found
    except AnsibleError as error:
        # Its message may quote a template or a value.
        message = f"caveclient_tokens cannot be read ({type(error).__name__}). Is the vault's password right?"
        raise CaveError(message) from None


def gather(
    hosts: Iterable[str], variables_of: Callable[[str], Mapping[str, Any]]
) -> tuple[list[Holder], dict[str, str]]:
    """Return everybody's entries on all hosts, and why some hosts' could not be read."""
    problems = {}

    def entries(host: str) -> list[Holder]:
        try:
            return holders_of(host, variables_of(host))
        except CaveError as error:
            problems[host] = error.message
            return []

    return [holder for host in hosts for holder in entries(host)], problems


def named(holder: Holder) -> str:
    """Return the fingerprint of a holder's token."""
    return fingerprint(holder.token)


def _by_token(holders: Iterable[Holder]) -> dict[tuple[str, str], list[Holder]]:
    found: dict[tuple[str, str], list[Holder]] = {}
    for holder in holders:
        found.setdefault((holder.server, holder.token), []).append(holder)
    return found


# 1. Prove -------------------------------------------------------------------------------------------------------------


def prove(holders: Iterable[Holder], settings: Settings) -> list[Subject]:
    """Return a rotation for each token, those refused that the server does not accept. No host is asked.

    Those of users who aren't meant are left out of it, apart from the question whose they are. Somebody who has the
    same token as one who is meant is meant too: it is replaced for all at once.
    """
    tokens = _by_token(holders)
    meant = {
        key for key, items in tokens.items() if not settings.users or any(item.user in settings.users for item in items)
    }
    questions = {
        key: Question(*key, tuple(dict.fromkeys(name for item in items for name in item.datastacks if key in meant)))
        for key, items in tokens.items()
    }
    answers = ask_servers(
        questions.values(), timeout=settings.timeout, retries=settings.retries, ca_path=settings.ca_path
    )
    subjects = []
    for (server, token), items in tokens.items():
        verdict = answers[questions[server, token]].overall
        subject = Subject(
            server=server,
            given=fingerprint(token),
            users=list(dict.fromkeys(item.user for item in items)),
            hosts=list(dict.fromkeys(item.host for item in items)),
            new=fingerprint(token),
            person=verdict.person._asdict() if verdict.person else None,
        )
        if (server, token) not in meant:
            subject.action = "left_out"
        elif not verdict.ok:
            subject.refuse(f"{verdict.message} {verdict.remedy}".strip(), verdict.as_dict())
        subjects.append(subject)
    return subjects


# 2. Begin -------------------------------------------------------------------------------------------------------------


class Looked(NamedTuple):
    """What a host had for a user before: the token's fingerprint, and whose it is if the server accepts it."""

    fingerprint: str
    person: int | None


def begin(
    subjects: Sequence[Subject],
    holders: Sequence[Holder],
    looked: Mapping[tuple[str, str, str], Looked],
    secrets: _file.VaultSecrets,
    files: Sequence[str],
    settings: Settings,
) -> None:
    """Decide for each token what to do, and do what has to come before the roll-out: make the new one and store it.

    ``looked`` has what hosts, users and servers had before; ``files`` are where the vault's variables are looked for.
    What goes wrong with one token is noted in its subject, and keeps no other one from being rotated.
    """
    tokens = {(server, fingerprint(token)): (token, items) for (server, token), items in _by_token(holders).items()}
    if not settings.other_person:
        _bar_strangers(subjects, holders, looked)
    vault = _Vault(files, settings.vault_files, secrets)
    for subject in subjects:
        if subject.idle:
            continue
        found = tokens.get((subject.server, subject.given))
        if found is None:
            subject.refuse("The token in the variables changed while the run went on. Run it again.")
            continue
        try:
            _begin(subject, found[0], looked, _Store(found[0], vault, settings), settings)
        except CaveError as error:
            subject.refuse(error.message, error.details.get("access"))


def _bar_strangers(
    subjects: Sequence[Subject], holders: Iterable[Holder], looked: Mapping[tuple[str, str, str], Looked]
) -> None:
    """Keep everybody from getting somebody else's token, as far as it can be told."""
    subject_of = {}
    count: dict[int, int] = {}
    for holder in holders:
        subject = next((item for item in subjects if item.holds(holder.server, named(holder))), None)
        if subject is None or subject.refused or subject.person is None:
            continue
        before = looked.get((holder.host, holder.user, holder.server), Looked("", None))
        name = subject.person["name"] or subject.person["email"]
        owner = Owner(
            holder.host,
            holder.user,
            holder.server,
            subject.given,
            subject.person["id"],
            name,
            before.person,
            before.fingerprint,
        )
        subject_of[owner] = subject
        count[id(subject)] = count.get(id(subject), 0) + 1
    for owner, message in _decide.strangers(subject_of).items():
        subject = subject_of[owner]
        if not subject.idle:
            subject.withhold(owner.host, owner.user, f"{message} Put that person's own token into the vault.")
    for subject in subjects:
        if subject.barred and len(subject.barred) >= count[id(subject)]:
            subject.refuse(subject.barred[0]["reason"])


def _begin(
    subject: Subject, token: str, looked: Mapping[tuple[str, str, str], Looked], store: _Store, settings: Settings
) -> None:
    api = _api(subject, token, settings)
    held = {
        item.fingerprint
        for (host, user, server), item in looked.items()
        if server == subject.server and host in subject.hosts and user in subject.users and item.fingerprint
    }
    if settings.strategy == "cutover":
        _roll_out(subject, token, "the strategy is cutover")
        return
    try:
        listing = api.listing()
    except CaveError as error:
        if settings.strategy != "auto" or not error.details.get("unsupported"):
            raise
        _roll_out(subject, token, "the server cannot list tokens, so none is made")
        return
    decision = _decide.decide(settings.strategy, settings.name, token, listing, held)
    if decision.action == "roll_out":
        _roll_out(subject, token, decision.reason)
    elif decision.action == "continue" and decision.new is not None and decision.old is not None:
        if decision.new.value != token:
            store.prepare(decision.new.value)
            store.keep(decision.new.value)
        _replace(subject, decision.new, decision.old, "continued", decision.reason)
        subject.old_alive, subject.places, subject.unstored = True, store.kept(), store.waits()
    elif decision.old is not None:
        _make(subject, api, decision.old, store, settings)


def _roll_out(subject: Subject, token: str, reason: str) -> None:
    subject.action = "rolled_out"
    subject.message = f"The token {subject.given} is rolled out: {reason}."
    subject.new, subject.sealed = subject.given, seal(token)


def _replace(subject: Subject, new: ServerToken, old: ServerToken, action: str, reason: str) -> None:
    subject.action = action
    subject.message = f"The token {new.fingerprint} replaces {old.fingerprint}" + (f": {reason}." if reason else ".")
    subject.new, subject.sealed = new.fingerprint, seal(new.value)
    subject.old, subject.old_id = old.fingerprint, old.id


def _make(subject: Subject, api: TokenApi, old: ServerToken, store: _Store, settings: Settings) -> None:
    description = _decide.description(settings.name, old.fingerprint)
    store.prepare()
    if settings.check:
        subject.action, subject.new, subject.old, subject.old_id = "made", None, old.fingerprint, old.id
        subject.message = f"A new token would be made to replace {old.fingerprint}."
        subject.places = store.kept()
        return
    try:
        made = api.ensure(description, same=lambda text: _decide.replaces(text) == old.fingerprint, keep=store.keep)
    except CaveError as error:
        if settings.strategy != "auto" or not error.details.get("unsupported"):
            raise
        _roll_out(subject, api.token, "the server cannot make tokens for programs, so none is made")
        return
    if made.token is None:
        raise CaveError("No token was made.")
    _replace(subject, made.token, old, "made", "")
    subject.places, subject.unstored = store.kept(), store.waits()
    subject.old_alive = made.old_token_alive is not False
    if not subject.old_alive:
        subject.old, subject.old_id = "", 0
        subject.message += " The server has killed the old one, so the hosts get the new one at once."


class _Vault:
    """The files with variables of a run, each decrypted once."""

    def __init__(self, files: Sequence[str], named: Sequence[str], secrets: _file.VaultSecrets) -> None:
        self.secrets = secrets
        self.searched = ", ".join(named) or "group_vars and host_vars beside the inventory"
        self._files = files
        self._named = named
        self._read: dict[str, dict[tuple[str, ...], str]] = {}

    def places(self, token: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the files and variables that hold a token. Raises CaveError for a file that the user named."""
        return [
            (path, variable)
            for path in self._files
            for variable, value in self._variables(path).items()
            if value.strip() == token
        ]

    def _variables(self, path: str) -> dict[tuple[str, ...], str]:
        if path not in self._read:
            try:
                self._read[path] = _file.read_variables(path, self.secrets)
            except CaveError:
                if path in self._named:
                    raise
                self._read[path] = {}
        return self._read[path]


class _Store:
    """Where a new token is kept: in the place of the old one in the vault's files, or by the user's own tasks."""

    def __init__(self, token: str, vault: _Vault, settings: Settings) -> None:
        self._token = token
        self._vault = vault
        self._settings = settings
        self._places: list[tuple[str, tuple[str, ...]]] = []
        self._stored = ""

    def prepare(self, new: str = "") -> None:
        """See that a new token can be stored, before it is made (or when it is ``new``). Raises CaveError."""
        if self._settings.own_store:
            return
        # Another run, or what is left of one that was killed, may have stored it since the variables were read.
        self._places = self._vault.places(self._token) or (self._vault.places(new) if new else [])
        if not self._places:
            raise CaveError(
                f"There is no place to keep a new token: no variable in {self._vault.searched} holds the token "
                f"{fingerprint(self._token)}. Name the file with caveclient_rotate_vault_file, or the tasks that store "
                "it with caveclient_rotate_store_tasks; or use the strategy cutover."
            )
        for path, variable in self._places:
            self._set(path, variable, "0" * 32, check=True)

    def keep(self, value: str) -> None:
        """Store a token, and read it back. Raises CaveError when it isn't there then."""
        self._stored = value
        if self._settings.own_store or self._settings.check:
            return
        for path, variable in self._places:
            self._set(path, variable, value)
            if _file.read_variable(path, variable, self._vault.secrets) != value:
                raise CaveError(
                    f"{path}: the variable {label(variable)} does not hold what was stored in it. Run it again."
                )

    def _set(self, path: str, variable: tuple[str, ...], value: str, check: bool = False) -> None:
        _file.set_variable(path, variable, value, self._vault.secrets, vault_id=self._settings.vault_id, check=check)

    def kept(self) -> list[dict[str, str]]:
        """Return the places, for a result."""
        return [{"path": path, "name": label(variable)} for path, variable in self._places]

    def waits(self) -> bool:
        """Whether there is a new token that the user's own tasks have to store."""
        return bool(self._stored) and self._settings.own_store


def variable_files(folders: Iterable[str]) -> list[str]:
    """Return the files of variables beside inventories, of which ``folders`` are the folders."""
    return [
        str(path)
        for folder in dict.fromkeys(folders)
        for kind in _VARIABLE_FILES
        for path in sorted((Path(folder) / kind).rglob("*"))
        if path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]


def _api(subject: Subject, token: str, settings: Settings) -> TokenApi:
    return TokenApi(subject.server, token, timeout=settings.timeout, retries=settings.retries, ca_path=settings.ca_path)


def canaries(
    subjects: Sequence[Subject], hosts: Sequence[str], troubled: Mapping[str, int], named: Sequence[str]
) -> list[list[str]]:
    """Return the hosts to begin with: a list for each attempt.

    Args:
        subjects: the rotations.
        hosts: of this run, in the order of the inventory, without those that could not be reached.
        troubled: how much is wrong with a host; the least troubled ones come first.
        named: the user's choice; then there is one attempt, with all of them.

    Raises:
        CaveError: a host that was named isn't one of them.
    """
    meant = {host for subject in subjects if not subject.idle for host in subject.hosts}
    usable = [host for host in hosts if host in meant]
    unknown = [host for host in named if host not in usable]
    if unknown:
        raise CaveError(
            f"caveclient_rotate_canary names {', '.join(unknown)}, which this run cannot reach or has no token for. "
            "Name another host."
        )
    if named:
        return [list(named)]
    if all(subject.idle or subject.old_alive is False for subject in subjects):
        return []
    return [[host] for host in sorted(usable, key=lambda host: troubled.get(host, 0))[:CANARIES]]


# 3. On a host ---------------------------------------------------------------------------------------------------------


def token_for(subject: Subject | None, holder: Holder, secrets: _file.VaultSecrets) -> str | None:
    """Return the token that a user of a host gets; None in check mode, when it does not exist yet.

    Raises CaveError when the user gets none, or it is not to be had any more.
    """
    if subject is None:
        raise CaveError("The token in the variables changed while the run went on. Run it again.")
    reason = subject.reason_against(holder.host, holder.user)
    if reason:
        raise CaveError(reason)
    if subject.new is None:
        return None
    if fingerprint(holder.token) == subject.new:
        return holder.token
    value = unseal(subject.sealed)
    for place in subject.places if value is None else ():
        variables = _file.read_variables(place["path"], secrets)
        value = next((item for item in variables.values() if fingerprint(item) == subject.new), value)
    if value is None or fingerprint(value) != subject.new:
        raise CaveError("The new token is stored, but this run cannot read it any more. Run it again.")
    return value


# 4. Wait, and 5. end --------------------------------------------------------------------------------------------------


def mark(subjects: Iterable[Subject], settings: Settings) -> list[dict[str, Any]]:
    """Return when each old token was last used, and the moment that this was so, by the server's clock.

    Only for those that are to be revoked; of ``subjects`` all hosts of the run have the new token.
    """
    if settings.revoke == "never" or settings.check:
        return []
    marks = []
    for subject in subjects:
        if not subject.old or subject.idle or subject.barred:
            continue
        listing = _api(subject, _sealed_value(subject), settings).listing()
        old = _find(listing.tokens, subject)
        used = old.last_used if old is not None else None
        marks.append({"server": subject.server, "old": subject.old, "last_used": used, "at": listing.now})
    return marks


def wait(marks: Iterable[Mapping[str, Any]], settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
    """Give those who still use an old token the time to be seen."""
    if any(True for _mark in marks):
        sleep(settings.grace)


def _sealed_value(subject: Subject) -> str:
    value = unseal(subject.sealed)
    if value is None:
        raise CaveError("This run cannot read the new token any more. Run it again: it goes on from here.")
    return value


def _find(tokens: Iterable[ServerToken], subject: Subject) -> ServerToken | None:
    return next((item for item in tokens if (item.id, item.fingerprint) == (subject.old_id, subject.old)), None)


class Ended(NamedTuple):
    """How it ended for a token: whether nothing is left to do, whether the old one was revoked, what to say of it."""

    finished: bool
    revoked: bool
    note: str


def end(subject: Subject, missing: Sequence[str], marks: Iterable[Mapping[str, Any]], settings: Settings) -> Ended:
    """Revoke the old token, if nobody needs it any more, and prove that it is dead.

    Args:
        subject: the rotation.
        missing: the hosts and users of the whole fleet who may still need the old token, each with the reason.
        marks: as of ``mark``; empty when it did not come to that.
        settings: what the user asked for.
    """
    if subject.refused:
        return Ended(False, False, f"{subject.name}: nothing was done. {subject.message}")
    about = f"{subject.name}: {subject.message}"
    if subject.places:
        where = ", ".join(f"{place['name']} in {place['path']}" for place in subject.places)
        about += f" The new one {'would be' if settings.check else 'is'} kept as {where}."
    if subject.barred:
        reasons = " ".join(dict.fromkeys(item["reason"] for item in subject.barred))
        return Ended(False, False, f"{about} {reasons}")
    if not subject.old:
        return Ended(True, False, about)
    if settings.check:
        return Ended(True, False, f"{about} The old one would be revoked when every host has the new one.")
    if settings.revoke == "never":
        return Ended(True, False, f"{about} The old one stays alive, as caveclient_rotate_revoke says.")
    if missing:
        who = "; ".join(missing[:5]) + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
        return Ended(False, False, f"{about} The old one is not revoked, as it may still be needed: {who}.")
    try:
        return _revoke(subject, about, marks, settings)
    except CaveError as error:
        return Ended(False, False, f"{about} The old one is not revoked: {error.message}")


def _revoke(subject: Subject, about: str, marks: Iterable[Mapping[str, Any]], settings: Settings) -> Ended:
    api = _api(subject, _sealed_value(subject), settings)
    listing = api.listing()
    old = _find(listing.tokens, subject)
    begun = next((item for item in marks if (item["server"], item["old"]) == (subject.server, subject.old)), None)
    if begun is None:
        return Ended(False, False, f"{about} The old one is not revoked: nobody looked whether it is still used.")
    used = _decide.used_since(old, begun["last_used"], begun["at"])
    if used and settings.revoke != "even_if_used":
        advice = "Run it again when that has the new token, or with caveclient_rotate_revoke=even_if_used."
        return Ended(False, False, f"{about} The old one is not revoked. {used} {advice}")
    if old is not None:
        api.revoke(Selection(id=old.id))
    said = f"The old one is revoked, and {subject.server} refuses it since {iso(listing.now)}."
    later = "Other services may accept it from their caches for up to five minutes more."
    return Ended(True, old is not None, " ".join(part for part in (about, used, said, later) if part))
