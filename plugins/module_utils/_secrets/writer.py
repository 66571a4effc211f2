# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing the secrets files of one user, to be called in a process that is that user."""

from __future__ import annotations

import json
import os
import os.path
from typing import Any, Callable

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import reporting, require_home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Plan, Wish, plan


def save(home: Home, wishes: list[Wish], check_mode: bool) -> list[dict[str, Any]]:
    """Make the user's secrets files hold what ``wishes`` ask for; to be called in a process that is that user.

    Returns:
        One result a wish: ``changed``, ``files`` (path, action, reason), ``fingerprint``, ``previous_fingerprint``,
        ``readers`` (what each reader sends now), ``diff``. No token is in it.

    Raises:
        CaveError: it cannot be done. Files that were not written yet are as they were.
    """
    require_home(home.name, home.uid, home.path)
    if home.group is not None and os.geteuid() != 0 and home.group not in (os.getegid(), *os.getgroups()):
        raise CaveError(
            f"{home.name} is not a member of the group with id {home.group}, and so cannot give files to it. "
            f"Make {home.name} a member (usermod -aG), then run this again."
        )
    session = _Session(home, home.places())
    try:
        with home.advice(), reporting(home.path, "work in"):
            return _save(session, wishes, check_mode)
    finally:
        session.close()


def _save(session: _Session, wishes: list[Wish], check_mode: bool) -> list[dict[str, Any]]:
    session.open()
    steps = session.think(wishes)
    if check_mode or not session.differs(steps):
        return session.results(wishes, steps)
    if any(wish.token for wish in wishes):
        session.open(session.home.directory_access)
    session.lock()
    steps = session.think(wishes)  # again: only under the lock is what was read what will be replaced
    session.carry_out(steps)
    session.read_back(steps)
    return session.results(wishes, steps)


