# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in users' secrets files, read in processes that are those users."""

from __future__ import annotations

import contextlib
import os
import os.path
import pwd
import re
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._atomic import has_access_list
from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import NetrcFile, replacing_netrc
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    Datastack,
    host_of,
    known_local_servers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
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
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.clients import installed_clients
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import (
    EnvToken,
    tokens_in_environment,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.environment import CloudVolumeDir
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import (
    is_of_the_kernel,
    is_read_only,
    is_secret_volume,
    owner_name,
    real_path,
    reporting,
    require_home,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue

_MOST_COPIES = 200


class TokenQuery(NamedTuple):
    """A question about one user's token for one server: what is sent, and is it what should be sent?"""

    server: str
    datastacks: list[Datastack]
    key: str = "token"
    is_managed: bool = False
    """Whether provisioning would write this user's token."""
    expected: str | None = None
    """The token that should be sent, where it is known."""
    is_absent: bool = False
    """Whether no token should be sent."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the datastacks."""
        return tuple(stack.name for stack in self.datastacks)

    @property
    def local_hosts(self) -> list[str]:
        """Hosts and ports of the named datastacks' local servers, each once."""
        return list(dict.fromkeys(host_of(stack.local_server) for stack in self.datastacks if stack.local_server))

    @property
    def own_hosts(self) -> list[str]:
        """Hosts whose secrets files provisioning writes: the auth server's and the local servers'."""
        return list(dict.fromkeys([host_of(self.server), *self.local_hosts]))

    @property
    def compared_hosts(self) -> list[str]:
        """Hosts of the named datastacks' local servers, or of all that are known where no datastack is named."""
        return self.local_hosts if self.datastacks else self._known_hosts

    @property
    def family(self) -> set[str]:
        """The (canonical) names of the secrets files that hold tokens of this auth server, as far as is known."""
        return {_files.canonical(_files.server_file(host)) for host in [*self.own_hosts, *self._known_hosts]}

    @property
    def _known_hosts(self) -> list[str]:
        return list(dict.fromkeys(host_of(address) for address in known_local_servers(self.server).values()))


class Place(NamedTuple):
    """A file, or a directory on the way to it, as it stands."""

    path: str
    kind: str
    """``file``; ``directory``: of secrets files; ``parent``: of the latter; ``obstacle``: in the place of either."""
    mode: int
    """Permission bits; those of its target where a directory is a link."""
    uid: int
    is_link: bool
    is_sound: bool
    """A directory is one, and its user may enter and list it; a link to a file leads to a secrets file."""
    has_list: bool = False
    """Whether an access control list lets further users do what the group may."""
    is_outside: bool = False
    """Whether a directory leads out of the home, where others may use it."""
    has_further_names: bool = False
    """Whether a file has hard links elsewhere."""


class UserFiles(NamedTuple):
    """The secrets files of one user, and what decides who reads which."""

    user: str
    uid: int
    home: str
    by_root: bool
    """Whether root looked for the user, and not the user."""
    where: _readers.Places
    listing: Mapping[str, _files.Entry]
    """As the readers see it; links count as what they lead to."""
    places: list[Place]
    """The user's own directories of secrets files and what is in them."""
    installed: Mapping[str, str]
    """Site-packages directory -> version of the caveclient in it."""
    managed: str
    """The folder of the managed environments."""
    mode: int = 0o600
    """The mode that secrets files should have."""
    cloud_volume_dir: CloudVolumeDir = CloudVolumeDir("")
    owner_there: str = ""
    """Whose CLOUD_VOLUME_DIR is, where the user can save nothing there."""
    closed: tuple[str, ...] = ()
    """Directories of secrets files that the user may not list."""
    netrc: Mapping[str, NetrcFile] = {}
    """Host -> the netrc file that keeps programs from sending a token there."""
    named_netrc: Mapping[str, str] = {}
    """Netrc file -> the startup file that names it with NETRC."""
    read_only: Mapping[str, bool] = {}
    """Directory of secrets files that is mounted read-only -> whether Kubernetes fills it from a Secret."""
    env_tokens: tuple[EnvToken, ...] = ()
    """What the user's startup files put into the environment."""
    env_keys: tuple[EnvValue, ...] = ()
    """What they give to ``TOKEN_KEYS``."""
    ca_bundles: tuple[tuple[EnvValue, str], ...] = ()
    """CA certificates that they name, with why these cannot be used; empty where they can."""
    copies: Mapping[str, _files.Entry] = {}
    """Further files in these directories that hold tokens, though no program takes them by itself."""
    home_uid: int = -1
    """Whose the home is; -1: not known."""

    def server_map(self) -> dict[str, str]:
        """Return which server caveclient takes for a datastack. A map that it cannot read is an empty one to it."""
        entry = self.listing.get(os.path.join(self.where.caveclient, _files.SERVER_MAP))
        if entry is None or entry.text is None:
            return {}
        return {name: str(address) for name, address in _files.values(entry.text).items() if address is not None}


class Options(NamedTuple):
    """What a module's options say about where users' files are, and how they should be."""

    secrets_dir: str | None = None
    cloud_volume_dir: str | None = None
    """None: found out from the user's and the host's environment."""
    mode: int = 0o600
    managed: str = ""
    """The folder of the managed environments; empty: programs are not looked for."""


def inspect_each(
    accounts: Mapping[str, pwd.struct_passwd | CaveError],
    options: Options,
    look: Callable[[UserFiles], Any],
    timeout: float,
) -> dict[str, Any]:
    """Return what ``look`` makes of each user's files, called in a process that is that user.

    Args:
        accounts: by the users' names. An error in the place of an account is that user's result.
        options: where the files are.
        look: returns something JSON-able.
        timeout: seconds for each user.

    Returns:
        The results by name. What goes wrong for one user is a CaveError in that one's place, and stops no other.
    """
    results: dict[str, Any] = {}
    jobs = {}
    for name, account in accounts.items():
        results[name] = account
        if not isinstance(account, CaveError):
            by_root = os.geteuid() == 0 and account.pw_uid != 0
            jobs[name] = _users.Job(account, partial(_inspect, name, account, by_root, options, look))
    results.update(zip(jobs, _users.run_each_as(list(jobs.values()), timeout)))
    return results


def _inspect(
    name: str, account: pwd.struct_passwd, by_root: bool, options: Options, look: Callable[[UserFiles], Any]
) -> Any:
    home = Home.of(account, options.secrets_dir, options.cloud_volume_dir, mode=options.mode)
    return look(inspect(home._replace(name=name), by_root, options.managed))


def inspect(home: Home, by_root: bool, managed: str) -> UserFiles:
    """Return what a user's secrets files are; to be called in a process that is that user.

    Args:
        home: where they are.
        by_root: whether root looks for the user.
        managed: the folder of the managed environments; empty: programs are not looked for.

    Raises:
        CaveError: the user has no home on this host, or a place where programs look for secrets files does not answer.
    """
    require_home(home.name, home.uid, home.path)
    environment = home.environment()
    where = home.places(environment)
    listing = _directory.listing(where)
    directories = list(dict.fromkeys((where.caveclient, *where.cloud_volume, *where.cloud_files)))
    return UserFiles(
        home.name,
        home.uid,
        home.path,
        by_root,
        where,
        listing,
        places=list(_places(home, where, listing)),
        installed=installed_clients(home.path, managed) if managed else {},
        managed=managed,
        mode=home.mode,
        cloud_volume_dir=environment.cloud_volume_dir,
        owner_there=_other_owner(where.cloud_volume[0], home.uid),
        read_only={
            path: is_secret_volume(path)
            for path in (where.caveclient, where.cloud_volume[0], *listing)
            if os.path.exists(path) and is_read_only(path)
        },
        named_netrc=environment.netrc,
        env_tokens=tuple(tokens_in_environment(home.path)),
        env_keys=environment.token_keys,
        ca_bundles=environment.examined_bundles(),
        copies=_copies(home, directories),
        home_uid=os.stat(home.path).st_uid,
        closed=tuple(path for path in directories if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)),
    )


def _other_owner(directory: str, uid: int) -> str:
    """Return who keeps a user from saving something in a directory, or from making it; empty where nobody does."""
    with contextlib.suppress(OSError):
        while not os.path.lexists(directory):
            directory = os.path.dirname(directory)
        if is_of_the_kernel(directory):
            return "the kernel"
        status = os.stat(directory)
        is_own = status.st_uid == uid or os.path.basename(directory) != "secrets"
        if stat.S_ISDIR(status.st_mode) and is_own and os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            return ""
        return owner_name(status.st_uid)
    return "somebody else"


def _places(home: Home, where: _readers.Places, listing: Mapping[str, _files.Entry]) -> Iterator[Place]:
    """Yield the user's own directories of secrets files, and what is in them."""
    directories = list(dict.fromkeys((where.caveclient, where.cloud_volume[0])))
    if not home.secrets_dir:
        yield from _directory_found(os.path.dirname(where.caveclient), "parent", home)
    for directory in directories:
        here = list(_directory_found(directory, "directory", home))
        if home.secrets_dir and here and here[0].uid == 0:
            here = []  # a directory that root keeps for its users
        yield from here
        if directory != where.caveclient and here and here[0].uid != home.uid:
            continue
        names = [os.path.basename(path) for path in listing if os.path.dirname(path) == directory]
        # Links that lead nowhere are not in the listing: to the readers they do not exist.
        with contextlib.suppress(OSError):
            names += [name for name in os.listdir(directory) if _is_read(name)]
        for name in sorted(set(names)):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                entry = listing.get(path)
                is_sound = entry is not None and entry.text is not None
                mode, is_link = stat.S_IMODE(status.st_mode), stat.S_ISLNK(status.st_mode)
                has_list = bool(mode & 0o070) and has_access_list(path)
                more = not is_link and status.st_nlink > 1
                yield Place(path, "file", mode, status.st_uid, is_link, is_sound, has_list, has_further_names=more)


def _copies(home: Home, directories: list[str]) -> dict[str, _files.Entry]:
    """Return the JSON files that no program takes by itself: set aside, an editor's copies, of people's own names."""
    found: dict[str, _files.Entry] = {}
    for directory in dict.fromkeys([*directories, os.path.join(home.path, ".cloudvolume", "secrets")]):
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(directory)) if directory != "/" else []
        read_elsewhere = directory in directories
        for name in [name for name in names if not (read_elsewhere and _is_read(name))][:_MOST_COPIES]:
            path = os.path.join(directory, name)
            with reporting(path, "read"):
                entry = _directory.read_entry(path)
            if entry is not None and entry.text is not None:
                found[path] = entry
    return found


