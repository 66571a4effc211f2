# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Python with nothing but its standard library, and without ensurepip, as on a Debian without python3-venv."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from interpreters import is_open


def bare_python(folder: Path, externally_managed: bool = False) -> Path:
    """Make one from the Python that runs the tests, and return its path.

    Args:
        folder: where it goes.
        externally_managed: whether it says that the operating system owns it (PEP 668).
    """
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / name
    library.mkdir(parents=True)
    left_out = ("ensurepip", "site-packages", "EXTERNALLY-MANAGED", "__pycache__")
    for entry in Path(sysconfig.get_path("stdlib")).iterdir():
        if entry.name == "site.py" or entry.name.startswith("_sysconfigdata"):
            # Debian's names a fixed place for its own packages, and one for the wheels of ensurepip.
            text = entry.read_text().replace("dist-packages", "no-packages").replace("WHEEL_PKG_DIR", "NO_WHEELS")
            (library / entry.name).write_text(text)
        elif entry.name in left_out:
            continue
        elif is_open(str(entry)):
            (library / entry.name).symlink_to(entry)
        elif entry.is_dir():
            shutil.copytree(entry, library / entry.name, ignore=shutil.ignore_patterns("test", "__pycache__"))
        else:
            shutil.copy2(entry, library / entry.name)
    (library / "site-packages").mkdir()
    if externally_managed:
        (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=Ask the administrator.\n")
    shared = Path(sysconfig.get_config_var("LIBDIR") or "/nowhere") / (sysconfig.get_config_var("LDLIBRARY") or "none")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.exists():
        shutil.copy2(shared, folder / "lib" / shared.name)
    python = folder / "bin" / name
    python.parent.mkdir()
    # A link would lead Python back to the library that it came with.
    shutil.copy2(Path(sys.executable).resolve(), python)
    return python
