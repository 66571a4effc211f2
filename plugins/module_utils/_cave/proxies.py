# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which proxy an address is asked through: the one that requests, and so caveclient, takes from the environment."""

from __future__ import annotations

import binascii
import contextlib
import ipaddress
import os
import re
import urllib.parse
from urllib.request import getproxies, proxy_bypass

_PORTS = {"http": 80, "https": 443}


class ProxyError(Exception):
    """The proxy that the environment names cannot be used; the text says which one and why, without credentials."""


def proxy_of(url: str) -> urllib.parse.SplitResult | None:
    """Return the proxy for an address, always with a port; None for none. Raises ProxyError.

    ``all_proxy`` counts where the scheme has no variable of its own. A proxy without a port has its scheme's.
    """
    parts = urllib.parse.urlsplit(url)
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or _is_direct(parts):
        return None
    return _usable(named)


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address as messages name it: ``host:port``, without credentials; None for none."""
    with contextlib.suppress(ProxyError):
        proxy = proxy_of(url)
        return f"{proxy.hostname}:{proxy.port}" if proxy else None
    return None


def proxy_headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    """Return the headers that tell a proxy who asks."""
    if not proxy.username:
        return {}
    credentials = urllib.parse.unquote(f"{proxy.username}:{proxy.password or ''}").encode()
    return {"Proxy-Authorization": f"Basic {binascii.b2a_base64(credentials, newline=False).decode()}"}


def _usable(named: str) -> urllib.parse.SplitResult:
    if "//" not in named and re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", named):
        place = named.rpartition("@")[2]  # what is before it is a password
        raise ProxyError(f"the proxy {place} has no http:// in front, which caveclient needs before a name with a port")
    try:
        proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named.lstrip('/')}")
        port = proxy.port
        host = proxy.hostname
    except ValueError:
        port, host = 0, None
    if not host or port == 0:
        raise ProxyError("the proxy of the environment is not of the form http://HOST:PORT")
    shown = f"{proxy.scheme}://{host}" + (f":{port}" if port else "")
    if proxy.scheme.startswith("pac+") or proxy.path.lower().endswith((".pac", ".dat")):
        raise ProxyError(
            f"the proxy {shown} is a file for automatic configuration (PAC), which neither this check nor caveclient "
            "runs: name the proxy that it leads to"
        )
    if proxy.scheme.startswith("socks"):
        raise ProxyError(
            f"the proxy {shown} speaks SOCKS, which this check does not, and caveclient only with the package PySocks"
        )
    if proxy.scheme == "https":
        raise ProxyError(f"the proxy {shown} is named with https://, and this check reaches proxies by http:// alone")
    if proxy.scheme != "http":
        raise ProxyError(f"the proxy {shown} is no HTTP proxy")
    if port is None:
        netloc = proxy.netloc.rstrip(":") + f":{_PORTS[proxy.scheme]}"
        proxy = proxy._replace(netloc=netloc)
    return proxy


def _is_direct(parts: urllib.parse.SplitResult) -> bool:
    """Return whether ``no_proxy`` excepts an address, by the rules of requests 2.34.

    Networks (10.0.0.0/8) except addresses of IPv4 alone; a name excepts itself and what is below it.
    """
    host = parts.hostname or ""
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    items = [item for item in excepted.replace(" ", "").split(",") if item]
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        named = (host, f"{host}:{parts.port}")
        if any(f".{name}".endswith(f".{item.lstrip('.')}") for item in items for name in named):
            return True
    else:
        if any(item == host or ("/" in item and _holds(item, address)) for item in items):
            return True
    return bool(proxy_bypass(host))


def _holds(network: str, address: ipaddress.IPv4Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