def _is_read(name: str) -> bool:
    """Return whether some program takes a file of this name."""
    return _files.is_secrets_file(name) or name == _files.SERVER_MAP


def _directory_found(path: str, kind: str, home: Home) -> Iterator[Place]:
    with contextlib.suppress(OSError):
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        try:
            status = os.stat(path)
        except OSError:
            status = os.lstat(path)
        is_directory = stat.S_ISDIR(status.st_mode)
        is_sound = is_directory and os.access(path, os.R_OK | os.X_OK)
        kind = kind if is_directory or is_link else "obstacle"
        mode = stat.S_IMODE(status.st_mode)
        has_list = bool(mode & 0o070) and has_access_list(path)
        inside = os.path.join(real_path(home.path), "")
        is_outside = path != home.secrets_dir and not real_path(path).startswith(inside)
        yield Place(path, kind, mode, status.st_uid, is_link, is_sound, has_list, is_outside)


# What users' programs send --------------------------------------------------------------------------------------------


class HostUser(NamedTuple):
    """A user of this host, and what the programs of this user send."""

    name: str
    account: pwd.struct_passwd | None
    readings: dict[str, list[Reading]]
    """Host of an auth server -> what the readers send to it and its local servers, caveclient first."""
    server_map: dict[str, str]
    """Datastack -> server address, as it stands in the user's server map."""
    trouble: Verdict | None = None
    """Why nothing could be read."""
    netrc: Mapping[str, NetrcFile] = {}
    """Host -> the netrc file that keeps caveclient from sending a token there."""

    def server_of(self, datastack: str) -> str:
        """Return the server that caveclient takes for a datastack, when none is named to it."""
        return self.server_map.get(datastack) or DEFAULT_SERVER

    def reading_for(self, datastack: str) -> Reading:
        """Return what caveclient sends, when it is asked for a datastack and no server is named to it."""
        return self.readings[host_named(self.server_of(datastack))][0]


