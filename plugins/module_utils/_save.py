# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing the secrets files of one user, to be called in a process that is that user."""

from __future__ import annotations

import os
import os.path
from typing import Any, Callable

from ansible_collections.connectomics.cave.plugins.module_utils import _readers, _secrets, _store
from ansible_collections.connectomics.cave.plugins.module_utils._coherence import Plan, Wish, plan
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._home import Home
from ansible_collections.connectomics.cave.plugins.module_utils._tokens import fingerprint


def save(home: Home, wishes: list[Wish], check_mode: bool) -> list[dict[str, Any]]:
    """Make the user's secrets files hold what ``wishes`` ask for; to be called in a process that is that user.

    Returns:
        One result a wish: ``changed``, ``files`` (path, action, reason), ``fingerprint``, ``previous_fingerprint``,
        ``readers`` (what each reader sends now), ``diff``. No token is in it.

    Raises:
        CaveError: it cannot be done. Files that were not written yet are as they were.
    """
    if not os.path.isdir(home.path):
        raise CaveError(
            f"The home directory of {home.name}, {home.path}, does not exist on this host. Create or mount it, then run this again."
        )
    where = home.places()
    paths = list(dict.fromkeys((where.caveclient, where.cloud_volume[0])))
    session = _Session(home, paths, where)
    try:
        session.open(create=False)
        steps = session.think(wishes)
        if check_mode or not session.differs(steps):
            return session.results(wishes, steps)
        session.open(create=any(wish.token for wish in wishes))
        session.lock()
        steps = session.think(wishes)  # again: only under the lock is what was read what will be replaced
        session.carry_out(steps)
        session.read_back(steps)
        return session.results(wishes, steps)
    finally:
        session.close()


