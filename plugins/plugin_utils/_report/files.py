# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a report: its data, its page, its JUnit form, and the hosts that are pending."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._private_files import (
    make_private_folder,
    remove_file,
    replace_link,
    require_plain_file,
    write_private,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import model as _model
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import text as _text
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.html import to_html
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.junit import to_junit


class Files:
    """The files of a report: where they are, and what goes into them."""

    def __init__(self, options: Mapping[str, Any], rotation: bool = False) -> None:
        self._rotation = rotation
        self._has_page = False
        self._folder = Path(options["dest"]) if options["dest"] else None
        self._junit = Path(options["junit"]) if options["junit"] else None
        if options["pending"]:
            self._pending: Path | None = Path(options["pending"])
        else:
            self._pending = self._folder / "pending" if self._folder else None

    @property
    def page(self) -> str:
        """Path of the page that was written, or an empty string."""
        return str(self._folder / "report.html") if self._folder and self._has_page else ""

    @property
    def pending(self) -> str:
        """Path of the file with the hosts that are not done, or an empty string."""
        return str(self._pending) if self._pending else ""

    def named(self, report: Mapping[str, Any]) -> dict[str, str]:
        """Return the paths of the files that are (or in check mode: would be) written."""
        files = {}
        if self._folder:
            files = {"json": str(self._folder / "report.json"), "html": str(self._folder / "report.html")}
        if self._junit:
            files["junit"] = str(self._junit)
        if self._pending and _model.hosts_in(report, "failed", "pending"):
            files["pending"] = self.pending
        return files

    def write(self, report: Mapping[str, Any], known: Collection[str]) -> list[str]:
        """Write them all, and return a sentence for each that could not be written.

        ``known`` are the hosts of the inventory, also those that this run left out.
        """
        writers: list[Callable[[], None]] = []
        if self._folder:
            writers.append(partial(self._write_pages, self._folder, report))
        if self._junit:
            writers.append(partial(_write, self._junit, to_junit(report)))
        if self._pending and not nothing_ran(report):  # or else the lists of an earlier run are still right
            writers.append(partial(self._write_pending, self._pending, report, known))
            if self._rotation:
                writers.append(partial(self._write_pending, _of_rotation(self._pending), report, known))
        return list(dict.fromkeys(filter(None, map(_message_of, writers))))

    def _write_pages(self, folder: Path, report: Mapping[str, Any]) -> None:
        """Write the report, and keep it under its date as well; the link ``latest`` leads to the newest."""
        stamp = (report["time"] or _model.utc(datetime.now(tz=timezone.utc))).replace(":", "-")
        kept = folder / f"{stamp}-{re.sub(r'[^A-Za-z0-9_]+', '-', report['title'])[:40]}"
        for name, form in (("report.json", _model.to_json), ("report.html", to_html)):
            content = form(report)
            for place in (folder, kept):
                _write(place / name, content)
        self._has_page = True
        replace_link(folder / "latest", kept.name)

    def left_of_rotation(self) -> list[str]:
        """Return a note on the hosts that a rotation has left, which that alone can finish."""
        left: list[str] = []
        with contextlib.suppress(CaveError):  # writing it says so
            left = _names_in(_of_rotation(self._pending)) if self._pending else []
        if not left:
            return []
        command = f"ansible-playbook connectomics.cave.rotate --limit @{self._pending}"
        return [f"A rotation is not finished on {_text.shortened(left, 8)}. Finish it with its own options: {command}"]

    def _write_pending(self, path: Path, report: Mapping[str, Any], known: Collection[str]) -> None:
        """Write the hosts that are not done, one a line.

        Those of an earlier run that this one left out stay in it, and those of a rotation until a rotation is done with
        them: a host on which the old token works is fine for everybody else.
        """
        hosts = report["hosts"]
        if self._rotation:  # of some people, it has nothing to say of the hosts of others
            hosts = [host for host in hosts if host["users"] or host["state"] != "ok"]
        left_out = set(known) - {host["name"] for host in hosts}
        waiting = {*_model.hosts_in(report, "failed", "pending"), *(set(_names_in(path)) & left_out)}
        if not self._rotation:
            waiting |= {name for name in _names_in(_of_rotation(path)) if not known or name in known}
        if not waiting:
            remove_file(path)
            return
        _write(path, "".join(f"{name}\n" for name in sorted(waiting, key=_model.natural_key)).encode("utf-8"))


def nothing_ran(report: Mapping[str, Any]) -> bool:
    problems = [host["problem"] for host in report["hosts"]]
    return bool(problems) and all(problem and problem["verdict"] == "not_run" for problem in problems)


def _of_rotation(pending: Path) -> Path:
    """Return where the hosts stand that a rotation has left."""
    return pending.with_name(f"{pending.name}.rotate")


def _names_in(path: Path) -> list[str]:
    """Return the hosts in a file, one a line. Raises CaveError."""
    require_plain_file(path)
    try:
        return [name for name in map(str.strip, path.read_text(encoding="utf-8").splitlines()) if name]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise CaveError(f"{path} cannot be read: {error}. Remove it, or name another file.") from error


def _message_of(work: Callable[[], None]) -> str:
    """Do some work, and return why it failed; empty when it did not."""
    try:
        work()
    except CaveError as error:
        return error.message
    return ""


def _write(path: Path, content: bytes) -> None:
    make_private_folder(path.parent)
    write_private(path, content)
