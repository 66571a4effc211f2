# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks on what is written on the controller: the vault file, and the reports."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ansible.parsing.vault import VaultLib, VaultSecret
from homes import NEW_TOKEN, OLD_TOKEN, OTHER_TOKEN
from report_samples import fleet, report_of
from torture.attacks import Report, Short, attack
from torture.tracing import CALLS, Traced, failing_at, killed_at, modes_given, points, traced
from torture.write_path import ERRORS, scratch, thinned

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.files import Files
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import file as vault_file

DEFAULT, LAB = ("default", VaultSecret(b"correct horse")), ("lab", VaultSecret(b"battery staple"))
SECRETS = [DEFAULT, LAB]
ALICE, BOB = ("vault_cave_token_alice",), ("vault_cave_tokens", "bob")


@dataclass(frozen=True)
class Scene:
    """Something that writes files into a folder, and how to read what came of it.

    Attributes:
        name: for notes.
        make: fills the empty folder with what is there before.
        act: writes.
        read: what the files mean, comparable; raises when they mean nothing.
        allowed: the bits of a mode that others may have, since they were asked for.
    """

    name: str
    make: Callable[[Path], None]
    act: Callable[[Path], Any]
    read: Callable[[Path], object]
    allowed: int = 0

    @contextmanager
    def folder(self, above: Path) -> Iterator[Path]:
        """Give the folder as it is before."""
        place = above / self.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        self.make(place)
        yield place

    def ends(self, above: Path) -> tuple[object, object, list[str]]:
        """Return what is read before and after, and the names of all that is there after."""
        with self.folder(above) as place:
            before = self.read(place)
            self.act(place)
            return before, self.read(place), names(place)


