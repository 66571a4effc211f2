# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's way to the package index that this machine uses: route, names, certificates, settings of pip and uv."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ._host import Host

CERTIFICATES = "/etc/ssl/certs"
BUNDLE = f"{CERTIFICATES}/ca-certificates.crt"
RESOLVERS = (
    "/run/systemd/resolve/resolv.conf",
    "/etc/resolv.conf",
)  # the first names no resolver on a loopback address
SETTINGS = ("index-url", "extra-index-url", "proxy", "trusted-host")


def connect(host: Host) -> None:
    """Let a host reach what this machine reaches, and trust whom it trusts; its fleet must forward packets."""
    host.ip("route", "add", "default", "via", host.network.gateway)
    resolver = next(path for path in map(Path, RESOLVERS) if path.exists())
    _write(host, "/etc/resolv.conf", resolver.read_text())
    if Path(BUNDLE).exists():
        # Away with the links in it first: seen from this machine, they lead to files of this machine.
        shutil.rmtree(host.root(CERTIFICATES))
        shutil.copytree(CERTIFICATES, host.root(CERTIFICATES))
    settings = dict(pip_settings())
    pip = [f"{key} = {value}" for key, value in settings.items()]
    _write(host, "/etc/pip.conf", "\n".join(["[global]", f"cert = {BUNDLE}", *pip, ""]))
    uv = ["system-certs = true"]
    if "index-url" in settings:
        uv.append(f'index-url = "{settings["index-url"]}"')
    host.root("/etc/uv").mkdir(exist_ok=True)
    _write(host, "/etc/uv/uv.toml", "\n".join([*uv, ""]))


def pip_settings() -> Iterator[tuple[str, str]]:
    """Yield those settings of this machine's pip that also mean something on another machine."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in str(ast.literal_eval(value)).split() if not word.startswith(("/", "file:"))]
        if key in SETTINGS and words:
            yield key, " ".join(words)


def _write(host: Host, path: str, text: str) -> None:
    host.root(path).write_text(text)
    host.root(path).chmod(0o644)
