# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run ansible-test here, without containers.

ansible-test wants the collection at .../ansible_collections/connectomics/cave for real, interpreters on PATH that work
in a stripped environment, and a pip that it downloads. It gets all three below .cache/ansible-test, in a folder for
each version of ansible-core, which is kept, so that only the first run is slow:

    python -m ansible_test_copy sanity [argument ...]
    python -m ansible_test_copy integration [argument ...]

The integration targets get a stand-in CAVE server, and run twice in a row against it: what they leave behind on the
server must not break them.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.release import __version__
from interpreters import find_interpreters, open_python

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "ansible-test" / ".".join(__version__.split(".")[:2])
COLLECTION = WORK / "ansible_collections" / "connectomics" / "cave"
ANSIBLE_TEST = Path(sys.executable).with_name("ansible-test")

# ansible-test looks here for the get-pip that it would download. The Python at hand carries a pip: that one will do.
GET_PIP = "import ensurepip\n\nensurepip.bootstrap()\n"
PIP_VERSION = """
from types import SimpleNamespace
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(SimpleNamespace(version="{version}"))["pip"])
"""


def copy_collection() -> None:
    """Copy the files that git knows, or would add, to where ansible-test looks; keep its own output there."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    COLLECTION.mkdir(parents=True, exist_ok=True)
    output = COLLECTION / "tests" / "output"
    kept = output.rename(WORK / "output") if output.is_dir() else None
    shutil.rmtree(COLLECTION)
    for name in filter(None, names):
        source, target = ROOT / name, COLLECTION / name
        if source.is_symlink() or source.is_file():  # a deleted file is still listed until the next commit
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    if kept:
        kept.rename(output)
    # ansible-test asks git for the files, and the outer repository ignores all of .cache.
    subprocess.run(["git", "init", "--quiet"], cwd=COLLECTION, check=True)


def environment() -> dict[str, str]:
    """Return the environment for ansible-test: a home of its own and real interpreters first on PATH."""
    home, links = WORK / "home", WORK / "bin"
    cache = home / ".ansible" / "test" / "cache"
    pip_config = home / ".config" / "pip"
    for folder in (cache, links, pip_config):
        folder.mkdir(parents=True, exist_ok=True)
    for version, interpreter in find_interpreters().items():
        link = links / f"python{version}"
        link.unlink(missing_ok=True)
        link.symlink_to(interpreter)
        probe = [sys.executable, "-c", PIP_VERSION.format(version=version)]
        pip = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.strip()
        (cache / f"get_pip_{pip.replace('.', '_')}.py").write_text(GET_PIP, encoding="utf-8")
    with (pip_config / "pip.conf").open("w", encoding="utf-8") as file:
        pip_settings().write(file)
    return {**os.environ, "HOME": str(home), "PATH": f"{links}:{os.environ['PATH']}"}


def pip_settings() -> configparser.ConfigParser:
    """Return pip's settings on this machine, environment included, which ansible-test would not hand on."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.add_section("global")
    listing = [sys.executable, "-m", "pip", "config", "list"]
    for line in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines():
        name, value = line.split("=", 1)
        section, option = name.rsplit(".", 1)
        section = "global" if section == ":env:" else section
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, option, value.strip("'"))
    settings.set("global", "quiet", "2")  # ansible-test makes a dozen environments; errors are still printed
    return settings


@contextmanager
def stand_in_server() -> Iterator[dict[str, str]]:
    """Run a stand-in CAVE server with four people, and yield the variables that the integration targets use."""
    from cave_server import CaveServer  # the other commands do without

    with CaveServer() as cave:
        allowed = ["minnie65_public"]
        people = {
            "alice": cave.add_person("alice", permissions=allowed),
            "bob": cave.add_person("bob", permissions=allowed),
            "no_tos": cave.add_person("no_tos", permissions=allowed, accepted_tos=False),
            "no_permission": cave.add_person("no_permission", permissions=[]),
        }
        yield {
            "cave_server_url": cave.url,
            "open_python": open_python(),
            **{f"cave_token_{name}": person.token for name, person in people.items()},
        }


def ansible_test(*arguments: str) -> int:
    """Run ansible-test on the copy, and return its exit status."""
    command = [str(ANSIBLE_TEST), *arguments, "--color", "no"]
    return subprocess.run(command, cwd=COLLECTION, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode


def integration(*arguments: str) -> int:
    """Run the integration targets twice against one server; return the first exit status that is not 0."""
    with stand_in_server() as variables:
        config = COLLECTION / "tests" / "integration" / "integration_config.yml"
        config.write_text(json.dumps(variables, indent=2), encoding="utf-8")  # JSON is YAML, too
        once = ("--exclude", "caveclient_environment")  # which asks no server
        return ansible_test("integration", "--venv", *arguments) or ansible_test("integration", "--venv", *once)


def main(command: str, *arguments: str) -> int:
    """Run one ansible-test command, and return its exit status."""
    copy_collection()
    if command == "integration":
        return integration(*arguments)
    return ansible_test(command, "--venv", *arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