class _Session:
    """The directories of one user, what was found in them, and what was done to them."""

    def __init__(self, home: Home, paths: list[str], where: _readers.Places) -> None:
        self.home = home
        self.paths = paths
        self.where = where
        self.directories: dict[str, _store.Directory] = {}
        self.missing: list[str] = []
        self.entries: dict[str, _secrets.Entry] = {}
        self.texts: dict[str, str] = {}
        self.malformed: dict[str, _secrets.Entry] = {}
        self.repairs: dict[str, tuple[str, Callable[[], None]]] = {}
        self.loose: dict[str, str] = {}
        self.copies: list[str] = []

    def open(self, create: bool) -> None:
        """Open the directories that exist; make the others if ``create``."""
        owners = (self.home.uid, 0) if self.home.secrets_dir else (self.home.uid,)
        missing = []
        for path in self.paths:
            if path not in self.directories:
                directory, made = _store.open_directory(path, create, owners)
                missing += made
                if directory is not None:
                    self.directories[path] = directory
        self.missing = list(dict.fromkeys(self.missing + missing))

    def lock(self) -> None:
        """Keep other runs out of all directories, in one order for all, so that two runs never wait for each other."""
        for path in sorted(self.directories):
            self.directories[path].lock()
            self.directories[path].remove_leftovers()

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
        self.malformed = {
            path: entry for path, entry in self.entries.items() if entry.problem is not None and path in concerned
        }
        if self.malformed and (self.home.on_malformed == "fail" or self._unmendable()):
            raise CaveError(self._complaint(), malformed=sorted(self.malformed))
        self._look_for_repairs(concerned)
        self._look_for_copies(wishes, steps)
        if self.differs(steps):
            for path, directory in self.directories.items():
                if self._changes_in(path, steps) and not directory.is_writable():
                    raise CaveError(
                        f"{path} is not writable for {self.home.name} (mode {directory.mode():04o}, or a read-only file system). "
                        "Make it writable (chmod u+rwx, mount read-write), then run this again."
                    )
        return steps

    def differs(self, steps: list[Plan]) -> bool:
        """Tell whether anything is to be written, repaired or removed."""
        return bool(steps[-1].texts != self.texts or self.repairs or self.loose or self.malformed or self.copies)

    def carry_out(self, steps: list[Plan]) -> None:
        """Do what was planned: server files first, the file for all servers after them."""
        for _reason, repair in self.repairs.values():
            repair()
        for path in self.malformed:
            directory, name = os.path.split(path)
            self.directories[directory].set_aside(name)
        wanted = steps[-1].texts
        for path in dict.fromkeys(path for step in steps for path in step.reasons):
            directory, name = os.path.split(path)
            if path in wanted and (wanted[path] != self.texts.get(path) or path in self.loose):
                self.directories[directory].write(name, wanted[path], self._mode(path), self._group(path))
            elif path not in wanted and path in self.texts:
                self.directories[directory].remove(name)
        for path in self.copies:
            directory, name = os.path.split(path)
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
        shared = [
            {"path": path, "action": "created", "reason": "directory of secrets files, 0700"} for path in self.missing
        ]
        if not self.differs(steps):
            shared = []
        shared += [
            {"path": path, "action": "repaired", "reason": reason} for path, (reason, _repair) in self.repairs.items()
        ]
        shared += [
            {"path": path, "action": "set_aside", "reason": f"it {entry.detail}"}
            for path, entry in self.malformed.items()
        ]
        shared += [{"path": path, "action": "removed", "reason": "a copy that held the token"} for path in self.copies]
        results = []
        before = self.texts
        for wish, step in zip(wishes, steps):
            files, shared = shared, []
            lines: dict[str, list[str]] = {"before": [], "after": []}
            for path, reason in step.reasons.items():
                action = self._action(path, before, step)
                if action == "repaired":
                    reason = f"{self.loose[path]}; {reason}"
                files.append({"path": path, "action": action, "reason": reason})
                lines["before"] += _picture(path, before.get(path))
                lines["after"] += _picture(path, step.texts.get(path))
            old = self._sent(before, wish)
            readings = _readers.read_by_all(
                self._listing(step.texts), self.where, wish.host, wish.local_hosts, wish.key
            )
            results.append(
                {
                    "server": wish.server,
                    "changed": any(item["action"] not in ("unchanged", "stale") for item in files),
                    "files": files,
                    "fingerprint": _fingerprint(readings[0].token),
                    "previous_fingerprint": _fingerprint(old),
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
                if _secrets.is_secrets_file(name) or name.endswith(".json"):
                    entry = directory.read(name)
                    if entry is not None:
                        self.entries[os.path.join(path, name)] = entry
        self.texts = {path: entry.text for path, entry in self.entries.items() if entry.text is not None}

    def _unmendable(self) -> bool:
        """A file that its own user cannot read is not known to be malformed: it is never set aside."""
        return any(entry.problem == "unreadable" for entry in self.malformed.values())

    def _complaint(self) -> str:
        complaints = " ".join(f"{path} {entry.detail}." for path, entry in sorted(self.malformed.items()))
        if self._unmendable():
            return f"{complaints} Nothing was written. Give the file to {self.home.name} (chown, chmod u+rw), then run this again."
        return (
            f"{complaints} Nothing was written. Mend it by hand, or set on_malformed: replace, "
            "which keeps it beside the new file."
        )

    def _look_for_repairs(self, concerned: set[str]) -> None:
        self.repairs = {}
        for path, directory in self.directories.items():
            if directory.mode() & 0o777 & ~self.home.directory_mode:
                reason = f"mode {directory.mode():04o} let others in"
                self.repairs[path] = (reason, self._repair_of(directory))
            if not self.home.secrets_dir and directory.parent_is_open_to_others():
                parent = os.path.dirname(path)
                self.repairs[parent] = ("others could replace what is in it", directory.repair_parent)
        self.loose = {
            path: "had mode %04o, user id %d, group id %d" % self.entries[path][:3]
            for path in concerned
            if path in self.texts and self._is_loose(path)
        }

    def _repair_of(self, directory: _store.Directory) -> Callable[[], None]:
        return lambda: directory.repair(directory.mode() & self.home.directory_mode)

    def _look_for_copies(self, wishes: list[Wish], steps: list[Plan]) -> None:
        """Find what else in the directories holds a token that shall be absent: set-aside files, editors' backups."""
        needles = [
            token.encode()
            for wish, step in zip(wishes, steps)
            if wish.token is None and wish.stale == "update"
            for token in step.replaced
        ]
        self.copies = [
            os.path.join(path, name)
            for path, directory in self.directories.items()
            if needles
            for name in directory.names()
            if os.path.join(path, name) not in self.texts and directory.holds(name, needles)
        ]

    def _changes_in(self, directory: str, steps: list[Plan]) -> bool:
        changed = {
            path for path in {*self.texts, *steps[-1].texts} if self.texts.get(path) != steps[-1].texts.get(path)
        }
        changed |= set(self.malformed) | set(self.copies) | set(self.loose)
        return any(os.path.dirname(path) == directory for path in changed)

    def _mode(self, path: str) -> int:
        if os.path.basename(path) == _secrets.SERVER_MAP and path in self.entries:
            return self.entries[path].mode & 0o666
        return self.home.mode

    def _group(self, path: str) -> int | None:
        return None if os.path.basename(path) == _secrets.SERVER_MAP else self.home.group

    def _is_loose(self, path: str) -> bool:
        """Tell whether a file's mode, owner or group lets somebody in who should stay out. The server map is no secret."""
        entry = self.entries.get(path)
        if entry is None or os.path.basename(path) == _secrets.SERVER_MAP:
            return False
        wrong_group = self.home.group is not None and entry.gid != self.home.group
        return bool(entry.mode & ~self.home.mode) or entry.uid != self.home.uid or wrong_group

    def _action(self, path: str, before: dict[str, str], step: Plan) -> str:
        if path in step.stale:
            return "stale"
        if path not in step.texts:
            return "removed" if path in before else "unchanged"
        if path not in before:
            return "created"
        if before[path] != step.texts[path]:
            return "updated"
        return "repaired" if path in self.loose else "unchanged"

    def _listing(self, texts: dict[str, str]) -> dict[str, _secrets.Entry]:
        """Return the files as the readers would find them once ``texts`` are written."""
        listing = {
            path: entry for path, entry in self.entries.items() if entry.text is None and path not in self.malformed
        }
        for path, text in texts.items():
            listing[path] = _secrets.Entry(self.home.mode, self.home.uid, -1, True, text, None, "")
        return listing

    def _sent(self, texts: dict[str, str], wish: Wish) -> Any:
        return _readers.read_by_caveclient(self._listing(texts), self.where, wish.host, wish.key).token


def _fingerprint(token: Any) -> str | None:
    return fingerprint(token) if isinstance(token, str) and token else None


def _picture(path: str, text: str | None) -> list[str]:
    """Describe a file for a diff: the server map in clear, a secrets file by its keys and fingerprints."""
    if text is None:
        return []
    is_map = os.path.basename(path) == _secrets.SERVER_MAP
    return [
        "{}: {} = {}".format(path, key, value if is_map and "://" in str(value) else _fingerprint(value))
        for key, value in _secrets.values(text).items()
    ]
