# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the CA certificates that a user's startup files name vouch for a server, which others reach."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import Problem, in_order

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import UserFiles

_NO_CONNECTION = ("unreachable", "tls_error")
_DISTRUST = "by the CA certificates in"
"""What is in a reason where the authority of a certificate is not among those that are trusted."""


def trusted(ca_path: str | None) -> str:
    """Return the file of the CA certificates that this process trusts; empty where it is no single one."""
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import bundle_for_requests

    return bundle_for_requests(ca_path) or ""


def usable_bundles(files: UserFiles, server: str, trusted: str | None) -> list[tuple[str, dict[str, str]]]:
    """Return the user's CA certificates, each with the problem that there is if they do not vouch for a server.

    To be called in a process that is the user.

    Args:
        files: the user's.
        server: its address.
        trusted: a file of certificates that do; empty where none is known, None where nobody is to ask.
    """
    if trusted is None or not files.ca_bundles or not server.startswith("https:"):
        return []
    # Few homes name any.
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.ca_bundles import certificates_in
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.remedies import (
        add_authorities,
        name_no_bundle,
    )
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_problems import named_bundle
    from ansible_collections.connectomics.cave.plugins.module_utils._trust import changeable

    bundles = []
    for found, flaw in files.ca_bundles:
        certificates = "" if flaw else certificates_in(found.path)
        if not certificates:
            continue
        is_own = os.access(found.path, os.W_OK)
        is_other = bool(trusted) and os.path.realpath(trusted) != os.path.realpath(found.path)
        # What the user can put in its place, such as a link, root does not write to.
        if is_other and (is_own or not changeable(found.path, (0,))):
            remedy = add_authorities(files, found.path, trusted, is_own=is_own)
        else:
            remedy = name_no_bundle(files, found)
        message = (
            f"{named_bundle(found)}, which lacks the authority that signed the certificate of {server}: programs that "
            "are started with it do not reach that server."
        )
        bundles.append((certificates, Problem("ca_bundle", found.startup_file, message, remedy)._asdict()))
    return bundles


def note_distrust(results: Iterable[tuple[dict[str, Any], Iterable[Any]]], timeout: int) -> None:
    """Add to users' results the problems with certificates that do not vouch for a server that was reached.

    Args:
        results: of each user and server, with what ``usable_bundles`` found.
        timeout: seconds for each question to a server.
    """
    asked: dict[tuple[str, str], bool] = {}
    for result, bundles in results:
        if result.get("access", {}).get("verdict", _NO_CONNECTION[0]) in _NO_CONNECTION:
            continue
        for certificates, problem in bundles:
            key = (result["server"], certificates)
            if key not in asked:
                asked[key] = _is_distrusted(*key, timeout)
            if asked[key]:
                known = [Problem(**one) for one in (*result["problems"], problem)]
                result["problems"] = [one._asdict() for one in in_order(known)]


def _is_distrusted(server: str, certificates: str, timeout: int) -> bool:
    import tempfile  # where it is needed only: it takes longer to import than a user's files to read

    from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import HttpError, request

    try:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(certificates)
            file.flush()
            request("HEAD", f"{server}/", timeout=timeout, ca_path=file.name)
    except HttpError as error:
        return error.kind == "tls" and _DISTRUST in error.reason
    except OSError:  # no room for a file
        return False
    return False
