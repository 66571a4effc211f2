# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's pip configuration, and the same thing said to uv, which does not read it.

A lab's package mirror and its certificate are usually configured for pip, in /etc/pip.conf.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple
from urllib.parse import unquote, urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Source
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials

_PASSED_ON = (
    "timeout",
    "default-timeout",
    "retries",
    "only-binary",
    "no-binary",
    "prefer-binary",
    "pre",
    "keyring-provider",
    "no-cache-dir",
    "use-deprecated",
    "use-feature",
)
"""Settings that say how packages are fetched; all others of pip, which say where they go, are left out."""


_ELSEWHERE = re.compile(
    r"""(?:^|[\s{.,])["']?(?P<name>target|prefix|no-deps|require-hashes)["']?[ \t]*=(?![ \t]*false)"""
)
"""Settings of uv that put packages elsewhere, or leave out some."""
_PLACE = re.compile(r"""["']((?i:file:)[^"']*|[/~][^"']*)["']""")


class PipSettings(NamedTuple):
    """What pip's configuration says about where packages come from. URLs may hold credentials: never print them."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    no_index: bool = False
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    constraints: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    """Name and value of what else is passed on to pip."""

    @property
    def index_urls(self) -> tuple[str, ...]:
        """All indexes."""
        return (self.index_url, *self.extra_index_urls) if self.index_url else self.extra_index_urls

    def with_source(self, source: Source) -> PipSettings:
        """Return what holds for a request: an index that it names is the only one, and offline there is none."""
        if source.offline:
            links = tuple(link for link in self.find_links if local_path(link))
            return self._replace(index_url="", extra_index_urls=(), find_links=links, no_index=True)
        if source.index_url:
            return self._replace(index_url=source.index_url, extra_index_urls=(), no_index=False)
        return self


def local_path(location: str) -> str:
    """Return the path that a link or an index names on this host; empty for one of a network."""
    file = re.match(r"(?i:file):(?://[^/]*)?([^?#]*)", location)
    if file:
        return unquote(file.group(1)).partition("\0")[0]
    return location if location and "://" not in location else ""


def read_pip_settings(environ: Mapping[str, str], home: str) -> PipSettings:
    """Return the settings that pip would follow when it is run with this environment and home directory.

    The files are read in pip's own order (https://pip.pypa.io/en/stable/topics/configuration/), and PIP_ variables
    outrank them all. A file that cannot be read or understood counts as absent.
    """
    import configparser  # only here, since a run that changes nothing does without

    values: dict[str, str] = {}
    for file in files_of_pip(environ, home):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update((key.replace("_", "-"), value) for key, value in parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            values[name[len("PIP_") :].lower().replace("_", "-")] = value
    return PipSettings(
        index_url=values.get("index-url", "").strip(),
        extra_index_urls=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        no_index=values.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"),
        cert=values.get("cert", "").strip(),
        client_cert=values.get("client-cert", "").strip(),
        proxy=values.get("proxy", "").strip(),
        constraints=tuple(values.get("constraint", "").split()),
        others=tuple((name, values[name]) for name in _PASSED_ON if values.get(name)),
    )


def files_of_pip(environ: Mapping[str, str], home: str) -> Iterator[Path]:
    """Yield the files of pip's configuration, whether they are there or not, those that count most last."""
    own = environ.get("PIP_CONFIG_FILE", "")
    if own == os.devnull:
        return
    for directory in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(directory, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    yield Path(home, ".pip", "pip.conf")
    yield Path(environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "pip", "pip.conf")
    if own:
        yield Path(own)


def has_own_uv_settings(environ: Mapping[str, str], home: str) -> bool:
    """Return whether uv itself is configured on this host; then it does not follow pip's configuration."""
    if any(environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")):
        return True
    return any(file.is_file() for file in files_of_uv(environ, home))


def files_of_uv(environ: Mapping[str, str], home: str) -> tuple[Path, ...]:
    """Return the files of uv's configuration, whether they are there or not."""
    if environ.get("UV_CONFIG_FILE"):
        return (Path(environ["UV_CONFIG_FILE"]),)
    folders = [environ.get("XDG_CONFIG_HOME") or str(Path(home, ".config"))]
    folders += (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    return (*(Path(folder, "uv", "uv.toml") for folder in folders), Path("/etc/uv/uv.toml"))


def _lines_of_uv(environ: Mapping[str, str], home: str) -> Iterator[tuple[Path, int, str]]:
    """Yield file, number and text of each line of uv's configuration that is no comment."""
    for file in files_of_uv(environ, home):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        yield from ((file, number, line) for number, line in enumerate(lines, 1) if not line.lstrip().startswith("#"))


def require_neutral_uv(environ: Mapping[str, str], home: str) -> None:
    """Make sure that uv's configuration does not keep packages out of the environment that it is to fill.

    uv has no option to overrule it, and nothing but uv understands all of it, so that it cannot do without.

    Raises:
        CaveError: it does.
    """
    for file, number, line in _lines_of_uv(environ, home):
        found = _ELSEWHERE.search(line)
        if found:
            raise CaveError(
                f"{file} sets {found['name']} in line {number}, and with that uv fills no environment. "
                "Take it out, or set installer: pip."
            )


def places_of_uv(environ: Mapping[str, str], home: str) -> Iterator[tuple[str, bool]]:
    """Yield the places on this host that uv's configuration names, and whether packages are taken from there.

    Without that it is the folder of uv's cache.
    """
    for _file, _number, line in _lines_of_uv(environ, home):
        for place in filter(None, map(local_path, _PLACE.findall(line))):
            yield place, "cache-dir" not in line


def as_pip_environment(settings: PipSettings) -> dict[str, str]:
    """Return the variables that tell pip these settings, and that it is to read no configuration file.

    Nothing but this keeps out an extra index, a ``target``, a ``prefix`` or ``require-hashes`` that a file names.
    """
    found = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": settings.index_url,
        "PIP_EXTRA_INDEX_URL": " ".join(settings.extra_index_urls),
        "PIP_FIND_LINKS": " ".join(settings.find_links),
        "PIP_TRUSTED_HOST": " ".join(settings.trusted_hosts),
        "PIP_NO_INDEX": "1" if settings.no_index else "",
        "PIP_CERT": settings.cert,
        "PIP_CLIENT_CERT": settings.client_cert,
        "PIP_PROXY": settings.proxy,
    }
    found.update((f"PIP_{name.upper().replace('-', '_')}", value) for name, value in settings.others)
    return {name: value for name, value in found.items() if value}


def as_uv_environment(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make uv look where pip would look, and trust what pip would trust.

    Variables rather than arguments: other users can read the arguments of a process, and a URL may hold a password.
    ``no_index`` has no variable, so it is not among them.
    """
    found: dict[str, str] = {}
    if settings.index_url:
        found["UV_DEFAULT_INDEX"] = settings.index_url
    extra = [url for url in settings.extra_index_urls if not _names_nothing_here(url)]
    if extra:
        found["UV_INDEX"] = " ".join(extra)
        # pip takes the best version that any of its indexes has; uv by itself stops at the first that has any.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    links = [link for link in settings.find_links if not _names_nothing_here(link)]
    if links:
        found["UV_FIND_LINKS"] = ",".join(links)
    if settings.trusted_hosts:
        found["UV_INSECURE_HOST"] = " ".join(settings.trusted_hosts)
    if settings.cert and not environ.get("SSL_CERT_FILE"):
        found["SSL_CERT_FILE"] = settings.cert
    if settings.client_cert and not environ.get("SSL_CLIENT_CERT"):
        found["SSL_CLIENT_CERT"] = settings.client_cert
    if settings.proxy and not any(name.lower() in ("https_proxy", "all_proxy") for name in environ):
        found["ALL_PROXY"] = settings.proxy
    return found


def _names_nothing_here(location: str) -> bool:
    """Return whether it is a folder or file that this host does not have: pip skips such a thing, uv stops at it."""
    place = local_path(location)
    return bool(place) and not Path(place).expanduser().exists()


def host_of_index(url: str) -> str | None:
    """Return host and port of an index's URL, without its credentials; None where it has no host."""
    return urlsplit(mask_credentials(url)).netloc.rpartition("@")[2] or None
