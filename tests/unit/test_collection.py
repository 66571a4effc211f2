# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the files of the collection say of one another."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("[!_]*.py"))
# A file that is run by the Python of a caveclient environment, which has these.
IN_A_CLIENT_ENVIRONMENT = {"client_script.py": {"caveclient", "requests", "urllib3.util.retry"}}
PRIVATE = "ansible_collections.connectomics.cave.plugins.module_utils"


def load(path: str) -> Any:
    """Return what a YAML file of the repository holds."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def documentation(module: str) -> Any:
    """Return a module's DOCUMENTATION, without running the module."""
    return yaml.safe_load(constants(ROOT / "plugins" / "modules" / f"{module}.py")["DOCUMENTATION"])


def constants(path: Path) -> dict[str, Any]:
    """Return the constants that a Python file sets at its top level."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            found[node.targets[0].id] = node.value.value
    return found


def tracked_files() -> Iterator[Path]:
    """Yield the files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    yield from (path for name in names if name and (path := ROOT / name).is_file())


def test_the_action_group_holds_the_modules_that_document_it() -> None:
    """A default that is set for the group silently skips a module that is missing from it."""
    fragment = "connectomics.cave.cave.action_group"
    documented = [name for name in MODULES if fragment in documentation(name).get("extends_documentation_fragment", [])]

    assert load("meta/runtime.yml")["action_groups"]["cave"] == documented


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_takes_the_shared_options_is_in_the_action_group(module: str) -> None:
    fragments = documentation(module).get("extends_documentation_fragment", [])

    if "connectomics.cave.cave.server" in fragments:
        assert "connectomics.cave.cave.action_group" in fragments


def test_what_runs_on_the_host_imports_the_standard_library_and_the_collection_alone() -> None:
    """A managed host has Python and nothing else; modules also get Ansible's own module_utils."""
    foreign = [
        f"{path.name}: {name}"
        for kind in ("modules", "module_utils")
        for path in sorted((ROOT / "plugins" / kind).rglob("*.py"))
        for name in imports(path)
        if not is_on_the_host(name) and name not in IN_A_CLIENT_ENVIRONMENT.get(path.name, ())
    ]

    assert foreign == []


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a Python file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def is_on_the_host(module: str) -> bool:
    """Return whether a Python without any package can import it, once Ansible has sent the module there."""
    return module.startswith((PRIVATE, "ansible.module_utils.")) or module.partition(".")[0] in sys.stdlib_module_names


def test_the_version_is_the_newest_release_or_has_fragments_for_the_next() -> None:
    version = Version(load("galaxy.yml")["version"])
    changelog = ROOT / "changelogs" / "changelog.yaml"
    releases = load("changelogs/changelog.yaml")["releases"] if changelog.exists() else {}
    newest = max(map(Version, releases), default=Version("0"))

    assert newest <= version
    if newest < version:
        assert list((ROOT / "changelogs" / "fragments").glob("*.yml"))


def test_each_lock_names_no_index_and_holds_a_hash_for_each_package() -> None:
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        entries = re.sub(r"\\\n", "", lock.read_text(encoding="utf-8")).splitlines()[1:]

        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        assert [entry for entry in entries if "://" in entry] == []


def test_no_file_holds_what_looks_like_a_token() -> None:
    """middle_auth makes tokens of 32 hexadecimal digits. Tests hold some, of nobody."""
    token = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", re.IGNORECASE)
    found = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if "tests" not in path.relative_to(ROOT).parts and token.search(path.read_bytes())
    ]

    assert found == []


def test_the_tarball_leaves_out_what_only_developers_need() -> None:
    """Every file or folder at the top is either for users or named in build_ignore."""
    for_users = {"CHANGELOG.rst", "CONTRIBUTING.md", "LICENSE", "LICENSES", "README.md", "SECURITY.md", "changelogs"}
    for_users |= {"CODE_OF_CONDUCT.md", "SUPPORT.md", "docs", "galaxy.yml", "meta", "playbooks", "plugins", "roles"}
    ignored = load("galaxy.yml")["build_ignore"]
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}

    assert sorted(top - for_users - set(ignored)) == []
