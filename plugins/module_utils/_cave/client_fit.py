# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an installed caveclient fits the packages beside it and the versions that services tell, from metadata alone.

What does not fit is said before a scientist's first query fails.
"""

from __future__ import annotations

import glob
import os.path
import re
from typing import Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict, clean_text

CLIENT_NEEDS = (
    ("8.0.0", "materialize", "5.13.0", "query_table, join_query, live_query, live_live_query and query_view"),
    ("8.0.0", "skeleton", "0.5.10", "skeletons_exist"),
)
"""Since which caveclient, which service needs which version; what raises ServerIncompatibilityError otherwise."""

_ANY = "9999"


class _BadPair(NamedTuple):
    """Releases of a package with which releases of caveclient fail; an upper end is not in the range."""

    package: str
    since: str
    below: str
    client_below: str
    why: str
    requirement: str
    """What to install in its place."""


BAD_PAIRS = (
    _BadPair("pandas", "3", _ANY, _ANY, "queries fail with pandas 3, which no caveclient allows", "pandas<3"),
    _BadPair("cloud-files", "6.1.1", "6.1.2", _ANY, "this release is broken", "cloud-files!=6.1.1"),
    _BadPair("pyarrow", "20", _ANY, "6", "releases before 6 need numpy 1, and pyarrow 20 needs numpy 2", "pyarrow<20"),
    _BadPair("numpy", "2", _ANY, "6", "releases before 6 need numpy 1", "numpy<2"),
)
"""What is known not to work together."""


def installed_packages(environment: str) -> list[dict[str, str]]:
    """Return the versions of the packages of an environment with caveclient, by name, for each of its Pythons.

    Args:
        environment: its folder.
    """
    folders: dict[str, dict[str, str]] = {}
    for path in glob.iglob(os.path.join(glob.escape(environment), "lib", "python3.*", "site-packages", "*.dist-info")):
        folder, name = os.path.split(path)
        package, _dash, version = name[: -len(".dist-info")].rpartition("-")
        folders.setdefault(os.path.realpath(folder), {})[re.sub(r"[-_.]+", "-", package).lower()] = version
    return [packages for packages in folders.values() if "caveclient" in packages]


def unfit_packages(packages: Mapping[str, str], server: str, datastack: str, environment: str) -> Verdict | None:
    """Return the verdict on an environment in which something is known not to go with its caveclient."""
    client = packages["caveclient"]
    for pair in BAD_PAIRS:
        found = packages.get(pair.package, "")
        is_bad = bool(found) and version_of(pair.since) <= version_of(found) < version_of(pair.below)
        if is_bad and version_of(client) < version_of(pair.client_below):
            message = f"{environment} has {pair.package} {clean_text(found, limit=40)} beside caveclient {client}: "
            remedy = (
                "Provision a newer caveclient, or name the requirement: ansible-playbook connectomics.cave.provision "
                f'--tags install -e \'{{"caveclient_packages": ["{pair.requirement}"]}}\''
            )
            return Verdict(
                "incompatible_client", f"{message}{pair.why}.", remedy, server, datastack, service="caveclient"
            )
    return None


def too_old(server: str, datastack: str, verdict: Verdict, client: str) -> Verdict | None:
    """Return the verdict on a service that is too old for an installed caveclient; None when it is not.

    Args:
        server: the local server.
        datastack: its name.
        verdict: on the service, with the version that it tells.
        client: version of caveclient.
    """
    for since, service, needed, calls in CLIENT_NEEDS:
        is_told = service == verdict.service and verdict.ok and bool(verdict.version)
        if is_told and version_of(client) >= version_of(since) and version_of(verdict.version) < version_of(needed):
            return Verdict(
                "incompatible_client",
                f"caveclient {client} needs {service} {needed} or later for {calls}; {server} has {verdict.version}.",
                f"Install the caveclient that fits the server (caveclient_version: '<{since}'), or ask the server's "
                "operator to update the service.",
                server,
                datastack,
                service=service,
                version=verdict.version,
            )
    return None


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, to be compared."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
