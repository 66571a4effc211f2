# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which certificate authorities are trusted, as requests (and so caveclient) would."""

from __future__ import annotations

import os
import ssl
import threading

from ansible_collections.connectomics.cave.plugins.module_utils._systems import system_certificates

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name a bundle, the first one counts. requests reads the first two, OpenSSL the last."""

_contexts: dict[tuple[str, int, int], ssl.SSLContext] = {}
_contexts_lock = threading.Lock()


def trust_bundle(ca_path: str | None) -> str | None:
    """Return the bundle of CA certificates to trust: that named, the environment's, or None: the system's."""
    if ca_path:
        return os.path.expanduser(ca_path)
    return next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)


def named_bundle(ca_path: str | None) -> str:
    """Return how messages name the bundle to trust, with what names it; empty for the system's."""
    bundle = trust_bundle(ca_path)
    variable = "ca_path" if ca_path else next((name for name in VARIABLES if os.environ.get(name)), "")
    return f"{bundle} ({variable})" if bundle else ""


def bundle_for_requests(ca_path: str | None) -> str | None:
    """Return the bundle that makes requests trust what ``tls_context`` trusts; None when no file does.

    requests does not look into the system's store: without a variable it trusts the list that it brought along.
    """
    return trust_bundle(ca_path) or system_certificates() or None


def unusable_bundle(bundle: str | None) -> str:
    """Return why this process cannot use a bundle; empty where it can."""
    try:
        if bundle:
            tls_context(bundle)
    except (OSError, ValueError) as error:
        return f"the CA certificates cannot be used ({getattr(error, 'strerror', None) or 'no such file'}): {bundle}"
    return ""


def tls_context(ca_path: str | None = None) -> ssl.SSLContext:
    """Return a context that checks certificates and host names and speaks TLS 1.2 or newer.

    Contexts are shared between threads: reading a store of some 150 certificates takes longer than a request.
    Raises OSError (ssl.SSLError is one), or ValueError for what no file is called, when the bundle cannot be used.
    """
    bundle = trust_bundle(ca_path)
    info = os.stat(bundle) if bundle else None
    key = (bundle or "", info.st_mtime_ns if info else 0, info.st_size if info else 0)
    with _contexts_lock:
        if key not in _contexts:
            _contexts[key] = _new_context(bundle)
        return _contexts[key]


def _new_context(bundle: str | None) -> ssl.SSLContext:
    if bundle and os.path.isdir(bundle):
        context = ssl.create_default_context(capath=bundle)
    elif bundle:
        context = ssl.create_default_context(cafile=bundle)
    else:
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        # An OpenSSL that was built elsewhere (a relocatable Python) looks in the directories of that machine.
        system = "" if paths.cafile or paths.capath else system_certificates()
        if system:
            context.load_verify_locations(cafile=system)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
