# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates of a throw-away authority, good ones and bad ones."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterable
from pathlib import Path

import trustme

CERTIFICATES = ("good", "wrong_host", "expired", "untrusted")
TLS_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def server_context(kind: str, names: Iterable[str], bundle: Path, tls_version: str | None = None) -> ssl.SSLContext:
    """Return what a server needs, and write the bundle with which a client may trust it.

    Args:
        kind: `good`; `wrong_host` (for another host); `expired` (yesterday); `untrusted` (its
            authority is not in the bundle).
        names: host names and addresses that a good certificate is for.
        bundle: the file to write.
        tls_version: the only version to speak: `1.0`, `1.1`, `1.2` or `1.3`; None: 1.2 and later.
    """
    if kind not in CERTIFICATES:
        raise ValueError(f"there is no certificate {kind!r}; there are {', '.join(CERTIFICATES)}")
    authority = trustme.CA(organization_name="Throw-away authority of the stand-in CAVE server")
    authority.cert_pem.write_to_path(bundle)
    now = datetime.datetime.now(datetime.UTC)
    issuer = trustme.CA() if kind == "untrusted" else authority
    certificate = issuer.issue_cert(
        *(["elsewhere.example.org"] if kind == "wrong_host" else names),
        not_before=now - datetime.timedelta(days=30),
        not_after=now + datetime.timedelta(days=-1 if kind == "expired" else 30),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if tls_version:
        if tls_version in ("1.0", "1.1"):
            # OpenSSL 3 allows them, with the signatures that they need, at its lowest security level alone.
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = TLS_VERSIONS[tls_version]
    return context
