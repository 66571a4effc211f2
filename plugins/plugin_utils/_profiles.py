# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Projects whose programs want more than a token under its usual name: datastacks, further names, packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean


class Profile(NamedTuple):
    """What a project's programs use.

    Attributes:
        datastacks: names of datastacks. The local server of each is where further programs look for a secrets file.
        keys: the names under which its programs look for the token in a file, the usual one among them.
        packages: of the Python index.
    """

    datastacks: tuple[str, ...]
    keys: tuple[str, ...]
    packages: tuple[str, ...]


PROFILES = {
    # banc.auth and fanc.auth of 0.6.1 and 3.2.3: get_caveclient takes the key of the datastack's name.
    "banc": Profile(("brain_and_nerve_cord",), ("token", "brain_and_nerve_cord"), ("banc",)),
    "fanc": Profile(("fanc_production_mar2021",), ("token", "fanc_production_mar2021"), ("fanc-fly",)),
    # fafbseg.flywire 3.2.3: get_chunkedgraph_secret reads the files of global.daf-apis.com and prod.flywire-daf.com.
    "flywire": Profile(("flywire_fafb_public",), ("token",), ("fafbseg",)),
}

_LONGEST_SHOWN = 15
"""Characters. What is longer may be a token in the wrong place."""


def chosen(names: Any) -> Profile:
    """Return what the profiles of these names amount to together.

    Raises:
        CaveError: that is no list of their names.
    """
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise CaveError(f"profiles has to be a list of names. There are: {', '.join(PROFILES)}.")
    unknown = next((name for name in listed if name not in PROFILES), None)
    if unknown is not None:
        named = f" {unknown!r}" if len(unknown) <= _LONGEST_SHOWN else " of that name"
        raise CaveError(
            f"There is no profile{named}.{did_you_mean(unknown, PROFILES)} Choose from: {', '.join(PROFILES)}."
        )
    found = [PROFILES[name] for name in listed]
    return Profile(
        *(tuple(dict.fromkeys(item for part in parts for item in part)) for parts in zip(*found, strict=True))
    )


def with_profiles(args: Mapping[str, Any], entries: str) -> dict[str, Any]:
    """Return the arguments of a task with what its profiles stand for.

    Args:
        args: of the task. ``profiles`` among them is taken out.
        entries: the option with the users' entries. Those of the task's own server that say no ``key`` and no ``keys``
            get all keys.

    Raises:
        CaveError: there is no such profile.
    """
    rest = {name: value for name, value in args.items() if name != "profiles"}
    if not args.get("profiles"):
        return rest
    profile = chosen(args["profiles"])
    rest["datastacks"] = with_datastacks(rest.get("datastacks"), profile)
    if isinstance(rest.get(entries), str):
        rest[entries] = _listed(rest[entries])
    if isinstance(rest.get(entries), (list, tuple)):
        rest[entries] = [with_keys(item, profile, rest.get("server")) for item in rest[entries]]
    return rest


def with_packages(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an installation with what its profiles stand for; see ``with_profiles``."""
    rest = {name: value for name, value in args.items() if name != "profiles"}
    if not args.get("profiles"):
        return rest
    profile = chosen(args["profiles"])
    listed = _listed(rest.get("packages"))
    doctor = rest.get("doctor_defaults") or {}
    datastacks = with_datastacks(doctor.get("datastacks"), profile)
    return {
        **rest,
        "packages": [*listed, *(name for name in profile.packages if name not in listed)],
        "doctor_defaults": {**doctor, "datastacks": datastacks},
    }


def with_datastacks(given: Iterable[Any] | None, profile: Profile) -> list[Any]:
    """Return datastacks with those of a profile that are not among them."""
    listed = _listed(given)
    names = {item.get("name") if isinstance(item, Mapping) else item for item in listed}
    return [*listed, *(name for name in profile.datastacks if name not in names)]


def with_keys(entry: Any, profile: Profile, server: Any) -> Any:
    """Return a user's entry with the keys of a profile, where it is of this server and names none."""
    own = {"user": entry} if isinstance(entry, str) else entry
    if profile.keys == ("token",) or not isinstance(own, Mapping):
        return entry
    named = [own.get(name) is not None for name in ("key", "keys")]
    if any(named) or (own.get("server") and _address(own["server"]) != _address(server)):
        return entry
    return {**own, "keys": list(profile.keys)}


def _listed(given: Iterable[Any] | None) -> list[Any]:
    """Return a list option as the module will see it: text is cut at its commas."""
    return [item.strip() for item in given.split(",")] if isinstance(given, str) else list(given or ())


def _address(server: Any) -> str:
    return str(server or DEFAULT_SERVER).strip().rstrip("/")
