# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each problem with the files says, said by the code itself: for the guide, which has to say the same."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import NetrcFile
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import problems as _problems
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import EnvToken
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.environment import CloudVolumeDir, Doubt
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import Place, TokenQuery, UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import Problem
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import SHELL

SERVER = "https://global.daf-apis.com"
HOME = "/home/alice"
SECRETS = f"{HOME}/.cloudvolume/secrets"
UID = 1001
TOKEN, OLD, OTHER = ("0123456789abcdef" * 2, "fedcba9876543210" * 2, "00112233445566778899aabbccddeeff")  # of nobody
OWN, ALL, LEGACY = "global.daf-apis.com-cave-secret.json", "cave-secret.json", "chunkedgraph-secret.json"
MANAGED = TokenQuery(SERVER, parse_datastacks(["minnie65_public"], SERVER), is_managed=True)


def entry(content: object, problem: str | None = None) -> _files.Entry:
    """Return a secrets file: a token, a whole content, or one that no program can read."""
    text = json.dumps({"token": content} if isinstance(content, str) else content)
    detail = _files.PROBLEMS[problem] if problem else ""
    return _files.Entry(0o600, UID, UID, True, None if problem else text, problem, detail)


def place(path: str, kind: str = "file", **how: Any) -> Place:
    """Return a sound file (or directory) of the user's, but for what is said otherwise."""
    sound = {"mode": 0o600 if kind == "file" else 0o700, "uid": UID, "is_link": False, "is_sound": True}
    return Place(path, kind, **{**sound, **how})


def found(
    files: dict[str, _files.Entry],
    *places: Place,
    cloud_volume_dir: str = "",
    installed: str = "",
    doubts: tuple[Doubt, ...] = (),
) -> UserFiles:
    """Return what root found for Alice; names without a slash are below her secrets directory."""
    listing = {name if "/" in name else f"{SECRETS}/{name}": content for name, content in files.items()}
    return UserFiles(
        user="alice",
        uid=UID,
        home=HOME,
        by_root=True,
        where=_readers.places(HOME, cloud_volume_dir),
        listing=listing,
        places=[place(SECRETS, "directory"), *places],
        installed={f"{HOME}/.local/lib/python3.11/site-packages": installed} if installed else {},
        managed="/opt/caveclient",
        cloud_volume_dir=CloudVolumeDir(cloud_volume_dir, f"{HOME}/.bashrc", doubts=doubts),
    )


def problems(look: UserFiles, asked: TokenQuery = MANAGED) -> list[Problem]:
    """Return what the audit would say."""
    hosts = asked.compared_hosts
    readings = _readers.read_by_all(look.listing, look.where, "global.daf-apis.com", hosts)
    return [*_problems.token_problems(look, asked, readings), *_problems.file_problems(look, [asked])]


def samples() -> list[Problem]:
    """Return problems as the code makes them, at least one of each kind."""
    elsewhere = "/srv/cloudvolume"
    cases = [
        problems(found({ALL: entry(OLD)}), MANAGED._replace(expected=TOKEN)),
        problems(found({ALL: entry("", "not_json")})),
        problems(found({ALL: entry("", "bom")})),
        problems(found({ALL: entry("", "empty")})),
        problems(found({ALL: entry("", "unreadable")})),
        problems(found({ALL: entry(TOKEN), "minnie.microns-daf.com-cave-secret.json": entry(OLD)})),
        problems(found({OWN: entry(TOKEN), ALL: entry(OLD), "minnie.microns-daf.com-cave-secret.json": entry(TOKEN)})),
        problems(found({ALL: entry(TOKEN), f"{elsewhere}/secrets/{ALL}": entry(OLD)}, cloud_volume_dir=elsewhere)),
        problems(found({ALL: entry(TOKEN)}, doubts=(Doubt(f"{HOME}/.bashrc", 12, SHELL),))),
        problems(found({ALL: entry(TOKEN)})._replace(netrc={"global.daf-apis.com": NetrcFile(f"{HOME}/.netrc")})),
        problems(
            found({ALL: entry(TOKEN)})._replace(
                env_tokens=(EnvToken(f"{HOME}/.Renviron", 3, "CHUNKEDGRAPH_SECRET", OLD, is_alone=True),)
            )
        ),
        problems(
            found({ALL: entry(TOKEN)})._replace(
                env_keys=(EnvValue("BANC_AUTH_TOKEN_KEY", "my_key", f"{HOME}/.bashrc", 3),)
            )
        ),
        problems(
            found({ALL: entry(TOKEN)})._replace(
                ca_bundles=(
                    (EnvValue("REQUESTS_CA_BUNDLE", "/etc/ssl/lab-ca.pem", f"{HOME}/.bashrc", 3), "does not exist"),
                )
            )
        ),
        problems(found({OWN: entry(TOKEN), ALL: entry({"token": TOKEN, "banc": OTHER})})),
        problems(found({ALL: entry(TOKEN), LEGACY: entry(OLD)})),
        problems(
            found({ALL: entry(TOKEN), _files.SERVER_MAP: entry({"minnie65_public": "https://typo.daf-apis.com"})})
        ),
        problems(found({ALL: entry(TOKEN)}, place(f"{SECRETS}/{ALL}", is_link=True))),
        problems(found({ALL: entry(TOKEN)}, place(f"{SECRETS}/{ALL}", uid=0))),
        problems(found({ALL: entry(TOKEN)}, place(f"{SECRETS}/{ALL}", mode=0o644))),
        problems(found({ALL: entry(TOKEN)}, installed="5.31.0")),
    ]
    return [problem for case in cases for problem in case]