def read_users(
    holders: Sequence[tuple[TokenQuery, Sequence[str]]], options: Options, timeout: float
) -> list[list[HostUser]]:
    """Return what the programs of each user send, read side by side in at most ``timeout`` seconds each.

    Args:
        holders: questions, each with the names of the users whom it is about.
        options: where the users' files are.
        timeout: seconds for each user.

    Returns:
        The users of each question, in order. What goes wrong for one is that one's ``trouble``, and stops no other.
    """
    accounts = _users.find_users(name for _query, names in holders for name in names)
    found = inspect_each(accounts, options, partial(_readings, [query for query, _names in holders]), timeout)
    return [
        [_host_user(name, accounts[name], found[name], number, query) for name in names]
        for number, (query, names) in enumerate(holders)
    ]


def _host_user(
    name: str, account: pwd.struct_passwd | CaveError, found: Any, number: int, query: TokenQuery
) -> HostUser:
    user = HostUser(name, None if isinstance(account, CaveError) else account, {}, {})
    if isinstance(found, CaveError):
        return user._replace(trouble=client_error_verdict(found, query.server))
    mine = found[number]
    readings = {host: [Reading(*item) for item in items] for host, items in mine["readings"].items()}
    netrc = {host: NetrcFile(*item) for host, item in mine["netrc"].items()}
    return user._replace(readings=readings, server_map=mine["server_map"], netrc=netrc)


