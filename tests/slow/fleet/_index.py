# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's way to the package index that this machine uses: route, names, certificates, settings of pip and uv."""

from __future__ import annotations

import shutil
from pathlib import Path

from images import index

from ._host import Host

CERTIFICATES = str(index.BUNDLE.parent)
RESOLVERS = (
    "/run/systemd/resolve/resolv.conf",
    "/etc/resolv.conf",
)  # the first names no resolver on a loopback address


def connect(host: Host) -> None:
    """Let a host reach what this machine reaches, and trust whom it trusts; its fleet must forward packets."""
    host.ip("route", "add", "default", "via", host.network.gateway)
    resolver = next(path for path in map(Path, RESOLVERS) if path.exists())
    _write(host, "/etc/resolv.conf", resolver.read_text())
    if index.BUNDLE.exists():
        # Away with the links in it first: seen from this machine, they lead to files of this machine.
        shutil.rmtree(host.root(CERTIFICATES))
        shutil.copytree(CERTIFICATES, host.root(CERTIFICATES))
    host.root("/etc/uv").mkdir(exist_ok=True)
    _write(host, "/etc/pip.conf", index.pip_conf())
    _write(host, "/etc/uv/uv.toml", index.uv_toml())


def _write(host: Host, path: str, text: str) -> None:
    host.root(path).write_text(text)
    host.root(path).chmod(0o644)
