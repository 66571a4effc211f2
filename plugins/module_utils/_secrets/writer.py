# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing the secrets files of one user, to be called in a process that is that user."""

from __future__ import annotations

import os
import os.path
from functools import partial
from typing import Any, Callable, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._atomic import has_access_list
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import (
    immutable,
    is_immutable,
    is_mounted,
    is_read_only,
    not_permitted,
    real_path,
    reporting,
    require_home,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.outcome import Outcome, shown
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Plan, Share, plan
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request
from ansible_collections.connectomics.cave.plugins.module_utils._systems import restore_labels, this_system


def save(home: Home, requests: Sequence[Request], stale: str, check_mode: bool) -> list[dict[str, Any]]:
    """Make the user's secrets files hold what ``requests`` ask for; to be called in a process that is that user.

    Args:
        home: whose files, and how they are to be.
        requests: of which none excludes another.
        stale: what to do with other files that hold a replaced token: ``update``, ``report`` or ``ignore``.
        check_mode: whether to say only what would be done.

    Returns:
        One result a request (see ``outcome``), or ``failed`` and ``msg`` for one that a file stands in the way of.
        ``previous_token`` is for the caller alone.

    Raises:
        CaveError: nothing can be done. Files that were not written yet are as they were.
    """
    is_needed = any(request.token for request in requests)
    if is_needed:
        require_home(home.name, home.uid, home.path)
    if home.group is not None and os.geteuid() != 0 and home.group not in (os.getegid(), *os.getgroups()):
        raise CaveError(
            f"{home.name} is not a member of the group with id {home.group}, and so cannot give files to it. "
            f"Make {home.name} a member ({this_system().add_to_group()}), then run this again."
        )
    session = _Session(home, requests, stale)
    try:
        with home.advice(), reporting(home.path, "work in"):
            session.open(is_needed)
            session.look()
            if not check_mode and session.differs():
                session.open(is_needed, create=session.is_writing())
                session.lock()
                session.look()  # again, under the lock: the files may have changed
                session.carry_out()
                session.read_back()
            return session.results()
    finally:
        session.close()


class _Session:
    """The directories of one user, what was found in them, and what is to be done to them."""

    def __init__(self, home: Home, requests: Sequence[Request], stale: str) -> None:
        self.home = home
        self.where = home.places(home.environment())
        self.requests = requests
        self.stale = stale
        self.paths = list(dict.fromkeys((self.where.caveclient, self.where.cloud_volume[0])))
        self.directories: dict[str, _directory.Directory] = {}
        self.missing: list[str] = []
        names = [_files.DEFAULT_FILE, _files.LEGACY_FILE, _files.SERVER_MAP]
        names += [name for request in requests for name in request.own_names()]
        self.asked = {name.lower(): name for name in names}

    def open(self, is_needed: bool, create: bool = False) -> None:
        """Open the directories that exist, and make the others if ``create`` says so.

        Args:
            is_needed: whether it has to be possible to make them.
            create: whether to make them.
        """
        owners = (self.home.uid, 0) if self.home.secrets_dir else (self.home.uid,)
        access = self.home.directory_access if create else None
        for path in self.paths:
            if path not in self.directories:
                try:
                    directory, missing = _directory.open_directory(path, owners, access, is_needed)
                except CaveError:
                    if is_needed or self._is_in_home(path) or os.access(path, os.R_OK | os.X_OK):
                        raise
                    continue  # no program of the user's reads there
                self.missing += [item for item in missing if item not in self.missing]
                if directory is not None:
                    directory.asked = self.asked
                    self.directories[path] = directory

    def lock(self) -> None:
        """Keep other runs out of all directories, in one order for all, so that two runs never wait for each other."""
        for path in sorted(self.directories):
            self.directories[path].lock()

    def close(self) -> None:
        """Let go of everything."""
        for directory in self.directories.values():
            directory.close()

    def look(self) -> None:
        """Read the files, and plan what is to become of them.

        Raises:
            CaveError: a secrets file is closed to its user, or a directory is not writable.
        """
        self.entries: dict[str, _files.Entry] = {}
        for folder, directory in self.directories.items():
            names = [name for name in directory.names() if name.endswith(".json")]
            if len(names) > _directory.MOST_FILES:
                raise CaveError(
                    f"{folder} holds {len(names)} JSON files; expected at most {_directory.MOST_FILES}. "
                    "Move those away that belong to no server, then run this again."
                )
            for name in names:
                entry = directory.read(name)
                if entry is not None:
                    self.entries[os.path.join(folder, name)] = entry
        self.texts = {path: entry.text for path, entry in self.entries.items() if entry.text is not None}
        self._require_readable()
        self.refused: dict[int, str] = {}
        while True:
            met = [index for index in range(len(self.requests)) if index not in self.refused]
            self.plan: Plan = plan(self.texts, self.paths, [self.requests[index] for index in met], self.stale)
            self.shares: dict[int, Share] = dict(zip(met, self.plan.shares))
            self._look_for_copies()
            in_the_way = {index: self._in_the_way(index) for index in met}
            refused = {index: problem for index, problem in in_the_way.items() if problem}
            if not refused:
                break
            self.refused.update(refused)
        self.malformed = {
            path: self.entries[path] for index in met for path in self._malformed(index) if path not in self.unwanted
        }
        self._look_for_repairs()
        if self.shares:
            self._require_writable()

    def differs(self) -> bool:
        """Return whether anything is to be written, repaired or removed."""
        return bool(self.shares and (self._changed() or self.repairs))

    def is_writing(self) -> bool:
        """Return whether there is a token to write."""
        return any(self.requests[index].token for index in self.shares)

    def carry_out(self) -> None:
        """Do what was planned, in an order in which a run that is killed can be completed by the next one."""
        for _reason, repair in self.repairs.values():
            repair()
        for path in self.unwanted:
            directory, name = os.path.split(path)
            self.directories[directory].remove(name)
        for path in self.malformed:
            directory, name = os.path.split(path)
            self.directories[directory].set_aside(name)
        for path in self.plan.order:
            directory, name = os.path.split(path)
            text = self.plan.texts.get(path)
            is_as_read = partial(self._require, path, self.texts.get(path))
            if text is None and path in self.texts:
                is_as_read()
                self.directories[directory].remove(name)
            elif text is not None and (text != self.texts.get(path) or path in self.loose):
                self.directories[directory].write(name, text, self._mode(path), self.home.group, is_as_read)
        restore_labels(*self.missing[:1])

    def read_back(self) -> None:
        """See that the files are as planned.

        Raises:
            CaveError: a program that takes no lock wrote at the same time.
        """
        for path in self.plan.order:
            self._require(path, self.plan.texts.get(path))

    def _require(self, path: str, text: str | None) -> None:
        directory, name = os.path.split(path)
        entry = self.directories[directory].read(name) if directory in self.directories else None
        if (entry.text if entry else None) != text:
            raise CaveError(
                f"Another program changed {path} while it was written. "
                "Let nobody run save_token at the same time, then run this again."
            )

    def results(self) -> list[dict[str, Any]]:
        """Say, for every request, what was done or would be done."""
        found = _directory.listing(self.where, known=self.directories, is_certain=False)
        kept = {
            path: entry
            for path, entry in self.entries.items()
            if entry.text is None and path not in self.malformed and path not in self.unwanted
        }
        outcome = Outcome(self.home, self.where, self.texts, self.plan.texts, self.loose, {**found, **kept})
        results = []
        shared = self._shared()
        for index, request in enumerate(self.requests):
            if index in self.refused:
                results.append({"failed": True, "msg": self.refused[index], "changed": False, "files": []})
            else:
                results.append(outcome.result(request, self.shares[index], shared))
                shared = []
        return results

    def _shared(self) -> list[dict[str, str]]:
        """Return what is done for all requests together, as items of ``files``."""
        items = []
        if self.is_writing():
            reason = f"directory of secrets files, {self.home.directory_access.mode:04o}"
            items += [(path, "created", reason) for path in self.missing]
        items += [(path, "repaired", reason) for path, (reason, _repair) in self.repairs.items()]
        items += [(path, "set_aside", f"it {entry.detail}") for path, entry in self.malformed.items()]
        items += [(path, "removed", reason) for path, reason in self.unwanted.items()]
        items += [(path, "unchanged", reason) for path, reason in self.told.items()]
        return [{"path": path, "action": action, "reason": reason} for path, action, reason in items]

    # What stands in the way ------------------------------------------------------------------------------------------

    def _require_readable(self) -> None:
        """Refuse to work beside a secrets file that its own user cannot read: nobody knows which tokens are in it."""
        closed = [
            f"{shown(path)} {entry.detail}."
            for path, entry in sorted(self.entries.items())
            if entry.problem == "unreadable" and _files.is_secrets_file(os.path.basename(path))
        ]
        if closed:
            raise CaveError(
                f"{' '.join(closed)} Nothing was written. "
                f"Give the file to {self.home.name} (chown, chmod u+rw), then run this again."
            )

    def _require_writable(self) -> None:
        for path in self._changed():
            obstacle = self._obstacle(path)
            if obstacle is not None:  # some of the files would be written, and others not
                raise obstacle
        for directory in self.directories.values() if self.differs() else ():
            directory.require_lockable()

    def _obstacle(self, path: str) -> CaveError | None:
        """Return why a file cannot be written or removed; None where nothing is in the way."""
        directory = self.directories.get(os.path.dirname(path))
        if directory is None:
            return None
        for marked in (directory.path, path):
            if is_immutable(marked):
                return immutable(marked, f"write {path}")
        if path in self.entries and is_mounted(path):
            return CaveError(
                f"Cannot write {path}: it is a mount of its own, as with a subPath of Kubernetes or -v of Docker, "
                "and cannot be replaced. Change what is mounted there, or take the mount away, then run this again."
            )
        return None if directory.is_writable() else not_permitted(directory.path, f"write {path}")

    def _malformed(self, index: int) -> list[str]:
        """Return the malformed files that a request needs, or that hold a token which it removes."""
        needed = [*self.shares[index].reasons, *self.copies.get(index, ())]
        problems = {path: self.entries[path] for path in needed if path in self.entries and self.entries[path].problem}
        return [path for path in problems if path in self.shares[index].reasons or self._is_secret(path)]

    @staticmethod
    def _is_secret(path: str) -> bool:
        return _files.is_secrets_file(os.path.basename(path))

    def _in_the_way(self, index: int) -> str:
        """Return why a request cannot be met, empty when it can."""
        malformed = self._malformed(index) if self.home.on_malformed == "fail" else []
        unreadable = [path for path in self._malformed(index) if self.entries[path].problem == "unreadable"]
        if unreadable or malformed:
            complaints = [f"{shown(path)} {self.entries[path].detail}." for path in sorted({*malformed, *unreadable})]
            remedy = "Fix it by hand, or set on_malformed: replace, which keeps it beside the new file."
            if unreadable:
                remedy = f"Give the file to {self.home.name} (chown, chmod u+rw), then run this again."
            return f"{' '.join(complaints)} Nothing was written. {remedy}"
        for path in self.shares[index].changed:
            if len(self.plan.texts.get(path, "").encode()) > _files.MAX_BYTES:
                return (
                    f"With the token, {shown(path)} would be larger than {_files.MAX_BYTES // 1024} KiB, "
                    "which no file of tokens is. Take out of it what is no token, then run this again."
                )
        return ""

    # What else is done -----------------------------------------------------------------------------------------------

    def _changed(self) -> set[str]:
        """Return the paths that are to be written or removed, or have to make room."""
        texts = self.plan.texts
        written = {path for path in self.plan.order if self.texts.get(path) != texts.get(path)}
        return written | set(self.malformed) | set(self.unwanted) | set(self.loose)

    def _look_for_copies(self) -> None:
        """Find what runs that were killed left behind, and what else holds a token that is to be absent.

        The latter are files set aside, editors' backups and the like. One of another server's file is only told.
        """
        tokens = {
            index: [token.encode("utf-8", "surrogatepass") for token in share.replaced]
            for index, share in self.shares.items()
            if self.requests[index].token is None and self.stale == "update"
        }
        self.unwanted: dict[str, str] = {}
        self.told: dict[str, str] = {}
        self.copies: dict[int, list[str]] = {}
        for folder, directory in self.directories.items():
            for name in directory.names():
                path = os.path.join(folder, name)
                if _directory.TEMPORARY.fullmatch(name) and directory.is_removable(name):
                    self.unwanted[path] = "left by a run that was killed"
                elif name != _directory.LOCK_FILE and self._may_be_copy(path):
                    for index in tokens:
                        self._look_into(directory, name, path, index, tokens[index])

    def _look_into(
        self, directory: _directory.Directory, name: str, path: str, index: int, tokens: list[bytes]
    ) -> None:
        is_copy = directory.holds(name, tokens) if tokens else False
        owner = _files.named_for(name)
        if is_copy is None:
            self.told[path] = "closed to its user, so it is unknown whether it holds the token"
        elif is_copy and owner and _files.canonical(name) not in self.requests[index].family():
            self.shares[index].stale[path] = f"holds the token that was removed, in a file of {owner}"
        elif is_copy:
            self.unwanted[path] = "a copy that held the token"
            self.copies.setdefault(index, []).append(path)

    def _may_be_copy(self, path: str) -> bool:
        return path not in self.texts and (path not in self.entries or self.entries[path].problem != "unreadable")

    def _look_for_repairs(self) -> None:
        access = self.home.directory_access
        self.repairs: dict[str, tuple[str, Callable[[], None]]] = {}
        for path, directory in self.directories.items():
            flaw = directory.flaw(access)
            if flaw and self._is_in_home(path):
                self.repairs[path] = (flaw, partial(directory.repair, access))
            elif flaw:
                self.told[path] = f"{flaw}; it is outside of the home, so its mode is left alone"
        usual = os.path.join(self.home.path, ".cloudvolume", "secrets")
        above = os.path.dirname(usual)
        is_to_be_made = usual in self.missing and above not in self.missing and self.is_writing()
        if (usual in self.directories or is_to_be_made) and _directory.is_open_to_others(above):
            self.repairs[above] = (
                "others could replace what is in it",
                partial(_directory.close_to_others, above),
            )
        touched = {path for share in self.shares.values() for path in share.reasons}
        flaws = {path: self._flaw(path) for path in touched if path in self.texts}
        self.loose = {path: flaw for path, flaw in flaws.items() if flaw}
        if not self.is_writing():  # what cannot be changed is no reason to fail where nothing is to be removed
            self.loose = {path: flaw for path, flaw in self.loose.items() if self._obstacle(path) is None}
            for path in [path for path in self.repairs if is_immutable(path) or is_read_only(path)]:
                del self.repairs[path]

    def _is_in_home(self, path: str) -> bool:
        """Return whether a directory is in the user's own tree, links followed, or the one that was asked for."""
        home = real_path(self.home.path)
        return path == self.home.secrets_dir or real_path(path).startswith(os.path.join(home, ""))

    def _flaw(self, path: str) -> str:
        """Say what is wrong with a file's mode, owner or group; empty when all is well. The server map is no secret."""
        entry = self.entries[path]
        flaws = []
        if os.path.basename(path) == _files.SERVER_MAP:
            return ""
        if entry.mode != self.home.mode:
            flaws.append(f"mode {entry.mode:04o}")
        if entry.uid != self.home.uid:
            flaws.append(f"user id {entry.uid}")
        if self.home.group not in (None, entry.gid):
            flaws.append(f"group id {entry.gid}")
        if self.home.mode & 0o070 and has_access_list(path):
            flaws.append("an access control list that lets others in")
        return f"had {', '.join(flaws)}" if flaws else ""

    def _mode(self, path: str) -> int:
        if os.path.basename(path) == _files.SERVER_MAP and path in self.entries:
            return self.entries[path].mode & 0o666
        return self.home.mode
