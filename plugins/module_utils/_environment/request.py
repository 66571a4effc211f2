# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task asks for: its options, checked and in the form that is compared with what is there."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials

_EXACT = re.compile(r"\d[\w.!+-]*")
_SPECIFIER = re.compile(r"(?:(?:~=|===?|!=|<=|>=|<|>)\s*\d[\w.!+*-]*\s*(?:,\s*|$))+")
_EXTRA = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*) *(?:\[[\w .,-]*\])? *(?:[~=!<>(;@][^\r\n\t\\$#]*)?")
_OPTION = re.compile(r"\s-")


_PYTHON = re.compile(r"(?:(?:c?python)?[-@ ]?(\d+(?:\.\d+){0,2}))", re.IGNORECASE)


class Source(NamedTuple):
    """Where packages come from."""

    index_url: str = ""
    find_links: tuple[str, ...] = ()
    offline: bool = False


class FromController(NamedTuple):
    """What the action plugin has put on the host for one run; paths, or empty."""

    uv: str = ""
    pip: str = ""
    wheels: str = ""


class Parcel(NamedTuple):
    """A build of another host that the action plugin has put here."""

    file: str
    digest: str
    host: str
    """Where it was built."""


class Request(NamedTuple):
    """What an environment is to hold."""

    version: str = ""
    """An exact version, a specifier, or empty: any that is there, else the newest."""
    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    python: str = ""

    @property
    def exact_version(self) -> str:
        """The version, where an exact one is asked for."""
        return self.version if _EXACT.fullmatch(self.version) else ""

    @property
    def requirement(self) -> str:
        """The requirement on caveclient, as installers take it."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"caveclient{extras}{'==' if self.exact_version else ''}{self.version}"

    @property
    def requirements(self) -> tuple[str, ...]:
        """All that is to be installed."""
        return (self.requirement, *self.packages)

    def named(self) -> str:
        """Return what is asked for, in words for a message."""
        if not self.version:
            return "the newest caveclient"
        return f"caveclient {self.version}"


class Options(NamedTuple):
    """The module's options, checked."""

    request: Request
    path: str = "/opt/caveclient"
    interpreter: str = ""
    installer: str = "auto"
    source: Source = Source()
    links_are_here: bool = False
    """Whether folders in ``source.find_links`` are on this host; else they are on the controller."""
    keep: int = 1
    kernel: str | None = None
    """Display name of the Jupyter kernel; empty: there is to be none; None: leave it alone."""
    jupyter_dir: str = "/usr/local/share/jupyter"
    ca_path: str = ""
    doctor: str = ""
    """Where cave-doctor is to be; empty: leave it alone."""
    compile_all: bool = False
    timeout: float = 1800.0
    from_controller: FromController = FromController()
    parcel: Parcel | None = None
    """A build of another host, to be taken in the place of an installation."""


class Mode(NamedTuple):
    """How far a run may go."""

    check: bool = False
    """Predict, and change nothing."""
    plan: bool = False
    """Stop before an installation, and say what it needs; anything less is done."""
    tmpdir: str = ""
    """A directory for temporary files of this run."""


def parse_options(params: Mapping[str, Any]) -> Options:
    """Check the module's parameters.

    Raises:
        CaveError: one of them is not what it should be.
    """
    for name in ("path", "interpreter", "python", "index_url", "jupyter_kernel", "jupyter_dir", "ca_path", "doctor"):
        if not (params[name] or "").isprintable():
            raise CaveError(f"{name}: {params[name]!r} has control characters, or others that are not seen. Drop them.")
    if params["index_url"] and not re.match(r"\w+://|(?i:file):|/(?!/)", params["index_url"]):
        raise CaveError(  # it may hold a password all the same
            "index_url: found an address without https:// in front (not shown here); expected https://HOST/simple, or "
            "the absolute path of a folder."
        )
    for link in params["find_links"]:
        masked = mask_credentials(link)
        if masked != link:
            raise CaveError(
                f"find_links: a URL with user name and password is refused, since it would be seen in logs ({masked}). "
                "Put them into the ~/.netrc of the user that installs."
            )
    for name in ("path", "jupyter_dir", "ca_path", "doctor"):
        if params[name] and not os.path.isabs(params[name]):
            raise CaveError(f"{name}: {params[name]} is not an absolute path.")
    if not params["interpreter"] and not os.path.abspath(params["path"]).strip("/"):
        raise CaveError(f"path: {params['path']} is the root folder. Choose one of its own, such as /opt/caveclient.")
    if ":" in params["path"]:
        raise CaveError(f"path: {params['path']} holds a colon, and no environment works there. Choose another path.")
    if params["keep"] < 0:
        raise CaveError(f"keep: {params['keep']} is less than 0.")
    controller = params["_controller"] or {}
    request = parse_request(
        params["version"],
        params["extras"],
        params["packages"],
        params["constraints"],
        params["python"],
        with_kernel=bool(params["jupyter_kernel"]),
    )
    return Options(
        request=request,
        path="/" + os.path.normpath(params["path"]).lstrip("/"),
        interpreter=(params["interpreter"] or "").strip(),
        installer=params["installer"],
        source=Source(params["index_url"] or "", tuple(params["find_links"]), params["offline"]),
        links_are_here=params["remote_src"],
        keep=params["keep"],
        kernel=params["jupyter_kernel"],
        jupyter_dir=params["jupyter_dir"],
        ca_path=params["ca_path"] or "",
        doctor=params["doctor"] or "",
        compile_all=params["compile"],
        timeout=params["timeout"],
        from_controller=FromController(**controller.get("from_controller", {})),
        parcel=Parcel(**controller["parcel"]) if controller.get("parcel") else None,
    )


def parse_request(
    version: str,
    extras: Sequence[str],
    packages: Sequence[str],
    constraints: Sequence[str],
    python: str,
    with_kernel: bool,
) -> Request:
    """Check the user's words, and bring them into the form that is compared.

    Raises:
        CaveError: one of them is not what it should be.
    """
    version = re.sub(r"^==\s*(?=\d[^*]*$)", "", version.strip())
    if not (version == "" or _EXACT.fullmatch(version) or _SPECIFIER.fullmatch(version)):
        raise CaveError(
            f"version: {version!r} is neither a version (8.2.1) nor a specifier (>=8,<9). For the newest, leave it "
            "empty."
        )
    extras = [extra.strip() for extra in extras]
    for extra in extras:
        if not _EXTRA.fullmatch(extra):
            raise CaveError(f"extras: {extra!r} is not the name of an extra (such as cv).")
    for option, items in (("packages", packages), ("constraints", constraints)):
        for item in items:
            _check_requirement(option, item)
    if with_kernel and not any(name_of(package) == "ipykernel" for package in packages):
        packages = [*packages, "ipykernel"]
    return Request(
        version=re.sub(r"\s+", "", version),
        extras=tuple(sorted({normal_name(extra) for extra in extras})),
        packages=tuple(sorted({package.strip() for package in packages})),
        constraints=tuple(sorted({constraint.strip() for constraint in constraints})),
        python=_python_wanted(python.strip()),
    )


def _python_wanted(typed: str) -> str:
    """Return a path, or a version: 3.11 for python3.11 as well."""
    if not typed or typed.startswith("/"):
        return typed
    match = _PYTHON.fullmatch(typed)
    if not match:
        raise CaveError(f"python: {typed!r} is neither the absolute path of a Python nor a version (3.12).")
    version = match.group(1)
    if version == "3.1":  # no host has it, but YAML makes it of 3.10
        raise CaveError("python: 3.1 is no Python of today. For 3.10, put the version in quotes: python: '3.10'.")
    return version


def normal_name(name: str) -> str:
    """Return the name of a package as all tools compare it (https://packaging.python.org/specifications/name-normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_requirement(option: str, item: str) -> None:
    if not _REQUIREMENT.fullmatch(item.strip()) or _OPTION.search(item):
        raise CaveError(f"{option}: {item!r} is not a requirement such as 'matplotlib>=3.8'.")
    masked = mask_credentials(item)
    if masked != item:
        raise CaveError(
            f"{option}: a URL with user name and password is refused, since it would be seen in logs ({masked}). Put "
            "them into the ~/.netrc of the user that installs."
        )
    if name_of(item) == "caveclient":
        raise CaveError(
            f"{option}: caveclient itself is asked for with the options 'version' and 'extras', not {item!r}."
        )


def name_of(requirement: str) -> str:
    """Return the normalized name of the package that a requirement asks for."""
    match = _REQUIREMENT.fullmatch(requirement.strip())
    return normal_name(match.group(1)) if match else ""
