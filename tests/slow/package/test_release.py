# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a release is held to, tried on the tarball itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_run import ROOT, Run

from package.conftest import Installed, release

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
TOKEN_OR_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])|PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}")


def clone(folder: Path) -> Path:
    """Return a clone of this checkout's last commit."""
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", folder], check=True)
    return folder


# What is in it -------------------------------------------------------------------------------------------------------


def test_it_is_the_same_byte_for_byte_wherever_and_whenever_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = release.build(tmp_path / "first", clone(tmp_path / "one"))
    old = os.umask(0o077)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    try:
        second = release.build(tmp_path / "second", clone(tmp_path / "a longer name"))
    finally:
        os.umask(old)
    assert first.read_bytes() == second.read_bytes()


def test_it_holds_no_key_and_no_token(tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        found = [name for name in tar.getnames() if (file := member(tar, name)) and TOKEN_OR_KEY.search(file)]
    assert found == []


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """Return the content of a file in a tarball; of a folder, none."""
    file = tar.extractfile(name)
    return file.read() if file else b""


def test_it_holds_what_users_need_and_nothing_that_only_developers_do(tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        names = [name for name in tar.getnames() if member(tar, name)]
    assert {f"playbooks/{name}.yml" for name in PLAYBOOKS} - set(names) <= uncommitted()
    assert {"README.md", "LICENSE", "CHANGELOG.rst", "meta/runtime.yml", "meta/execution-environment.yml"} <= set(names)
    assert [name for name in names if name.startswith(("tests", "molecule", "tools", ".", "requirements"))] == []


def uncommitted() -> set[str]:
    """Return the files of the checkout that no commit has yet."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines())


# What Galaxy thinks of it ---------------------------------------------------------------------------------------------


def test_galaxy_importer_has_nothing_to_say_against_it(importer: Path, tarball: Path, tmp_path: Path) -> None:
    shutil.copy(tarball, tmp_path)
    settings = {"PATH": f"{importer.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [importer, "-m", "galaxy_importer.main", tarball.name],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Importer processing completed successfully" in output
    assert re.findall(r"^(?:WARNING|ERROR|CRITICAL).*", output, re.MULTILINE) == []


# Installed, and used --------------------------------------------------------------------------------------------------


def test_it_installs_into_an_empty_environment_and_every_playbook_can_be_run_by_name(
    installed: Installed, tmp_path: Path
) -> None:
    listed = installed.run(tmp_path, "galaxy", "collection", "list", "connectomics.cave")
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] in listed.output
    inside = sorted(
        path.stem for path in installed.collections.glob("ansible_collections/connectomics/cave/playbooks/*.yml")
    )
    run = installed.run(
        tmp_path, "playbook", "-i", "ws1,", "--syntax-check", *(f"connectomics.cave.{name}" for name in inside)
    )
    assert "provision" in inside
    assert run.ok, run.output
    # A group that rotate makes when it runs.
    assert set(re.findall(r"WARNING.*: (\S+)$", run.output, re.MULTILINE)) <= {"__caveclient_first"}, run.output


# Signed ---------------------------------------------------------------------------------------------------------------


class Signer:
    """Somebody with a key of GPG, thrown away afterwards."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700)
        self.home = folder
        self.name = name
        self.gpg("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "1d")
        self.keyring = folder / "trusted.kbx"
        exported = self.gpg("--export", name)
        subprocess.run(
            ["gpg", "--homedir", folder, "--no-default-keyring", "--keyring", self.keyring, "--batch", "--import"],
            input=exported,
            check=True,
            capture_output=True,
        )

    def gpg(self, *arguments: str) -> bytes:
        """Run gpg in a home of its own."""
        return subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--quiet", *arguments], check=True, capture_output=True
        ).stdout

    def close(self) -> None:
        """End the agent that gpg started."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    """A maintainer, and the keyring that trusts that one."""
    folder = tmp_path_factory.mktemp("g")  # short: sockets have short names
    signer = Signer(folder / "gpg", "release@lab.example.org")
    yield signer
    signer.close()


@pytest.fixture(scope="module")
def signature(signer: Signer, tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The signature beside a copy of the tarball."""
    copy = Path(shutil.copy(tarball, tmp_path_factory.mktemp("signed")))
    return Path(release.sign(copy, signer.name, "--homedir", str(signer.home)))


def install(computer: Installed, folder: Path, tarball: Path) -> None:
    """Install a tarball. ansible-galaxy looks at no signature then: only at those of a Galaxy server."""
    run = computer.run(
        folder, *("galaxy", "collection", "install", "--offline", "-p", str(computer.collections), str(tarball))
    )
    assert run.ok, run.output


def verify(computer: Installed, folder: Path, signer: Signer, signature: Path) -> Run:
    """Verify what is installed, as the guide says."""
    return computer.run(
        folder,
        *("galaxy", "collection", "verify", "--offline", "connectomics.cave"),
        *("--keyring", str(signer.keyring), "--signature", f"file://{signature}"),
        *("--required-valid-signature-count", "+1"),
    )


def test_its_signature_is_verified_by_ansible_galaxy(
    empty: Installed, tarball: Path, signer: Signer, signature: Path, tmp_path: Path
) -> None:
    install(empty, tmp_path, tarball)
    run = verify(empty, tmp_path, signer, signature)
    assert run.ok, run.output
    assert "Successfully verified" in run.output


def test_a_file_that_was_changed_after_it_was_signed_is_noticed(
    empty: Installed, tarball: Path, signer: Signer, signature: Path, tmp_path: Path
) -> None:
    install(empty, tmp_path, tarball)
    changed = empty.collections / "ansible_collections/connectomics/cave/plugins/modules/saved_token.py"
    changed.write_text(changed.read_text() + "# and one more line\n")
    run = verify(empty, tmp_path, signer, signature)
    assert not run.ok
    assert "plugins/modules/saved_token.py" in run.output
