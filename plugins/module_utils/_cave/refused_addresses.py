# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of what was given for the address of a server and is none."""

from __future__ import annotations

import contextlib
import re

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import HOST_AND_PORT, PUBLIC
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import PART_HIDDEN, mask_token_like

_SCHEMES = re.compile(r"^(?:[A-Za-z+]*(?::/+|//))*")


def refused(value: object) -> CaveError:
    """Return the error that says what is wrong with an address that ``server_address`` does not take."""
    text = value.strip() if isinstance(value, str) else ""
    what = f"The server address {_shown(value)}"
    if "://" not in text:
        return CaveError(f"{what} has no https:// in front.{_hint(text)}")
    scheme, _separator, rest = text.partition("://")
    if scheme not in ("https", "http"):
        return CaveError(f"{what} begins with {scheme + '://'!r}; expected https://.{_hint(text)}")
    match = HOST_AND_PORT.fullmatch(rest[:-1] if rest.endswith("/") else rest)
    if match and scheme == "http" and f"https://{rest[: match.end('host')].lower()}" in PUBLIC:
        return CaveError(f"{what} would send the token unencrypted. Use https://{rest[: match.end('host')]}.")
    return CaveError(
        f"{what} is not of the form https://HOST or https://HOST:PORT "
        f"(no path, user name, question mark, white space or letters beyond ASCII).{_hint(text)}"
    )


def _hint(text: str) -> str:
    """Return a question, after a space, with the address that was probably meant; empty where there is none."""
    host = re.split(r"[/?#\\\s,]", _SCHEMES.sub("", text))[0].rstrip(".:")
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode()  # a name beyond ASCII, in the form that programs ask for
    scheme = "http" if text.lower().startswith("http:") else "https"
    address = f"{scheme}://{mask_token_like(host)}"
    match = HOST_AND_PORT.fullmatch(host)
    is_one = match and int(match.group("port") or 1) in range(1, 65536) and set(host) & set(".[")
    return f" Did you mean {address}?" if is_one and address != text else ""


def _shown(value: object) -> str:
    """Return what was given for an address as messages have it: without a password, or a token of a browser login."""
    text = str(value) if isinstance(value, str) else repr(value)
    before, separator, rest = text.rpartition("@")
    scheme = before.partition("://")[0] + "://" if "://" in before else ""
    text = f"{scheme}{PART_HIDDEN}@{rest}" if separator else text
    return repr(mask_token_like(text)) if isinstance(value, str) else mask_token_like(text)
