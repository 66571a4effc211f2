# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tiny wheels under the names of real packages: installed in no time, without a network.

`python tests/support/stub_wheels.py FOLDER VERSION...` fills a folder.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    requires_python: str = ">=3.8",
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel into ``folder`` and return its path.

    Args:
        folder: made when it is not there.
        name: of the package.
        version: of the package.
        files: content by path.
        requires: requirements.
        extras: requirements by extra.
        requires_python: a specifier.
        tag: of the wheel's file name.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {requires_python}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    for extra, requirements in (extras or {}).items():
        metadata.append(f"Provides-Extra: {extra}")
        metadata += [f"Requires-Dist: {requirement}; extra == '{extra}'" for requirement in requirements]
    contents = {
        **files,
        f"{info}/METADATA": "\n".join([*metadata, "", ""]),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(member, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def caveclient(
    folder: Path, version: str, source: str = "", requires: Iterable[str] = ("packaging>=20",), **more: str
) -> Path:
    """Write a caveclient that imports, has the extra ``cv``, and knows its version in two modules.

    Args:
        folder: of wheels.
        version: of caveclient.
        source: code that importing it runs.
        requires: its requirements.
        more: further arguments of `wheel`.
    """
    files = {
        "caveclient/__init__.py": f"__version__ = {version!r}\n{source}\n",
        "caveclient/late.py": f"VERSION = {version!r}\n",
    }
    return wheel(folder, "caveclient", version, files, requires, {"cv": ["cloud-volume"]}, **more)


def lab(folder: Path, *versions: str) -> Path:
    """Fill a folder with caveclient in some versions, and with all that the tests install besides."""
    for version in versions:
        caveclient(folder, version)
    repack(folder, "packaging")
    wheel(folder, "cloud-volume", "12.15.2", {"cloudvolume/__init__.py": ""})
    launcher = "import json, os, numpy\nprint(json.dumps([numpy.__file__, os.environ.get('REQUESTS_CA_BUNDLE')]))\n"
    kernel = {"ipykernel/__init__.py": "", "ipykernel/kernelapp.py": "", "ipykernel_launcher.py": launcher}
    wheel(folder, "ipykernel", "7.0.0", kernel)
    wheel(folder, "matplotlib", "3.9.0", {"matplotlib/__init__.py": ""}, ["numpy"])
    for version in ("1.26.4", "2.3.5"):
        wheel(folder, "numpy", version, {"numpy/__init__.py": ""})
    return folder


def repack(folder: Path, name: str) -> Path:
    """Write a wheel with the source of a pure package that the tests' own Python has."""
    module = importlib.import_module(name)
    package = Path(str(module.__file__)).parent
    files = {str(path.relative_to(package.parent)): path.read_text() for path in package.rglob("*.py")}
    return wheel(folder, name, module.__version__, files)


if __name__ == "__main__":
    lab(Path(sys.argv[1]), *sys.argv[2:])
