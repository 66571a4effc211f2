# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of a change of secrets files: no token, only fingerprints."""

from __future__ import annotations

import json
import os.path
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._masking import (
    fingerprint,
    mask_credentials,
    mask_token_like,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Share
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request


class Outcome(NamedTuple):
    """The files of a user, before and after."""

    home: Home
    where: _readers.Places
    before: Mapping[str, str]
    """Path -> content of each sound file."""
    after: Mapping[str, str]
    loose: Mapping[str, str]
    """Path -> what was wrong with a file's mode or owner."""
    others: Mapping[str, _files.Entry]
    """What else the readers find."""

    def result(self, request: Request, share: Share, shared: list[dict[str, str]]) -> dict[str, Any]:
        """Return what was done for a request.

        Args:
            request: the request.
            share: what it has to do with the files.
            shared: items of ``files`` about what was done for several requests together.

        Returns:
            ``server``, ``changed``, ``files`` (path, action, reason), ``fingerprint``, ``previous_fingerprint``,
            ``previous_fingerprints``, ``readers`` (what each reader sends now), ``diff``, and ``previous_token``, which
            the caller takes out.
        """
        files = list(shared)
        for path, reason in share.reasons.items():
            if path in self.before or path in self.after:
                action = self._action(path, share)
                flaw = f"{self.loose[path]}; " if action == "repaired" else ""
                files.append({"path": path, "action": action, "reason": flaw + reason})
        told = {item["path"] for item in files}
        files += [
            {"path": path, "action": "stale", "reason": reason}
            for path, reason in share.stale.items()
            if path not in told
        ]
        previous = _readers.read_by_caveclient(self._listing(self.before), self.where, request.host, request.key)
        now = _readers.read_by_all(
            self._listing(self.after), self.where, request.host, request.local_hosts, request.key
        )
        return {
            "server": request.server,
            "changed": any(item["action"] not in ("unchanged", "stale") for item in files),
            "files": [{**item, "path": shown(item["path"])} for item in files],
            "fingerprint": _fingerprint(now[0].token),
            "previous_fingerprint": _fingerprint(previous.token),
            "previous_fingerprints": sorted(fingerprint(token) for token in share.replaced),
            "readers": {f"{reading.reader} {reading.host}": _fingerprint(reading.token) for reading in now},
            "diff": self._diff(files),
            "previous_token": previous.token if isinstance(previous.token, str) else None,
        }

    def _action(self, path: str, share: Share) -> str:
        if path in share.changed:
            if path not in self.after:
                return "removed"
            return "updated" if path in self.before else "created"
        return "repaired" if path in self.loose else "unchanged"

    def _diff(self, files: list[dict[str, str]]) -> dict[str, str]:
        before, after = [], []
        for item in files:
            path, action = item["path"], item["action"]
            if path in self.before or path in self.after:
                if action == "repaired":
                    before.append(f"{shown(path)}: {self.loose[path]}")
                if action != "stale":
                    before += _picture(path, self.before.get(path))
                    after += _picture(path, self.after.get(path))
            elif action not in ("unchanged", "stale"):
                (after if action == "created" else before).append(f"{shown(path)}: {item['reason']}")
        return {"before": "".join(f"{line}\n" for line in before), "after": "".join(f"{line}\n" for line in after)}

    def _listing(self, texts: Mapping[str, str]) -> dict[str, _files.Entry]:
        """Return the files as the readers find them when ``texts`` are there."""
        found = {
            path: _files.Entry(self.home.mode, self.home.uid, -1, True, text, None, "") for path, text in texts.items()
        }
        return {**self.others, **found}


def shown(path: str) -> str:
    """Return a path as it is shown: what a user made up for a name must not command a terminal."""
    return path if path.isprintable() else json.dumps(path)


def _fingerprint(token: Any) -> str | None:
    return fingerprint(token) if isinstance(token, str) and token else None


def _picture(path: str, text: str | None) -> list[str]:
    """Describe a file for a diff: the server map in clear, a secrets file by its keys and fingerprints."""
    if text is None:
        return []
    is_map = os.path.basename(path) == _files.SERVER_MAP
    lines = []
    for key, value in _files.values(text).items():
        is_address = is_map and "://" in str(value)
        content = mask_token_like(mask_credentials(str(value))) if is_address else _fingerprint(value)
        lines.append(f"{shown(path)}: {json.dumps(key)}: {json.dumps(content)}")
    return lines
