# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other people's collections, out of the `ansible` package of the Python index: Galaxy is not needed for them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from images.rootfs import cache_folder

ANSIBLE = "ansible==12.3.0 --hash=sha256:cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414"


def collections_folder(*names: str) -> Path:
    """Return a folder for ANSIBLE_COLLECTIONS_PATH with the collections in it, which are fetched once.

    Raises:
        subprocess.CalledProcessError: the package cannot be downloaded.
    """
    folder = cache_folder() / "collections" / "-".join([ANSIBLE.split()[0], *sorted(names)])
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefixes = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in names)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(ANSIBLE)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", f"--requirement={wanted}", f"--dest={temporary}"]
        subprocess.run(command, check=True)
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith(prefixes)])
        unpacked.rename(folder)
    return folder
