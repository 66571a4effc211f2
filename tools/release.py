# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the collection's tarball of the last commit, sign it, and check that very file: `nox -s release`.

    python tools/release.py [--key NAME] [--folder FOLDER] [--no-checks]

Whoever builds the same commit gets the same bytes: what ansible-galaxy makes is put in order, and every time is that of
the commit (or SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def build(folder: Path, root: Path = ROOT) -> Path:
    """Build the last commit of a checkout; return the tarball's path.

    Args:
        folder: where to put it.
        root: of the checkout. What is not committed is not in the tarball.

    Raises:
        subprocess.CalledProcessError: git or ansible-galaxy failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source, built = Path(temporary, "source"), Path(temporary, "built")
        source.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, check=True, capture_output=True).stdout
        subprocess.run(["tar", "--extract"], cwd=source, input=archive, check=True)
        command: list[str | Path] = [BIN / "ansible-galaxy", "collection", "build", "--output-path", built, source]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tarball = next(built.glob("*.tar.gz"))
        target = folder / tarball.name
        target.write_bytes(in_order(tarball.read_bytes(), commit_time(root)))
    return target


def commit_time(root: Path) -> int:
    """Return SOURCE_DATE_EPOCH, or else the time of the last commit, in seconds."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def in_order(tarball: bytes, time: int) -> bytes:
    """Return a collection's tarball with its files sorted and all times set; its manifests agree again."""
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        # Of a link, extractfile would return what it leads to.
        members = {
            member.name: (member, file.read() if member.isreg() and (file := tar.extractfile(member)) else b"")
            for member in tar
        }
    listing = json.loads(members["FILES.json"][1])
    listing["files"].sort(key=lambda entry: entry["name"])
    manifest = json.loads(members["MANIFEST.json"][1])
    new = {"FILES.json": json.dumps(listing, indent=True).encode()}
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(new["FILES.json"]).hexdigest()
    new["MANIFEST.json"] = json.dumps(manifest, indent=True).encode()

    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in ["MANIFEST.json", "FILES.json", *sorted(set(members) - set(new))]:
            member, content = members[name]
            content = new.get(name, content)
            member.size, member.mtime, member.pax_headers = len(content), time, {}
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def read(tarball: Path, name: str) -> bytes:
    """Return the content of a file in a tarball."""
    with tarfile.open(tarball) as tar:
        file = tar.extractfile(name)
        return file.read() if file else b""


def sign(tarball: Path, key: str, *options: str) -> Path:
    """Sign the MANIFEST.json in a tarball, which has the checksums of all else; return the signature's path.

    Args:
        tarball: the collection.
        key: name of the secret key.
        options: further ones for gpg.
    """
    signature = tarball.with_name(tarball.name + ".asc")
    command = ["gpg", "--batch", "--yes", *options, "--armor", "--local-user", key, "--output", str(signature)]
    subprocess.run([*command, "--detach-sign", "-"], input=read(tarball, "MANIFEST.json"), check=True)
    return signature


def say_what_is_missing(tarball: Path) -> None:
    """Say what stands between this tarball and a release."""
    version = json.loads(read(tarball, "MANIFEST.json"))["collection_info"]["version"]
    changelog = ROOT / "changelogs" / "changelog.yaml"
    releases = yaml.safe_load(changelog.read_text())["releases"] if changelog.exists() else {}
    if version not in releases:
        print(f"Not a release yet: the changelog has no {version}. Run antsibull-changelog release, and commit.")
    status = subprocess.run(["git", "status", "--short"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    if status:
        print(f"{len(status.splitlines())} files have changes that are not committed, and so are not in it.")


def main() -> None:
    """Build, sign, check."""
    parser = argparse.ArgumentParser(description="Build the collection's tarball, sign it, and check it.")
    parser.add_argument("--key", help="name of the GPG key to sign with")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where to put it")
    parser.add_argument("--no-checks", action="store_true", help="leave it at that")
    options = parser.parse_args()
    tarball = build(options.folder)
    print(f"{hashlib.sha256(tarball.read_bytes()).hexdigest()}  {tarball}")
    if options.key:
        print(f"signed: {sign(tarball, options.key)}")
    if not options.no_checks:
        environment = {**os.environ, "CAVE_RELEASE": str(tarball.resolve())}
        checked = subprocess.run([BIN / "pytest", "-q", "tests/slow/package"], cwd=ROOT, env=environment, check=False)
        if checked.returncode:
            sys.exit(f"{tarball} is not fit to be released.")
    say_what_is_missing(tarball)


if __name__ == "__main__":
    main()
