# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example of the guides and READMEs, as it stands there, is what it says it is."""

from __future__ import annotations

import configparser
import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import ROOT, ansible

from docs.code_blocks import Block, all_blocks, commands
from docs.conftest import MODULES, PLAYBOOKS
from docs.options import complaints

BLOCKS = all_blocks()
SHELL = ("bash", "sh", "console")
# Values that a person fills in; the commands around them are real.
ANSIBLE = {
    "ansible": ("ansible.cli.adhoc", "AdHocCLI"),
    "ansible-playbook": ("ansible.cli.playbook", "PlaybookCLI"),
    "ansible-vault": ("ansible.cli.vault", "VaultCLI"),
    "ansible-galaxy": ("ansible.cli.galaxy", "GalaxyCLI"),
    "ansible-pull": ("ansible.cli.pull", "PullCLI"),
    "ansible-doc": ("ansible.cli.doc", "DocCLI"),
}
# Top keys of files that are neither inventories nor variables: of ansible-galaxy, antsibull-changelog.
OTHER_FILES = {"collections", "bugfixes"}
# Programs of others that the guides name, not all of which are here.
OTHERS = """
age-keygen ansible-builder ansible-navigator ansible-runner antsibull-changelog apt-get cat cave-doctor cd cp curl
echo export git apptainer aws gpg install mkdir pass pip podman python python3 sbatch set ssh sudo tar umask vault
"""


def of_language(*languages: str) -> list[Any]:
    """Return the blocks in one of the languages, as parameters of a test."""
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language in languages]


def playbook_of(block: Block) -> list[dict[str, Any]]:
    """Return the plays in a block of YAML; tasks alone become a play."""
    content = yaml.safe_load(block.text)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        return []
    if any("hosts" in item or "ansible.builtin.import_playbook" in item for item in content):
        return content
    return [{"name": "Tasks of an example", "hosts": "all", "gather_facts": False, "tasks": content}]


