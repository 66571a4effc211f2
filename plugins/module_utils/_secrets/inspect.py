# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host would send to a CAVE server for its users, read in processes that are those users."""

from __future__ import annotations

import os.path
import pwd
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER, Datastack, host_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token, fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    client_error_verdict,
    malformed_file_verdict,
    no_token_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home


class Wanted(NamedTuple):
    """Which tokens to look for: the server, its datastacks, the key in the files, and where else to look."""

    server: str
    datastacks: list[Datastack]
    key: str = "token"
    secrets_dir: str = ""
    cloud_volume_dir: str | None = None
    """None: found out from the user's and the host's environment."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the datastacks."""
        return tuple(stack.name for stack in self.datastacks)

    @property
    def local_hosts(self) -> list[str]:
        """Hosts and ports of the datastacks' local servers, each once."""
        return list(dict.fromkeys(host_of(stack.local_server) for stack in self.datastacks if stack.local_server))


class Sent(NamedTuple):
    """What one reader would send to one server; ``problem`` says what is wrong with its file, after the file's name."""

    reader: str
    host: str
    path: str | None
    token: Any
    """Whatever stands there: not every file has a string."""
    problem: str

    @property
    def fingerprint(self) -> str | None:
        """The token's fingerprint, None without a token."""
        return fingerprint(self.token) if isinstance(self.token, str) and self.token else None

    def __str__(self) -> str:
        """Say what is sent, without the token."""
        if self.problem:
            return f"nothing ({self.path} {self.problem})"
        return f"the token {self.fingerprint}" if self.fingerprint else "no token"


class Account(NamedTuple):
    """A user of this host, and what the host would send for this user."""

    name: str
    entry: pwd.struct_passwd | None
    sent: dict[str, list[Sent]]
    """Host of an auth server -> what the readers would send to it and its local servers, caveclient first."""
    server_map: dict[str, str]
    """Datastack -> server address, as it stands in the user's server map."""
    trouble: Verdict | None = None
    """Why nothing could be read."""

    def server_of(self, datastack: str) -> str:
        """Return the server that caveclient takes for a datastack, when none is named to it."""
        return self.server_map.get(datastack) or DEFAULT_SERVER

    def sent_for(self, datastack: str) -> Sent:
        """Return what caveclient sends, when it is asked for a datastack and no server is named to it."""
        return self.sent[_host_named(self.server_of(datastack))][0]

    def without_token(self, sent: Sent, server: str, key: str) -> Verdict | None:
        """Return the verdict when there is nothing that can be sent, None when there is."""
        if sent.problem and sent.path:
            return malformed_file_verdict(server, sent.path, f"it {sent.problem}")
        if sent.token in (None, ""):
            place = f"{sent.path} has none under {key!r}" if sent.path else "there is no secrets file for it"
            return no_token_verdict(server, self.name, place)
        reason = "" if isinstance(sent.token, str) else f"what it has under {key!r} is not a string"
        try:
            if not reason and clean_token(sent.token) != sent.token:
                reason = f"its {key!r} has white space around it"
        except CaveError as error:
            reason = f"under {key!r}: {error.message.split('. ')[0]}"
        return malformed_file_verdict(server, sent.path or "", reason) if reason else None


def read_accounts(names: list[str], wanted: Wanted, timeout: float) -> list[Account]:
    """Read what is sent for every user, each in a process that is that user, of at most ``timeout`` seconds.

    What goes wrong for one user is that one's ``trouble``, and stops no other.
    """
    accounts: dict[str, Account] = {}
    jobs = []
    for name in dict.fromkeys(names):
        try:
            entry = _users.find_user(name)
        except CaveError as error:
            accounts[name] = Account(name, None, {}, {}, client_error_verdict(error, wanted.server))
            continue
        accounts[name] = Account(name, entry, {}, {})
        jobs.append(_users.Job(entry, partial(_read, entry, wanted)))
    readable = [account for account in accounts.values() if account.entry is not None]
    for account, found in zip(readable, _users.run_each_as(jobs, timeout)):
        if isinstance(found, CaveError):
            accounts[account.name] = account._replace(trouble=client_error_verdict(found, wanted.server))
        else:
            sent = {host: [Sent(*item) for item in items] for host, items in found["sent"].items()}
            accounts[account.name] = account._replace(sent=sent, server_map=found["server_map"])
    return list(accounts.values())


def _read(user: pwd.struct_passwd, wanted: Wanted) -> dict[str, Any]:
    """Read what is sent for a user; to be called in a process that is that user."""
    if not os.path.isdir(user.pw_dir):
        raise CaveError(
            f"The home directory of {user.pw_name}, {user.pw_dir}, does not exist on this host. "
            "Create or mount it, then run this again."
        )
    where = Home.of(user, wanted.secrets_dir, wanted.cloud_volume_dir).places()
    listing = _directory.listing(where)
    server_map = _server_map(listing, where)
    own = host_of(wanted.server)
    sent = {}
    for host in dict.fromkeys([own, *(_host_named(server_map.get(name) or DEFAULT_SERVER) for name in wanted.names)]):
        local_hosts = wanted.local_hosts if host == own else []
        readings = _readers.read_by_all(listing, where, host, local_hosts, wanted.key)
        sent[host] = [
            Sent(item.reader, item.host, item.path, item.token, _problem_of(item, listing)) for item in readings
        ]
    return {"sent": sent, "server_map": server_map}


def _problem_of(reading: _readers.Reading, listing: _readers.Listing) -> str:
    return listing[reading.path].detail if reading.problem and reading.path else ""


def _server_map(listing: _readers.Listing, where: _readers.Places) -> dict[str, str]:
    """Return which server caveclient takes for a datastack. A map that it cannot read is an empty one to it."""
    entry = listing.get(os.path.join(where.caveclient, _files.SERVER_MAP))
    if entry is None or entry.text is None:
        return {}
    return {name: str(address) for name, address in _files.values(entry.text).items() if address is not None}


def _host_named(address: str) -> str:
    """Return the host as caveclient makes it from an address of the server map, which may have no scheme."""
    try:
        return urlsplit(address if urlsplit(address).scheme else f"https://{address}").netloc
    except ValueError:
        return address
