# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's home: where the readers of that user look for secrets files."""

from __future__ import annotations

import os
import os.path
import re
from typing import Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _readers

_STARTUP_FILES = (
    ".pam_environment",
    ".profile",
    ".bash_profile",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
)
_SYSTEM_FILES = ("/etc/environment", "/etc/profile.d/cloudvolume.sh", "/etc/profile.d/caveclient.sh")
_STARTUP_MAX_BYTES = 262144


class Home(NamedTuple):
    """The user whose files they are, and how the files shall be."""

    name: str
    uid: int
    path: str
    secrets_dir: str = ""
    cloud_volume_dir: str | None = None
    """None: found out from the user's and the host's environment."""
    mode: int = 0o600
    group: int | None = None
    on_malformed: str = "fail"

    @property
    def directory_mode(self) -> int:
        """The mode of secrets directories: entered by whoever may read the files."""
        return 0o700 | (0o050 if self.mode & 0o040 else 0)

    def places(self) -> _readers.Places:
        """Return where this user's readers look; to be called in a process that is the user."""
        elsewhere = self.cloud_volume_dir
        if elsewhere is None:
            elsewhere = cloud_volume_dir(self.path, os.environ)
        return _readers.places(self.path, elsewhere, os.environ.get("CLOUD_FILES_DIR", ""), self.secrets_dir)


def cloud_volume_dir(home: str, environment: Mapping[str, str]) -> str:
    """Return the user's ``CLOUD_VOLUME_DIR`` as far as it can be known without running anything of theirs.

    Literal assignments in the user's startup files win over the task's environment, and that over ``/etc``.
    """
    found = [_assigned(os.path.join(home, name), home) for name in _STARTUP_FILES]
    found.append(environment.get("CLOUD_VOLUME_DIR"))
    found += [_assigned(path, home) for path in _SYSTEM_FILES]
    return next((value for value in found if value), "")


def _assigned(path: str, home: str) -> str:
    """Return the last literal value that a shell startup file gives CLOUD_VOLUME_DIR."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hold us up
    except OSError:
        return ""
    try:
        content = os.read(descriptor, _STARTUP_MAX_BYTES)
    except OSError:
        content = b""
    finally:
        os.close(descriptor)
    if b"CLOUD_VOLUME_DIR" not in content:
        return ""
    value = ""
    for line in content.decode("utf-8", "replace").splitlines():
        match = re.match(r"""\s*(?:export\s+)?CLOUD_VOLUME_DIR\s*=\s*(["']?)([^"'#;&|`]+?)\1\s*(?:[#;&].*)?$""", line)
        if match:
            value = re.sub(r"^~(?=/|$)|\$HOME\b|\$\{HOME\}", lambda _match: home, match.group(2))
    return value if value.startswith("/") and "$" not in value else ""