def names(place: Path) -> list[str]:
    """Return the paths of all that is in a folder."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


# The vault file -------------------------------------------------------------------------------------------------------


def _vaulted(text: str, secret: tuple[str, VaultSecret] = DEFAULT) -> str:
    vault_id = None if secret is DEFAULT else secret[0]
    return str(VaultLib().encrypt(text, secret[1], vault_id=vault_id).decode())


def _inline(name: str, value: str) -> str:
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in _vaulted(value).splitlines())


def _file(text: str, mode: int = 0o600, name: str = "vault.yml") -> Callable[[Path], None]:
    def make(place: Path) -> None:
        (place / name).write_text(text)
        (place / name).chmod(mode)

    return make


def _linked(place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    _file(_inline(ALICE[0], OLD_TOKEN), name="elsewhere/real.yml")(place)
    (place / "vault.yml").symlink_to("elsewhere/real.yml")


def _nothing(place: Path) -> None:
    """Leave the folder empty."""


def _set(variable: tuple[str, ...] = ALICE, **options: Any) -> Callable[[Path], Any]:
    def act(place: Path) -> None:
        vault_file.set_variable(str(place / "vault.yml"), variable, NEW_TOKEN, SECRETS, vault_id="default", **options)

    return act


def _remove(place: Path) -> None:
    vault_file.remove_variable(str(place / "vault.yml"), ALICE, SECRETS)


def _variables(place: Path) -> object:
    path = place / "vault.yml"
    return vault_file.read_variables(str(path), SECRETS) if path.exists() else None


_TOKENS_INLINE = "# tokens\n" + _inline(ALICE[0], OLD_TOKEN) + "other: 1   # kept\n"
_TOKENS_WHOLE = _vaulted(f"# tokens\n{ALICE[0]}: {OLD_TOKEN}  # hers\n{BOB[0]}:\n  bob: {OTHER_TOKEN}\n", LAB)
VAULTS = tuple(
    Scene(name, make, act, _variables, allowed)
    for name, make, act, allowed in (
        ("vault-string", _file(_TOKENS_INLINE), _set(), 0),
        ("vault-string-added", _file(_TOKENS_INLINE), _set(BOB), 0),
        ("vault-string-removed", _file(_TOKENS_INLINE), _remove, 0),
        ("vault-whole", _file(_TOKENS_WHOLE), _set(), 0),
        ("vault-whole-removed", _file(_TOKENS_WHOLE), _remove, 0),
        ("vault-new", _nothing, _set(), 0),
        ("vault-new-whole", _nothing, _set(new_format="file"), 0),
        ("vault-linked", _linked, _set(), 0),
        ("vault-readable-by-all", _file(_TOKENS_INLINE, mode=0o644), _set(), 0),
        ("vault-of-a-group", _file(_TOKENS_INLINE, mode=0o660), _set(mode=0o660), 0o060),
        ("vault-plain", _file(f"{ALICE[0]}: {OLD_TOKEN}\n"), _set(), 0),
    )
)


# The reports ----------------------------------------------------------------------------------------------------------

_OLD_REPORT, _NEW_REPORT = report_of(fleet(2)), report_of(fleet(5))
_REPORTS = ("of/today/report.json", "of/today/report.html", "ci/junit.xml", "to/do/hosts")


def _write_reports(report: dict[str, Any], place: Path) -> None:
    json_and_html, _html, junit, pending = (str(place / name) for name in _REPORTS)
    options = {"dest": os.path.dirname(json_and_html), "junit": junit, "pending": pending}
    if unwritten := Files(options).write(report, known=()):
        raise CaveError(" ".join(unwritten))


def _contents(place: Path) -> object:
    return {name: (place / name).read_bytes() if (place / name).exists() else None for name in _REPORTS}


REPORTS = (
    Scene("reports-new", _nothing, partial(_write_reports, _NEW_REPORT), _contents),
    Scene("reports-again", partial(_write_reports, _OLD_REPORT), partial(_write_reports, _NEW_REPORT), _contents),
)
SCENES = (*VAULTS, *REPORTS)


# The attacks ----------------------------------------------------------------------------------------------------------


def _each_is_one_of(found: Any, *expected: Any) -> bool:
    """Return whether each part of what was found (a report's files, a vault's variables) is as in one of the others."""
    if all(isinstance(item, dict) for item in (found, *expected)) and set(_REPORTS) == set(found):
        return all(found[name] in [item[name] for item in expected] for name in found)
    return found in expected


def _in_clear(place: Path, before: Sequence[bytes] = ()) -> list[str]:
    """Return the files in which a token can be read."""
    tokens = [token.encode() for token in (OLD_TOKEN, NEW_TOKEN, OTHER_TOKEN)]
    contents = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return [path.name for path, raw in contents.items() if raw not in before and any(token in raw for token in tokens)]


def _too_wide(scene: Scene, trace: Traced, place: Path) -> Iterator[tuple[str, int]]:
    """Yield what was made, or given a mode, or is there now, with the bits that it should not have."""
    for call, mode in modes_given(trace.calls):
        yield call, mode & 0o077 & ~scene.allowed
    for path in place.rglob("*"):
        if not path.is_symlink():
            yield str(path), stat.S_IMODE(path.lstat().st_mode) & 0o077 & ~scene.allowed


@attack(
    "never-readable-controller",
    "The vault file and the reports are never readable by others, not for an instant",
    "the system calls of every kind of write, under umask 000: no file or directory is made wider than 0600 or 0700",
    fewest=60,
    short=Short(1.0, 60),
    needs=["strace"],
)
def never_readable_by_others(report: Report, scale: float) -> None:
    """Read from the system calls whether there is a moment at which others could read."""
    with scratch() as above:
        for scene in SCENES:
            with scene.folder(above) as place:
                before = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
                trace = traced(partial(scene.act, place), "-e", f"trace={CALLS}", umask=0)
                report.check(bool(trace.answer) and "result" in (trace.answer or {}), f"{scene.name}: {trace.answer}")
                for what, wide in _too_wide(scene, trace, place):
                    report.tries += 1
                    report.check(not wide, f"{scene.name}: {what}")
                written = "\n".join(call for call in trace.calls if re.search(r" (?:p?write|writev)\w*\(", call))
                report.check(
                    scene in REPORTS or not any(token in written for token in (OLD_TOKEN, NEW_TOKEN, OTHER_TOKEN)),
                    f"{scene.name}: a token is written in clear",
                )
                report.check(not _in_clear(place, before), f"{scene.name}: {_in_clear(place, before)}")


def _after(report: Report, scene: Scene, place: Path, where: str, expected: tuple[object, object, list[str]]) -> None:
    """Look at what a disturbed run left, and run it again."""
    before, after, finally_there = expected
    try:
        found = scene.read(place)
    except (CaveError, OSError, ValueError) as error:
        report.check(False, f"{where}: cannot be read: {error}")
        return
    report.check(_each_is_one_of(found, before, after), f"{where}: neither old nor new: {found!r}")
    try:
        scene.act(place)
    except CaveError as error:
        report.check(False, f"{where}: the next run fails: {error.message}")
        return
    report.check(scene.read(place) == after, f"{where}: the next run ends otherwise")
    report.check(names(place) == finally_there, f"{where}: stays: {set(names(place)) - set(finally_there)}")


@attack(
    "kill-controller",
    "The vault file and the reports are the old or the new ones, whole, and the next run cleans up",
    "SIGKILL at every system call of every kind of write",
    fewest=300,
    short=Short(0.05, 15),
    needs=["strace"],
)
def killed_anywhere(report: Report, scale: float) -> None:
    """Kill a write at each of its system calls, look at what is left, and run it again."""
    with scratch() as above:
        for scene in SCENES:
            expected = scene.ends(above)
            with scene.folder(above) as place:
                found = thinned(points(partial(scene.act, place)), scale)
            for point in found:
                with scene.folder(above) as place:
                    before = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
                    trace = killed_at(point, partial(scene.act, place))
                    report.tries += 1
                    where = f"{scene.name}, {point}"
                    report.check(trace.answer is None, f"{where}: not killed: {trace.answer}")
                    report.check(not _in_clear(place, before), f"{where}: in clear: {_in_clear(place, before)}")
                    _after(report, scene, place, where, expected)


@attack(
    "faults-controller",
    "A fault on the controller leaves the vault file and the reports whole, no litter, and a clear error",
    f"{', '.join(ERRORS)} at every system call of every kind of write",
    fewest=3000,
    short=Short(0.005, 10),
    needs=["strace"],
)
def faults_anywhere(report: Report, scale: float) -> None:
    """Let each system call of a write fail with each error."""
    ends: Counter[str] = Counter()
    with scratch() as above:
        for scene in SCENES:
            expected = scene.ends(above)
            with scene.folder(above) as place:
                calls = [point for point in points(partial(scene.act, place)) if point.can_fail]
            for point, error in thinned(list(itertools.product(calls, ERRORS)), scale):
                with scene.folder(above) as place:
                    here = {*names(place), *expected[2]}
                    trace = failing_at(point, error, partial(scene.act, place))
                    where = f"{scene.name}, {error} at {point}"
                    if not trace.injected:
                        report.check(False, f"{where}: did not happen")
                        continue
                    report.tries += 1
                    answer = trace.answer or {"raised": "no answer"}
                    ends[next(iter(answer))] += 1
                    report.check("raised" not in answer, f"{where}: {answer.get('raised')}")
                    told = answer.get("error", "/ .")
                    report.check("/" in told and told.endswith("."), f"{where}: {told}")
                    report.check(not set(names(place)) - here, f"{where}: stays: {set(names(place)) - here}")
                    _after(report, scene, place, where, expected)
    report.counts = dict(ends)
