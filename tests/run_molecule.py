# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run molecule with all that it needs here: images, the collection for podman, a way to the package index.

    python tests/run_molecule.py test
    python tests/run_molecule.py converge --scenario-name default

Molecule itself is told nothing special: with podman, the collection containers.podman and a registry that has Debian's
images, `molecule test` does the same. Here the images are made on this machine (unless CAVE_IMAGE_PREFIX names others),
and the collection is taken out of the `ansible` package of the Python index, because Galaxy is not needed for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from images import build, index, rootfs

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ANSIBLE = "ansible==12.3.0 --hash=sha256:cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414"
COLLECTION = "ansible_collections/containers/podman/"


def collection_folder() -> Path:
    """Return a folder for ANSIBLE_COLLECTIONS_PATH with containers.podman in it, which is fetched once.

    Raises:
        subprocess.CalledProcessError: the package cannot be downloaded.
    """
    folder = rootfs.cache_folder() / "collections" / ANSIBLE.split()[0]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(ANSIBLE)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--only-binary=:all:", "--require-hashes", f"--requirement={wanted}", f"--dest={temporary}"),
            ],
            check=True,
        )
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith(COLLECTION)])
        unpacked.rename(folder)
    return folder


def index_folder() -> Path:
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


def environment() -> dict[str, str]:
    """Return the environment for molecule.

    Raises:
        images.rootfs.RootfsError: an image cannot be made.
    """
    own = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.tree'}{os.pathsep}{collection_folder()}",
        "CONTAINERS_CONF": str(build.CONTAINERS_CONF),
        "CAVE_INDEX_FILES": str(index_folder()),
    }
    if "CAVE_IMAGE_PREFIX" not in os.environ:
        for release in rootfs.RELEASES:
            build.build(release)
        own["CAVE_IMAGE_PREFIX"] = build.PREFIX
    return os.environ | own


def main() -> None:
    """Run molecule with the arguments of this script."""
    try:
        variables = environment()
    except (rootfs.RootfsError, subprocess.CalledProcessError) as error:
        sys.exit(f"run_molecule.py: {error}")
    os.chdir(ROOT)
    sys.exit(subprocess.run([BIN / "molecule", *(sys.argv[1:] or ["test"])], env=variables, check=False).returncode)


if __name__ == "__main__":
    main()
