# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Container images of the root file systems, and what else molecule needs here: for machines that cannot pull images.

Molecule itself is told nothing special: with podman, the collection containers.podman and a registry that has Debian's
images, `molecule test` does the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from other_collections import collections_folder

from images import index, rootfs

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "localhost/connectomics-cave/"
CONTAINERS_CONF = Path(__file__).with_name("containers.conf")
LABEL = "connectomics.cave.rootfs"


def molecule_environment() -> dict[str, str]:
    """Return what molecule needs in its environment here: images, containers.podman, a way to the package index.

    The images are made on this machine, unless CAVE_IMAGE_PREFIX names others.

    Raises:
        images.rootfs.RootfsError: an image cannot be made.
        subprocess.CalledProcessError: containers.podman cannot be downloaded.
    """
    own = {
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.tree'}{os.pathsep}{collections_folder('containers.podman')}",
        "CONTAINERS_CONF": str(CONTAINERS_CONF),
        "CAVE_INDEX_FILES": str(_index_folder()),
    }
    if "CAVE_IMAGE_PREFIX" not in os.environ:
        for release in rootfs.RELEASES:
            build(release)
        own["CAVE_IMAGE_PREFIX"] = PREFIX
    return own


def podman(*arguments: str) -> list[str]:
    """Return a command of podman with the settings of this folder."""
    return ["env", f"CONTAINERS_CONF={CONTAINERS_CONF}", "podman", *arguments]


def build(release: str) -> str:
    """Make the image of a Debian release unless it is there; return its name.

    Raises:
        images.rootfs.RootfsError: the root file system cannot be built, or podman failed.
    """
    root = rootfs.provide(release)
    image = f"{PREFIX}debian:{release}"
    if _label(image) == root.path.name:
        return image
    changes = ['CMD ["/lib/systemd/systemd"]', "STOPSIGNAL SIGRTMIN+3", f"LABEL {LABEL}={root.path.name}"]
    options = [word for change in changes for word in ("--change", change)]
    with subprocess.Popen(["tar", "-C", str(root.path), "-c", "."], stdout=subprocess.PIPE) as tar:
        load = subprocess.run(
            podman("import", *options, "-", image), stdin=tar.stdout, capture_output=True, text=True, check=False
        )
    if load.returncode != 0 or tar.returncode != 0:
        raise rootfs.RootfsError(f"podman import {image}: {load.stderr.strip()}")
    return image


def _label(image: str) -> str:
    """Return which root file system an image was made of; an empty string when there is no such image."""
    command = podman("image", "inspect", "--format", f'{{{{index .Labels "{LABEL}"}}}}', image)
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _index_folder() -> Path:
    """Return a folder laid out as /etc, with what a container needs to reach the package index of this machine."""
    folder = rootfs.cache_folder() / "index"
    (folder / "uv").mkdir(parents=True, exist_ok=True)
    (folder / "pip.conf").write_text(index.pip_conf())
    (folder / "uv/uv.toml").write_text(index.uv_toml())
    if index.BUNDLE.exists():
        bundle = folder / index.BUNDLE.relative_to("/etc")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(index.BUNDLE, bundle)
    return folder