def tasks_of(plays: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the tasks of plays, those in blocks as well."""
    waiting = [task for play in plays for part in ("pre_tasks", "tasks", "handlers") for task in play.get(part, [])]
    while waiting:
        task = waiting.pop()
        waiting += [inner for part in ("block", "rescue", "always") for inner in task.get(part, [])]
        yield task


def options_of(module_docs: dict[str, Any], module: str) -> dict[str, Any]:
    """Return the options that a module documents."""
    own: dict[str, Any] = module_docs[f"connectomics.cave.{module}"]["doc"]["options"]
    return own


def test_every_block_says_what_language_it_is() -> None:
    known = {*SHELL, "ini", "json", "python", "text", "yaml", "yaml+jinja", "ansible-output"}
    assert [f"{block}: {block.language!r}" for block in BLOCKS if block.language not in known] == []


@pytest.mark.parametrize("block", of_language("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_json_and_settings_can_be_read() -> None:
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "ini":
            configparser.ConfigParser(interpolation=None).read_string(block.text)


@pytest.mark.parametrize("block", of_language("yaml", "yaml+jinja"))
def test_yaml_is_a_playbook_an_inventory_or_variables_that_are_known(
    block: Block, variables: set[str], role_options: dict[str, Any]
) -> None:
    content = yaml.safe_load(block.text)
    if playbook_of(block):
        return
    assert isinstance(content, dict)
    if is_inventory(content) or content.keys() <= OTHER_FILES or "jobs" in content:  # of GitHub
        return
    own = {name: value for name, value in content.items() if name.startswith("caveclient_")}
    assert set(own) <= variables
    assert complaints(role_options, {name: own[name] for name in own if name in role_options}) == []
    assert [name for name in set(content) - set(own) if not name.startswith(("ansible_", "vault_", "cave_"))] == []


def is_inventory(content: dict[str, Any]) -> bool:
    """Return whether it is groups of hosts."""
    return all(isinstance(group, dict) and group.keys() & {"hosts", "children"} for group in content.values())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An administrator's folder, with an inventory."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "hosts.yml").write_text("all: {hosts: {ws1: {}}, children: {workstations: {hosts: {ws1: {}}}}}\n")
    return folder


def test_every_playbook_passes_the_syntax_check(lab: Path) -> None:
    """One process for all: an example has little in it, and Ansible takes a second to start."""
    names = []
    for number, block in enumerate(
        block for block in BLOCKS if block.language.startswith("yaml") and playbook_of(block)
    ):
        (lab / f"{number}.yml").write_text(f"# {block}\n{yaml.safe_dump(playbook_of(block))}")
        names.append(f"{number}.yml")
    assert names
    run = ansible(lab, "playbook", "-i", "hosts.yml", "--syntax-check", *names)
    assert run.ok, run.output
    assert "WARNING" not in run.output, run.output


def module_calls() -> list[Any]:
    """Return every call of a module of this collection in an example, with what it is called with."""
    found = []
    for block in BLOCKS:
        if block.language.startswith("yaml"):
            for task in tasks_of(playbook_of(block)):
                found += [(str(block), name.rpartition(".")[2], given) for name, given in own_calls(task)]
    return [pytest.param(module, given, id=f"{where}-{module}") for where, module, given in found]


def own_calls(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the module of this collection that a task calls."""
    for name, given in task.items():
        if name.startswith("connectomics.cave."):
            yield name, given or {}


@pytest.mark.parametrize(("module", "given"), module_calls())
def test_every_call_of_a_module_has_the_options_that_it_documents(
    module_docs: dict[str, Any], module: str, given: dict[str, Any]
) -> None:
    assert module in MODULES
    assert complaints(options_of(module_docs, module), given) == []


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_call_it_as_documented(module_docs: dict[str, Any], module: str) -> None:
    plays = [{"tasks": yaml.safe_load(module_docs[f"connectomics.cave.{module}"]["examples"])}]
    if "hosts" in plays[0]["tasks"][0]:
        plays = plays[0]["tasks"]
    calls = [call for task in tasks_of(plays) for call in own_calls(task)]
    assert module in {name.rpartition(".")[2] for name, _given in calls}
    for name, given in calls:
        assert complaints(options_of(module_docs, name.rpartition(".")[2]), given) == []


@pytest.mark.parametrize(
    ("words", "block"),
    [
        pytest.param(words, block, id=f"{block}-{number}")
        for block in BLOCKS
        if block.language in SHELL
        for number, words in enumerate(commands(block))
    ],
)
def test_every_command_is_one_that_there_is(words: list[str], block: Block, variables: set[str]) -> None:
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif program == "nox":
        sessions = re.findall(r"^def ([a-z_]+)\(", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
        assert words[1] == "-l" or words[2].replace("-", "_") in sessions
    elif program in ANSIBLE:
        check_ansible(program, words, variables)
    else:
        assert program in OTHERS.split(), f"{program} is unknown"
    for word in words:
        if file := re.fullmatch(r"(?:tests|docs|requirements|tools|plugins|playbooks)/[\w./-]+", word):
            assert (ROOT / file[0]).exists(), f"{word} does not exist"


def check_ansible(program: str, words: list[str], variables: set[str]) -> None:
    """Let Ansible itself read a command line, and look whether playbooks and variables are known."""
    module, name = ANSIBLE[program]
    cli = getattr(importlib.import_module(module), name)(words)
    cli.init_parser()
    options, rest = cli.parser.parse_known_args(words[1:])
    assert rest == []
    named = [
        word for word in getattr(options, "args", []) if isinstance(word, str) and word.startswith("connectomics.cave.")
    ]
    if program == "ansible-playbook":
        assert [word for word in named if word.rpartition(".")[2] not in PLAYBOOKS] == []
        given = {item.partition("=")[0] for item in options.extra_vars if "=" in item}
        assert given <= variables | ({"dest"} if "connectomics.cave.init" in named else set())
        assert {tag for item in options.tags for tag in item.split(",")} <= {"install", "token", "verify", "all"}
    elif program == "ansible-doc":
        assert [word for word in named if word.rpartition(".")[2] not in MODULES] == []


def test_every_playbook_is_in_a_guide() -> None:
    told = {word for block in BLOCKS if block.language in SHELL for words in commands(block) for word in words}
    assert [name for name in PLAYBOOKS if f"connectomics.cave.{name}" not in told] == []


def test_every_variable_of_a_playbook_is_in_a_guide(variables: set[str], role_options: dict[str, Any]) -> None:
    guides = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "docsite" / "rst").glob("*.rst"))
    own = {
        name
        for name in variables - set(role_options)
        if re.match(rf"caveclient_({'|'.join(PLAYBOOKS)}|report|junit|pending)(_|$)", name)
    }
    assert len(own) > 20
    assert sorted(name for name in own if f"``{name}``" not in guides) == []


def test_the_tests_that_the_guides_name_exist() -> None:
    missing = []
    for path in (ROOT / "docs" / "docsite" / "rst").glob("*.rst"):
        for file, test in re.findall(r"``(tests/[\w/]+\.py)(?:::(\w+))?``", path.read_text(encoding="utf-8")):
            text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).exists() else ""
            if not text or (test and f"def {test}(" not in text):
                missing.append(f"{path.name}: {file}::{test}")
    assert missing == []


def test_the_files_that_the_guides_name_exist() -> None:
    folders = "docs|meta|molecule|playbooks|plugins|requirements|roles|tests|tools"
    missing = [
        f"{path.name}: {name}"
        for path in [*(ROOT / "docs" / "docsite" / "rst").glob("*.rst"), ROOT / "CONTRIBUTING.md"]
        for name in re.findall(rf"`((?:{folders})/[\w./-]*[\w/])`", path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and "NAME" not in name
    ]
    assert missing == []


def test_shell_blocks_are_valid_shell() -> None:
    wrong = []
    for block in BLOCKS:
        if block.language in ("bash", "sh"):
            done = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
            wrong += [f"{block}: {done.stderr}"] if done.returncode else []
    assert wrong == []