def _readings(queries: Sequence[TokenQuery], files: UserFiles) -> list[dict[str, Any]]:
    """Return, for each question, what is sent to the server, and to those that the server map names."""
    server_map = files.server_map()
    found = []
    for query in queries:
        own = host_of(query.server)
        hosts = [own, *(host_named(server_map.get(name) or DEFAULT_SERVER) for name in query.names)]
        readings = {
            host: _readers.read_by_all(
                files.listing, files.where, host, query.local_hosts if host == own else [], query.key
            )
            for host in dict.fromkeys(hosts)
        }
        netrc = replacing_netrc(files.home, [*readings, *query.own_hosts], os.environ)
        found.append({"readings": readings, "server_map": server_map, "netrc": netrc})
    return found


def verdict_without_asking(reading: Reading, server: str, user: str, key: str) -> Verdict | None:
    """Return the verdict when there is nothing that can be sent, None when there is."""
    if reading.problem and reading.path:
        return malformed_file_verdict(server, reading.path, f"it {reading.detail}")
    if reading.token in (None, ""):
        place = f"{reading.path} has none under {key!r}" if reading.path else "there is no secrets file for it"
        return no_token_verdict(server, user, place)
    reason = "" if isinstance(reading.token, str) else f"what it has under {key!r} is not a string"
    try:
        if not reason and clean_token(reading.token) != reading.token:
            reason = f"its {key!r} has white space around it"
    except CaveError as error:
        reason = f"under {key!r}: {error.message.split('. ')[0]}"
    return malformed_file_verdict(server, reading.path or "", reason) if reason else None


def host_named(address: str) -> str:
    """Return the host as caveclient makes it from an address of the server map, which may have no scheme."""
    usual = re.fullmatch(r"https?://([A-Za-z0-9.:-]+)/?", address)
    if usual is not None:
        return usual[1]
    from urllib.parse import urlsplit  # where it is needed only: to import it takes longer than to read all files

    try:
        return urlsplit(address if urlsplit(address).scheme else f"https://{address}").netloc
    except ValueError:
        return address
