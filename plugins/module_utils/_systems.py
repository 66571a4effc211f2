# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that knows how systems differ: where homes are, and the commands that people type.

What is said to people is for this host, unless a system is named.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import NamedTuple

LINUX, MACOS = "Linux", "Darwin"
"""As platform.system() names them."""
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the certificate authorities that they trust, in one file."""
_RELEASE = "/etc/os-release"
_SELINUX = "/sys/fs/selinux/enforce"
_RESTORECON = ("/usr/sbin/restorecon", "/sbin/restorecon")
_PATIENCE = 60
"""Seconds in which labels have to be restored."""
_FAMILIES = {
    "debian": ("debian", "ubuntu"),
    "fedora": ("fedora",),
    "el": ("rhel", "centos", "rocky", "almalinux", "ol"),
    "suse": ("suse", "opensuse", "sles"),
}


class System(NamedTuple):
    """A system, as far as it matters here."""

    kind: str = LINUX
    family: str = ""
    """debian, el, fedora, suse; empty for others, and for macOS."""
    major: int = 0
    """First number of a Linux distribution's version."""

    @property
    def homes(self) -> str:
        """The folder of homes."""
        return "/Users" if self.kind == MACOS else "/home"

    @property
    def first_user_id(self) -> int:
        """User ids below it are the system's own."""
        return 501 if self.kind == MACOS else 1000

    def jupyter_of(self, home: str) -> str:
        """Return the data folder of Jupyter in a home."""
        return os.path.join(home, "Library/Jupyter" if self.kind == MACOS else ".local/share/jupyter")

    def install_python(self, version: str = "") -> str:
        """Return the command that installs a Python (as in 3.11), by default one that every caveclient runs on."""
        version = ".".join(version.split(".")[:2])
        if self.kind == MACOS:  # what Homebrew and python.org install can be changed by others than root
            return (
                f"sudo uv python install --install-dir /opt/python {version}" if version else "xcode-select --install"
            )
        if self.family == "el" and self.major == 8 and version == "3.9":
            return "sudo dnf install python39"
        if self.family == "suse":
            return f"sudo zypper install python{(version or '3.11').replace('.', '')}"
        usual = "3.11" if self.family == "el" and self.major in (8, 9) else ""
        name = f"python{version or usual or '3'}"
        return {
            "debian": f"sudo apt-get install {name}",
            "el": f"sudo dnf install {name}",
            "fedora": f"sudo dnf install {name}",
        }.get(self.family, f"Install {name} with this system's package manager")

    def install_pip(self) -> str:
        """Return the command that installs pip for the system's own Python."""
        if self.kind == MACOS:
            return "brew install uv"
        return {
            "debian": "sudo apt-get install python3-venv",
            "el": "sudo dnf install python3-pip",
            "fedora": "sudo dnf install python3-pip",
            "suse": "sudo zypper install python3-pip",
        }.get(self.family, "Install pip with this system's package manager")

    def make_home(self, user: str) -> str:
        """Return the command that gives an account a home of its own; ``user`` is quoted for a shell."""
        return f"sudo createhomedir -c -u {user}" if self.kind == MACOS else "usermod --home"

    def add_to_group(self) -> str:
        """Return the command that makes somebody a member of a group."""
        return "dseditgroup -o edit -a USER -t user GROUP" if self.kind == MACOS else "usermod -aG"

    def allow_changes(self, path: str) -> str:
        """Return the command that takes the mark of immutable files off; ``path`` is quoted for a shell."""
        return f"sudo chflags nouchg,noschg {path}" if self.kind == MACOS else f"sudo chattr -ia {path}"

    def edit(self) -> str:
        """Return the command that edits a file in its place, up to the script of sed."""
        return "sed -i ''" if self.kind == MACOS else "sed -i --follow-symlinks"

    def trust_authority(self) -> str:
        """Return how to install a certificate authority in the system's store."""
        return "security add-trusted-cert" if self.kind == MACOS else "update-ca-certificates or update-ca-trust"

    def check_clock(self) -> str:
        """Return the command that shows whether the clock is right."""
        return "sntp time.apple.com" if self.kind == MACOS else "timedatectl"


def system_of(platform: str, release: str) -> System:
    """Return a system.

    Args:
        platform: ``sys.platform``.
        release: the content of /etc/os-release.
    """
    if platform == "darwin":
        return System(MACOS)
    values = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", release, re.MULTILINE))
    names = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".lower().split()
    # The first name counts most: Rocky is like rhel, centos and fedora.
    families = [family for name in names for family, members in _FAMILIES.items() if name.split("-")[0] in members]
    major = re.match(r"\d+", values.get("VERSION_ID", ""))
    return System(LINUX, families[0] if families else "", int(major.group()) if major else 0)


def this_system() -> System:
    """Return the system that this runs on."""
    release = ""
    with contextlib.suppress(OSError, UnicodeDecodeError), open(_RELEASE, encoding="utf-8") as file:
        release = file.read(65536)
    return system_of(sys.platform, release)


def system_certificates() -> str:
    """Return the file of the certificate authorities that this host trusts; empty where there is none."""
    return next((bundle for bundle in CERTIFICATES if os.path.isfile(bundle)), "")


def restore_labels(*paths: str) -> None:
    """Give files, and what is below folders, the labels that SELinux's policy has for them, where there is a policy.

    What was made elsewhere and moved or linked to its place, such as what an installer takes from a cache of root's,
    keeps a label with which confined programs may not read it.
    """
    program = next((path for path in _RESTORECON if os.access(path, os.X_OK)), "")
    if not paths or not program or not os.path.exists(_SELINUX):
        return
    import subprocess  # where it is needed only: it takes longer to import than a token to save

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # run_command of AnsibleModule has no time limit, and there is no module here.
        subprocess.run(  # pylint: disable=ansible-bad-function
            [program, "-R", *paths],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
        )