class _Session:
    """The directories of one user, what was found in them, and what was done to them."""

    def __init__(self, home: Home, where: _readers.Places) -> None:
        self.home = home
        self.where = where
        self.paths = list(dict.fromkeys((where.caveclient, where.cloud_volume[0])))
        self.directories: dict[str, _directory.Directory] = {}
        self.missing: list[str] = []
        self.entries: dict[str, _files.Entry] = {}
        self.texts: dict[str, str] = {}
        self.malformed: dict[str, _files.Entry] = {}
        self.repairs: dict[str, tuple[str, Callable[[], None]]] = {}
        self.loose: dict[str, str] = {}
        self.unwanted: dict[str, str] = {}
        self.closed: list[str] = []

    def open(self, create: _directory.Access | None = None) -> None:
        """Open the directories that exist; make the others as ``create`` says."""
        owners = (self.home.uid, 0) if self.home.secrets_dir else (self.home.uid,)
        for path in self.paths:
            if path not in self.directories:
                directory, missing = _directory.open_directory(path, owners, create)
                self.missing += [item for item in missing if item not in self.missing]
                if directory is not None:
                    self.directories[path] = directory

    def lock(self) -> None:
        """Keep other runs out of all directories, in one order for all, so that two runs never wait for each other."""
        for path in sorted(self.directories):
            self.directories[path].lock()

    def close(self) -> None:
        """Let go of everything."""
        for directory in self.directories.values():
            directory.close()

    def think(self, wishes: list[Wish]) -> list[Plan]:
        """Read the files, and plan one wish after the other.

        Raises:
            CaveError: a file that must change is malformed, and shall not be replaced; or a directory is not writable.
        """
        self._read()
        steps: list[Plan] = []
        texts = self.texts
        for wish in wishes:
            steps.append(plan(texts, self.paths, wish))
            texts = steps[-1].texts
        concerned = {path for step in steps for path in step.reasons}
        self._look_for_unwanted(wishes, steps)
        self._look_for_malformed(concerned)
        if self.malformed and (self.home.on_malformed == "fail" or self._unmendable()):
            raise CaveError(self._complaint())
        self._look_for_repairs(concerned.difference(*(step.stale for step in steps)))
        for path in self._changed(steps):
            if len(texts.get(path, "").encode()) > _files.MAX_BYTES:
                raise CaveError(
                    f"With the token, {path} would be larger than {_files.MAX_BYTES // 1024} KiB, "
                    "which no file of tokens is. Take out of it what is no token, then run this again."
                )
            directory = self.directories.get(os.path.dirname(path))
            if directory is not None and not directory.is_writable():
                raise CaveError(
                    f"{directory.path} is not writable for {self.home.name}: its mode, its owner or a read-only mount "
                    "forbids it. Make it writable (chmod u+rwx, mount read-write), then run this again."
                )
        return steps

    def differs(self, steps: list[Plan]) -> bool:
        """Tell whether anything is to be written, repaired or removed."""
        return bool(self._changed(steps) or self.repairs)

    def carry_out(self, steps: list[Plan]) -> None:
        """Do what was planned, in an order in which a run that is killed can be completed by the next one."""
        for _reason, repair in self.repairs.values():
            repair()
        for path in self.unwanted:
            directory, name = os.path.split(path)
            self.directories[directory].remove(name)
        for path in self.malformed:
            directory, name = os.path.split(path)
            self.directories[directory].set_aside(name)
        wanted = steps[-1].texts
        for path in dict.fromkeys(path for step in steps for path in step.reasons):
            directory, name = os.path.split(path)
            if path in wanted and (wanted[path] != self.texts.get(path) or path in self.loose):
                mode = self._mode(path)
                self.directories[directory].write(name, wanted[path], mode, self.home.group)
            elif path not in wanted and path in self.texts:
                self.directories[directory].remove(name)

    def read_back(self, steps: list[Plan]) -> None:
        """See that the files are as planned.

        Raises:
            CaveError: a program that takes no lock wrote at the same time.
        """
        for path in dict.fromkeys(path for step in steps for path in step.reasons):
            directory, name = os.path.split(path)
            entry = self.directories[directory].read(name) if directory in self.directories else None
            if (entry.text if entry else None) != steps[-1].texts.get(path):
                raise CaveError(
                    f"Another program changed {path} while it was written. "
                    "Let nobody run save_token at the same time, then run this again."
                )

    def results(self, wishes: list[Wish], steps: list[Plan]) -> list[dict[str, Any]]:
        """Say, for every wish, what was done or would be done."""
        shared = []
        if any(wish.token for wish in wishes):
            mode = self.home.directory_access.mode
            reason = f"directory of secrets files, {mode:04o}"
            shared += [{"path": path, "action": "created", "reason": reason} for path in self.missing]
        shared += [
            {"path": path, "action": "repaired", "reason": reason} for path, (reason, _repair) in self.repairs.items()
        ]
        shared += [
            {"path": path, "action": "set_aside", "reason": f"it {entry.detail}"}
            for path, entry in self.malformed.items()
        ]
        shared += [{"path": path, "action": "removed", "reason": reason} for path, reason in self.unwanted.items()]
        closed = "closed to its user, so that nobody can tell whether it holds the token"
        shared += [{"path": path, "action": "unchanged", "reason": closed} for path in self.closed]
        elsewhere = _directory.listing(self.where, known=self.directories)
        results = []
        before = self.texts
        for wish, step in zip(wishes, steps):
            files, shared = shared, []
            lines: dict[str, list[str]] = {"before": [], "after": []}
            for item in files:
                item["path"] = _shown(item["path"])
                if item["action"] != "unchanged":
                    side = "after" if item["action"] == "created" else "before"
                    lines[side].append(f"{item['path']}: {item['reason']}")
            for path, why in step.reasons.items():
                if path not in before and path not in step.texts:
                    continue
                action = self._action(path, before, step)
                reason = f"{self.loose[path]}; {why}" if action == "repaired" else why
                files.append({"path": _shown(path), "action": action, "reason": reason})
                if action == "repaired":
                    lines["before"].append(f"{_shown(path)}: {self.loose[path]}")
                lines["before"] += _picture(path, before.get(path))
                lines["after"] += _picture(path, step.texts.get(path))
            previous = _readers.read_by_caveclient(
                {**elsewhere, **self._listing(before)}, self.where, wish.host, wish.key
            )
            now = {**elsewhere, **self._listing(step.texts)}
            readings = _readers.read_by_all(now, self.where, wish.host, wish.local_hosts, wish.key)
            results.append(
                {
                    "server": wish.server,
                    "changed": any(item["action"] not in ("unchanged", "stale") for item in files),
                    "files": files,
                    "fingerprint": _fingerprint(readings[0].token),
                    "previous_fingerprint": _fingerprint(previous.token),
                    "readers": {
                        f"{reading.reader} {reading.host}": _fingerprint(reading.token) for reading in readings
                    },
                    "diff": {side: "".join(f"{line}\n" for line in lines[side]) for side in lines},
                }
            )
            before = step.texts
        return results

    def _read(self) -> None:
        self.entries = {}
        for path, directory in self.directories.items():
            for name in directory.names():
                if name.endswith(".json"):
                    entry = directory.read(name)
                    if entry is not None:
                        self.entries[os.path.join(path, name)] = entry
        self.texts = {path: entry.text for path, entry in self.entries.items() if entry.text is not None}

    def _changed(self, steps: list[Plan]) -> set[str]:
        """Return the paths that are to be written or removed, or have to make room."""
        texts = steps[-1].texts
        written = {path for path in {*self.texts, *texts} if self.texts.get(path) != texts.get(path)}
        return written | set(self.malformed) | set(self.unwanted) | set(self.loose)

    def _unmendable(self) -> bool:
        """A file that its own user cannot read is not known to be malformed: it is never set aside."""
        return any(entry.problem == "unreadable" for entry in self.malformed.values())

    def _complaint(self) -> str:
        complaints = " ".join(f"{_shown(path)} {entry.detail}." for path, entry in sorted(self.malformed.items()))
        if self._unmendable():
            return (
                f"{complaints} Nothing was written. "
                f"Give the file to {self.home.name} (chown, chmod u+rw), then run this again."
            )
        return (
            f"{complaints} Nothing was written. Mend it by hand, or set on_malformed: replace, "
            "which keeps it beside the new file."
        )

    def _look_for_unwanted(self, wishes: list[Wish], steps: list[Plan]) -> None:
        """Find what runs that were killed left behind, and what else holds a token that shall be absent.

        The latter are files set aside, editors' backups and the like.
        """
        needles = [
            token.encode("utf-8", "surrogatepass")
            for wish, step in zip(wishes, steps)
            if wish.token is None and wish.stale == "update"
            for token in step.replaced
        ]
        self.unwanted, self.closed = {}, []
        for folder, directory in self.directories.items():
            for name in directory.names():
                path = os.path.join(folder, name)
                if _directory.TEMPORARY.fullmatch(name):
                    self.unwanted[path] = "left by a run that was killed"
                elif needles and self._may_be_copy(path):
                    is_copy = directory.holds(name, needles)
                    if is_copy:
                        self.unwanted[path] = "a copy that held the token"
                    elif is_copy is None:
                        self.closed.append(path)

    def _may_be_copy(self, path: str) -> bool:
        return path not in self.texts and (path not in self.entries or self.entries[path].problem != "unreadable")

    def _look_for_malformed(self, concerned: set[str]) -> None:
        """Find the malformed files that stand in the way.

        Those are the files to be written, those that hold a token which shall be absent, and secrets files that are
        closed to their own user, for nothing tells which tokens are in them.
        """
        self.malformed = {}
        for path, entry in self.entries.items():
            is_secrets_file = path in concerned or _files.is_secrets_file(os.path.basename(path))
            if entry.problem is None or not is_secrets_file:
                continue
            if path in self.unwanted and self.home.on_malformed == "fail":
                del self.unwanted[path]
                self.malformed[path] = entry
            elif path not in self.unwanted and (path in concerned or entry.problem == "unreadable"):
                self.malformed[path] = entry

    def _look_for_repairs(self, concerned: set[str]) -> None:
        access = self.home.directory_access
        self.repairs = {}
        for path, directory in self.directories.items():
            flaw = directory.flaw(access)
            if flaw:
                self.repairs[path] = (flaw, _repair_of(directory, access))
            # The other directories lie where several people may work on purpose.
            if path == os.path.join(self.home.path, ".cloudvolume", "secrets") and directory.parent_is_open_to_others():
                self.repairs[os.path.dirname(path)] = ("others could replace what is in it", directory.repair_parent)
        flaws = {path: self._flaw(path) for path in concerned if path in self.texts}
        self.loose = {path: flaw for path, flaw in flaws.items() if flaw}

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
        return f"had {', '.join(flaws)}" if flaws else ""

    def _mode(self, path: str) -> int:
        if os.path.basename(path) == _files.SERVER_MAP and path in self.entries:
            return self.entries[path].mode & 0o666
        return self.home.mode

    def _action(self, path: str, before: dict[str, str], step: Plan) -> str:
        if path in step.stale:
            return "stale"
        if path not in step.texts:
            return "removed"
        if path not in before:
            return "created"
        if before[path] != step.texts[path]:
            return "updated"
        return "repaired" if path in self.loose else "unchanged"

    def _listing(self, texts: dict[str, str]) -> dict[str, _files.Entry]:
        """Return the files as the readers would find them once ``texts`` are written."""
        listing = {
            path: entry
            for path, entry in self.entries.items()
            if entry.text is None and path not in self.malformed and path not in self.unwanted
        }
        for path, text in texts.items():
            listing[path] = _files.Entry(self.home.mode, self.home.uid, -1, True, text, None, "")
        return listing


def _repair_of(directory: _directory.Directory, access: _directory.Access) -> Callable[[], None]:
    return lambda: directory.repair(access)


def _fingerprint(token: Any) -> str | None:
    return fingerprint(token) if isinstance(token, str) and token else None


def _shown(path: str) -> str:
    """Return a path as it is shown: what a user made up for a name shall not command a terminal."""
    return path if path.isprintable() else json.dumps(path)


def _picture(path: str, text: str | None) -> list[str]:
    """Describe a file for a diff: the server map in clear, a secrets file by its keys and fingerprints."""
    if text is None:
        return []
    is_map = os.path.basename(path) == _files.SERVER_MAP
    lines = []
    for key, value in _files.values(text).items():
        content = value if is_map and "://" in str(value) else _fingerprint(value)
        lines.append(f"{_shown(path)}: {json.dumps(key)}: {json.dumps(content)}")
    return lines
