# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lock requirements/dev.in into dev.txt, and uv alone, which installs the rest, into uv.txt.

Every hash of every platform is kept and no index is named, so that pip and uv both install from the lock, from
whichever index the machine uses. Arguments are handed to `uv pip compile`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = "# Locked from dev.in by `make lock`; installs with pip and with uv.\n"


def main() -> None:
    """Write both lock files."""
    lock = HERE / "dev.txt"
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    subprocess.run([*command, *sys.argv[1:], "dev.in", "--output-file=dev.txt"], cwd=HERE, check=True)
    text = lock.read_text(encoding="utf-8").removeprefix(HEADER)
    entry = re.search(r"^uv==(?:.*\\\n)*.*\n", text, re.MULTILINE)
    if entry is None:
        sys.exit("lock.py: dev.in must name uv, which installs the rest")
    lock.write_text(HEADER + text, encoding="utf-8")
    (HERE / "uv.txt").write_text(HEADER + entry.group(), encoding="utf-8")


if __name__ == "__main__":
    main()
