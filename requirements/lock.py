# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lock every requirements/*.in into a .txt, and uv alone, which installs the rest, into uv.txt.

ansible-core.in is locked once for each ansible-core of tests/support/matrix.toml, for the oldest Python it runs on.
The hashes of every platform are kept and no index is named, so that pip and uv both install from the locks, from
whichever index the machine uses. Arguments are handed to `uv pip compile`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
MATRIX = HERE.parent / "tests" / "support" / "matrix.toml"
EACH_CORE = HERE / "ansible-core.in"


def lock(wanted: Path, *arguments: str, locked: Path | None = None, python: str = "3.11", core: str = "") -> str:
    """Lock what is wanted and return the text of the lock.

    Args:
        wanted: the file that says it.
        arguments: of `uv pip compile`.
        locked: the lock; the .txt beside what is wanted otherwise.
        python: the oldest version of Python that it is for.
        core: a version of ansible-core to keep to, such as "2.19".
    """
    locked = locked or wanted.with_suffix(".txt")
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "--quiet", "--universal", f"--python-version={python}", "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    sources = [wanted.name, *(["-"] if core else [])]
    # What is locked already is where uv starts from: only --upgrade moves a version that still fits.
    command += [*arguments, *sources, f"--output-file={locked.name}"]
    subprocess.run(command, cwd=HERE, check=True, text=True, input=f"ansible-core =={core}.*\n" if core else "")
    text = header(wanted) + locked.read_text(encoding="utf-8").removeprefix(header(wanted))
    locked.write_text(text, encoding="utf-8")
    return text


def header(wanted: Path) -> str:
    """Return the first line of the lock of what is wanted."""
    return f"# Locked from {wanted.name} by `nox -s lock`; installs with pip and with uv.\n"


def main() -> None:
    """Write the lock files."""
    locks = {wanted.name: lock(wanted, *sys.argv[1:]) for wanted in sorted(HERE.glob("*.in")) if wanted != EACH_CORE}
    for core, limits in tomllib.loads(MATRIX.read_text(encoding="utf-8"))["ansible-core"].items():
        python = min(limits["controller"], key=lambda version: [int(part) for part in version.split(".")])
        lock(EACH_CORE, *sys.argv[1:], locked=HERE / f"ansible-core-{core}.txt", python=python, core=core)
    uv = re.search(r"^uv==(?:.*\\\n)*.*\n", locks["dev.in"], re.MULTILINE)
    if uv is None:
        sys.exit("requirements/dev.in must name uv, which installs the rest")
    (HERE / "uv.txt").write_text(header(HERE / "dev.in") + uv.group(), encoding="utf-8")


if __name__ == "__main__":
    main()
