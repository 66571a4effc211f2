# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caveclient environment holds, and whether that is what was asked for.

Reading alone: whoever asks for what is there already gets the answer from a few small files, without a process.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._atomic import replace_file
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import (
    Request,
    name_of,
    normal_name,
)

RECORD = "caveclient-build.json"
"""The file that is written last into a finished environment, and says what was asked for and what came of it."""


def installed_packages(site_packages: Path) -> dict[str, str]:
    """Return name and version of every package whose metadata lies in a folder.

    An installation that was cut short has no RECORD yet, and does not count.
    """
    found = {}
    try:
        entries = os.listdir(site_packages)
    except OSError:
        return {}
    for entry in entries:
        stem, _dot, kind = entry.rpartition(".")
        name, _dash, version = stem.partition("-")
        if kind == "egg-info":
            version = re.sub(r"-py\d.*$", "", version)
        elif kind != "dist-info" or (normal_name(name) == "caveclient" and not _is_whole(site_packages / entry)):
            continue
        if name and version:
            found[normal_name(name)] = version
    return found


def _is_whole(metadata: Path) -> bool:
    # conda writes no RECORD, but an INSTALLER
    return (metadata / "RECORD").is_file() or (metadata / "INSTALLER").is_file()


def provided_extras(site_packages: Path) -> set[str]:
    """Return the extras that the installed caveclient has."""
    for entry in site_packages.glob("[cC][aA][vV][eE][cC][lL][iI][eE][nN][tT]-*-info"):
        for name in ("METADATA", "PKG-INFO"):
            try:
                text = (entry / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            found = re.findall(r"^Provides-Extra:\s*(\S+)\s*$", text.partition("\n\n")[0], re.MULTILINE)
            return {normal_name(extra) for extra in found}
    return set()


def site_packages_of(prefix: Path, python: str) -> Path:
    """Return the folder in which an environment's packages are.

    Args:
        prefix: the environment.
        python: the version of its Python, at least the first two numbers.
    """
    return prefix / "lib" / ("python" + ".".join(python.split(".")[:2])) / "site-packages"


def read_record(prefix: Path) -> dict[str, Any]:
    """Return the record of a finished environment; empty when it is not finished, or not ours."""
    try:
        return checked_record(json.loads((prefix / RECORD).read_bytes()))
    except (OSError, ValueError):
        return {}


def checked_record(record: Any) -> dict[str, Any]:
    """Return a record; empty when it is none."""
    try:
        request = record["request"]
        whole = isinstance(record["packages"], dict) and all(isinstance(record[key], str) for key in ("python", "base"))
        whole = whole and all(isinstance(request[key], list) for key in ("extras", "packages", "constraints"))
        return dict(record) if whole and all(isinstance(request[key], str) for key in ("version", "python")) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def make_record(
    request: Request, python: str, base: str, installer: str, packages: Mapping[str, str]
) -> dict[str, Any]:
    """Return what is to be remembered of a finished environment."""
    return {
        "request": {
            "version": request.version,
            "extras": list(request.extras),
            "packages": list(request.packages),
            "constraints": list(request.constraints),
            "python": request.python,
        },
        "python": python,
        "base": base,
        "installer": installer,
        "packages": dict(sorted(packages.items())),
    }


def write_record(prefix: Path, record: Mapping[str, Any]) -> None:
    """Write the record in one step, to the disk: what it is about has to be there before."""
    descriptor = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        replace_file(descriptor, RECORD, json.dumps(record, indent=1).encode(), mode=0o644)
    finally:
        os.close(descriptor)


# --- Whether it is what was asked for ---


class Shortfall(NamedTuple):
    """What keeps an environment from being what was asked for."""

    reasons: tuple[str, ...] = ()
    """What is certainly not as asked for."""
    questions: tuple[str, ...] = ()
    """Requirements that only the environment itself can judge, since nobody recorded the answer."""
    constraints: tuple[str, ...] = ()
    """Constraints of that kind."""


def same_release(one: str, other: str) -> bool:
    """Return whether two exact versions mean the same release: 8.2 and 8.2.0 do; other spellings do not."""
    return re.sub(r"(\.0)+$", "", one) == re.sub(r"(\.0)+$", "", other)


def shortfall(request: Request, record: Mapping[str, Any], installed: Mapping[str, str]) -> Shortfall:
    """Compare what is asked for with what is there.

    A recorded answer counts for as long as the package that it is about has the version that was recorded.

    Args:
        request: what is asked for.
        record: what was recorded when the environment was made, or nothing.
        installed: the packages that are there now.
    """
    found = installed.get("caveclient")
    if not found:
        return Shortfall(reasons=("caveclient is not installed",))
    was_asked = record.get("request", {"version": "", "extras": [], "packages": [], "constraints": []})
    then = record.get("packages", {})
    vouched = bool(record) and then.get("caveclient") == found
    questions = []
    if not (request.exact_version and same_release(found, request.version)):
        known = not request.version or (vouched and was_asked["version"] == request.version)
        if not known and request.exact_version:
            return Shortfall(reasons=(f"caveclient {found} is installed, {request.version} is asked for",))
        if not known:
            questions.append("caveclient" + request.version)
    known_extras = was_asked["extras"] if vouched else []
    questions += [f"caveclient[{extra}]" for extra in request.extras if extra not in known_extras]
    for package in request.packages:
        name = name_of(package)
        recorded = package in was_asked["packages"] and installed.get(name) == then.get(name)
        if name not in installed or not recorded:
            questions.append(package)
    constraints = [
        constraint
        for constraint in request.constraints
        if constraint not in was_asked["constraints"]
        or installed.get(name_of(constraint)) != then.get(name_of(constraint))
    ]
    return Shortfall(questions=tuple(questions), constraints=tuple(constraints))


_ASK = r"""
import json, sys
from importlib.metadata import PackageNotFoundError, requires, version
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
asked, reasons = json.load(sys.stdin), []
def judge(requirement, optional=False):
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        if not optional:
            reasons.append("%s is not installed" % requirement.name)
        return
    if requirement.url:
        reasons.append("%s %s is installed, nobody knows whether from %s" % (requirement.name, found, requirement.url))
    elif not requirement.specifier.contains(found, prereleases=True):
        reasons.append("%s %s is installed, %s is asked for" % (requirement.name, found, requirement.specifier))
    for extra in requirement.extras:
        for line in requires(requirement.name) or []:
            needed = Requirement(line)
            if needed.marker and needed.marker.evaluate({"extra": extra}) and not needed.marker.evaluate({"extra": ""}):
                needed.marker = None
                judge(needed)
for text in asked["requirements"]:
    judge(Requirement(text))
for text in asked["constraints"]:
    judge(Requirement(text), optional=True)
print(json.dumps(reasons))
"""


def ask_environment(python: str, missing: Shortfall, environ: Mapping[str, str]) -> list[str]:
    """Let an environment's own Python judge requirements, and return what it finds wanting.

    Args:
        python: the environment's Python.
        missing: holds the requirements and constraints in question.
        environ: a cleaned environment.
    """
    text = json.dumps({"requirements": missing.questions, "constraints": missing.constraints})
    outcome = _processes.run([python, "-I", "-B", "-c", _ASK], environ, 60, text=text)
    try:
        reasons = json.loads(outcome.output)
    except ValueError:
        reasons = [f"{item} is asked for, and the environment does not answer whether it has it"
                   for item in (*missing.questions, *missing.constraints)]  # fmt: skip
    return [str(reason) for reason in reasons]


def reasons_to_install(
    request: Request,
    record: Mapping[str, Any],
    site_packages: Path,
    python: str,
    environ: Mapping[str, str],
    before_asking: Callable[[], object] = lambda: None,
) -> list[str]:
    """Return why an environment is not what was asked for; empty when it is.

    A process is started only when the request is one that was never recorded; ``before_asking`` is called then.
    """
    missing = shortfall(request, record, installed_packages(site_packages))
    if missing.reasons:
        return list(missing.reasons)
    if missing.questions or missing.constraints:
        before_asking()
        return ask_environment(python, missing, environ)
    return []
