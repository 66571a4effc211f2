# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lock every requirements/*.in into a .txt, and uv alone, which installs the rest, into uv.txt.

The hashes of every platform are kept and no index is named, so that pip and uv both install from the locks, from
whichever index the machine uses. Arguments are handed to `uv pip compile`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def lock(wanted: Path, *arguments: str) -> str:
    """Lock what is wanted into the .txt beside it and return the text of the lock."""
    locked = wanted.with_suffix(".txt")
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    # What is locked already is where uv starts from: only --upgrade moves a version that still fits.
    subprocess.run([*command, *arguments, wanted.name, f"--output-file={locked.name}"], cwd=HERE, check=True)
    text = header(wanted) + locked.read_text(encoding="utf-8").removeprefix(header(wanted))
    locked.write_text(text, encoding="utf-8")
    return text


def header(wanted: Path) -> str:
    """Return the first line of the lock of what is wanted."""
    return f"# Locked from {wanted.name} by `make lock`; installs with pip and with uv.\n"


def main() -> None:
    """Write the lock files."""
    locks = {wanted.name: lock(wanted, *sys.argv[1:]) for wanted in sorted(HERE.glob("*.in"))}
    uv = re.search(r"^uv==(?:.*\\\n)*.*\n", locks["dev.in"], re.MULTILINE)
    if uv is None:
        sys.exit("requirements/dev.in must name uv, which installs the rest")
    (HERE / "uv.txt").write_text(header(HERE / "dev.in") + uv.group(), encoding="utf-8")


if __name__ == "__main__":
    main()
