# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the readers of a user look, as far as it can be known without running anything of the user's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import startup_texts as _startup_texts
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import Access
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import tokens_in_environment
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.environment import environment_of
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Places
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import PAM, PLAIN, SHELL

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {})
    monkeypatch.delenv("CLOUD_VOLUME_DIR", raising=False)
    monkeypatch.delenv("CLOUD_FILES_DIR", raising=False)


def found(home: Path, **environment: str) -> tuple[str, str, list[tuple[str, str]]]:
    """CLOUD_VOLUME_DIR, the file that sets it, and the files in doubt with those that say otherwise."""
    result = environment_of(str(home), "alice", environment).cloud_volume_dir
    doubts = [(Path(doubt.path).name, Path(doubt.other).name) for doubt in result.doubts]
    return result.value, Path(result.path).name, doubts


def places(home: Home) -> Places:
    return home.places(home.environment())


def test_startup_files_win_over_the_environment_and_that_over_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "environment"
    system.write_text("CLOUD_VOLUME_DIR=/system\n")
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {str(system): PLAIN})
    assert found(tmp_path) == ("/system", "environment", [])
    assert found(tmp_path, CLOUD_VOLUME_DIR="relative") == ("/system", "environment", [])
    assert found(tmp_path, CLOUD_VOLUME_DIR="/environment") == ("/environment", "", [])
    (tmp_path / ".profile").write_text("export CLOUD_VOLUME_DIR=${CLOUD_VOLUME_DIR:-/x}/profile\n")
    assert found(tmp_path) == ("/system/profile", ".profile", [])
    assert found(tmp_path, CLOUD_VOLUME_DIR="/environment") == ("/environment/profile", ".profile", [])
    (tmp_path / ".bashrc").write_text("unset CLOUD_VOLUME_DIR\n")
    (tmp_path / ".profile").unlink()
    assert found(tmp_path, CLOUD_VOLUME_DIR="/environment") == ("", ".bashrc", [])


def test_every_startup_file_is_read_in_its_language(tmp_path: Path) -> None:
    lines = {
        ".zshenv": "export CLOUD_VOLUME_DIR=/a",
        ".config/fish/config.fish": "set -gx CLOUD_VOLUME_DIR /a",
        ".config/fish/conf.d/cv.fish": "set -Ux CLOUD_VOLUME_DIR /a",
        ".cshrc": "setenv CLOUD_VOLUME_DIR /a",
        ".config/environment.d/10-cv.conf": "CLOUD_VOLUME_DIR=/a",
        ".config/fish/fish_variables": "SETUVAR --export CLOUD_VOLUME_DIR:/a",
        ".config/zsh/.zshrc": "export CLOUD_VOLUME_DIR=/a",
        ".bashrc.d/cave": "export CLOUD_VOLUME_DIR=/a",
        ".config/nushell/env.nu": '$env.CLOUD_VOLUME_DIR = "/a"',
        ".config/nushell/autoload/cave.nu": '$env.CLOUD_VOLUME_DIR = "/a"',
        ".xonshrc": "$CLOUD_VOLUME_DIR = '/a'",
        ".config/xonsh/rc.d/cave.xsh": "$CLOUD_VOLUME_DIR = '/a'",
        ".config/powershell/Microsoft.PowerShell_profile.ps1": '$env:CLOUD_VOLUME_DIR = "/a"',
        ".config/elvish/rc.elv": "set-env CLOUD_VOLUME_DIR /a",
        ".Rprofile": "Sys.setenv(LANG = 'C', CLOUD_VOLUME_DIR = '/a')",
        ".Renviron": "CLOUD_VOLUME_DIR=/a",
        ".envrc": "export CLOUD_VOLUME_DIR=/a",
        ".oh-my-zsh/custom/lab.zsh": "export CLOUD_VOLUME_DIR=/a",
        ".profile.d/lab.sh": "export CLOUD_VOLUME_DIR=/a",
        "miniforge3/envs/cave/etc/conda/activate.d/vars.sh": "export CLOUD_VOLUME_DIR=/a",
        ".conda/envs/cave/conda-meta/state": '{"env_vars": {"CLOUD_VOLUME_DIR": "/a"}}',
        ".local/share/jupyter/kernels/mine/kernel.json": '{\n "env": {\n  "CLOUD_VOLUME_DIR" : "/a"\n }\n}',
        ".vscode-server/data/Machine/settings.json": (
            '{ // mine\n  // "CLOUD_VOLUME_DIR": "/b"\n  "env.linux": {"CLOUD_VOLUME_DIR": "/a"},\n}'
        ),
        ".ipython/profile_default/startup/00.py": "import os\nos.environ['CLOUD_VOLUME_DIR'] = '/a'",
        ".jupyter/jupyter_lab_config.py": "import os; os.environ.setdefault('CLOUD_VOLUME_DIR', '/a')",
        ".config/systemd/user/lab.service": (
            '[Service]\nEnvironment=LANG=C "CLOUD_VOLUME_DIR=/a" X=y\n;Environment=CLOUD_VOLUME_DIR=/b'
        ),
    }
    for name, line in lines.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{line}\n")
        assert found(tmp_path) == ("/a", path.name, [])
        path.unlink()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".local/share/jupyter/kernels/mine/kernel.json", '{"env": {"CLOUD_VOLUME_DIR": "$HOME/cv"}}'),
        (".vscode-server/data/Machine/settings.json", '{"terminal.integrated.env.linux": {"CLOUD_VOLUME_DIR": null}}'),
        (".ipython/profile_default/startup/00.py", "if x:\n    os.environ['CLOUD_VOLUME_DIR'] = '/a'"),
        (".ipython/profile_default/startup/00.py", "os.environ['CLOUD_VOLUME_DIR'] = os.path.expanduser('~/a')"),
        (".config/systemd/user/lab.service", "Environment=CLOUD_VOLUME_DIR=%h/cv"),
        (".config/systemd/user/lab.service", "PassEnvironment=CLOUD_VOLUME_DIR"),
        (".bashrc", "export CLOUD_VOLUME_DIR=/a\r"),
        (".bashrc", "export CLOUD_VOLUME_DIR=$'/a'"),
        (".config/fish/config.fish", "set -gx CLOUD_VOLUME_DIR \\x2fa"),
        (".config/nushell/config.nu", "$env.CLOUD_VOLUME_DIR = ($env.HOME | path join cv)"),
        (".xonshrc", "$CLOUD_VOLUME_DIR = $HOME + '/cv'"),
        (".config/powershell/profile.ps1", "$env:CLOUD_VOLUME_DIR = Join-Path $HOME cv"),
        (".vscode-server/data/Machine/settings.json", '{"CLOUD_VOLUME_DIR": ""}'),
        (".bashrc", f"export CLOUD_VOLUME_DIR=/{'a/' * 2500}"),
        (".bashrc", "if true; then\r\n  true\r\nfi\r\nexport CLOUD_VOLUME_DIR=/a"),
    ],
)
def test_what_a_program_alone_knows_is_told_as_unclear(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{text}\n".encode())
    assert found(tmp_path)[::2] == ("", [(path.name, "")])


def test_the_files_of_shells_outrank_what_one_program_alone_reads(tmp_path: Path) -> None:
    kernel = tmp_path / ".local/share/jupyter/kernels/mine/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"env": {"CLOUD_VOLUME_DIR": "/kernel"}}')
    (tmp_path / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/shell\n")
    assert found(tmp_path) == ("/shell", ".bashrc", [("kernel.json", ".bashrc")])


@pytest.mark.parametrize(
    ("line", "value", "doubts"),
    [
        ("CLOUD_VOLUME_DIR DEFAULT=/a", "/a", []),
        ('CLOUD_VOLUME_DIR\tDEFAULT="/a"', "/a", []),
        ("CLOUD_VOLUME_DIR DEFAULT=@{HOME}/cv", "", [("pam_env.conf", "")]),
        ("CLOUD_VOLUME_DIR DEFAULT=/a OVERRIDE=${SCRATCH}", "", [("pam_env.conf", "")]),
        ("#CLOUD_VOLUME_DIR DEFAULT=/a", "", []),
    ],
)
def test_a_variable_of_every_session_is_read(
    line: str, value: str, doubts: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "pam_env.conf"
    system.write_text(f"{line}\n")
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {str(system): PAM})
    assert found(tmp_path)[::2] == (value, doubts)


def test_tokens_of_the_hosts_own_files_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = tmp_path / "etc"
    (etc / "profile.d").mkdir(parents=True)
    (etc / "Renviron.site").write_text(f"CHUNKEDGRAPH_SECRET={TOKEN}\n")
    (etc / "linked.site").symlink_to("Renviron.site")
    (etc / "pam_env.conf").write_text(f"CAVE_TOKEN DEFAULT={TOKEN}\n")
    (etc / "profile.d" / "cave.sh").write_text(f"export FLYWIRE_TOKEN={TOKEN}\n")
    names = {"pam_env.conf": PAM, "profile.d/*.sh": SHELL, "Renviron.site": PLAIN, "linked.site": PLAIN, "no": PLAIN}
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {f"{etc}/{name}": kind for name, kind in names.items()})
    told = {(Path(one.path).name, one.name) for one in tokens_in_environment(str(tmp_path))}
    assert told == {
        ("pam_env.conf", "CAVE_TOKEN"),
        ("cave.sh", "FLYWIRE_TOKEN"),
        ("Renviron.site", "CHUNKEDGRAPH_SECRET"),
    }
    assert len(tokens_in_environment(str(tmp_path))) == 3


def test_a_token_in_a_file_that_a_startup_file_sources_is_found(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("[ -f ~/.tokens ] && . ~/.tokens\n")
    (tmp_path / ".tokens").write_text(f"export CAVE_TOKEN={TOKEN}\n. ~/.bashrc\n")
    (token,) = tokens_in_environment(str(tmp_path))
    assert (token.path, token.line, token.token) == (f"{tmp_path}/.tokens", 1, TOKEN)


def test_what_is_not_certain_is_told_and_what_is_certain_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/scratch/$SLURM_JOB_ID\n")
    assert found(tmp_path) == ("", "", [(".bashrc", "")])
    (tmp_path / ".profile").write_text("export CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("/a", ".profile", [(".bashrc", "")])
    (tmp_path / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/b\n")
    assert found(tmp_path) == ("/b", ".bashrc", [(".profile", ".bashrc")])


@pytest.mark.parametrize("sourced", [".cave", ".config/my lab/cave.sh"])
@pytest.mark.parametrize(
    "command",
    ['. ~/"{}"', "source $HOME/'{}'", 'source "${{HOME}}/{}"', 'EDITOR=vi\n. "{home}"/"{}"\n', ". $'{home}/{}'"],
)
def test_what_a_startup_file_sources_counts_as_its_own(command: str, sourced: str, tmp_path: Path) -> None:
    (tmp_path / sourced).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / ".bashrc").write_text(command.format(sourced, home=tmp_path))
    (tmp_path / sourced).write_text("export CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("/a", Path(sourced).name, [])


@pytest.mark.parametrize(
    ("name", "command", "sourced"),
    [
        (".config/fish/config.fish", "source ~/.cave", "set -gx CLOUD_VOLUME_DIR /a"),
        (".config/fish/config.fish", "source ~\\x2f.cave", "set -gx CLOUD_VOLUME_DIR /a"),
        (".cshrc", "source ~/.cave", "setenv CLOUD_VOLUME_DIR /a"),
        (".xonshrc", "source ~/.cave", "$CLOUD_VOLUME_DIR = '/a'"),
        (".config/powershell/profile.ps1", ". $HOME/.cave", '$env:CLOUD_VOLUME_DIR = "/a"'),
        (".config/nushell/config.nu", "source ~/.cave", '$env.CLOUD_VOLUME_DIR = "/a"'),
    ],
)
def test_what_other_shells_source_is_read_in_their_language(
    name: str, command: str, sourced: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f"{command}\n")
    (tmp_path / ".cave").write_text(f"{sourced}\n")
    assert found(tmp_path) == ("/a", ".cave", [])


@pytest.mark.parametrize("named", ["{home}/.cave.env", "-%h/.cave.env", '"%h/.cave.env"'])
def test_a_file_of_variables_that_a_unit_names_is_read(named: str, tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/lab.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(f"[Service]\nEnvironmentFile={named.format(home=tmp_path)}\n")
    (tmp_path / ".cave.env").write_text("CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("/a", ".cave.env", [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_profile_of_powershell_in_windows_encoding_is_no_silence(encoding: str, tmp_path: Path) -> None:
    profile = tmp_path / ".config/powershell/profile.ps1"
    profile.parent.mkdir(parents=True)
    profile.write_text('# mine\n$env:CLOUD_VOLUME_DIR = "/a"\n', encoding)
    assert found(tmp_path) == ("/a", "profile.ps1", [])


def test_what_stands_at_the_end_of_a_long_file_counts(tmp_path: Path) -> None:
    line = "# what completes the words of some program\n"
    (tmp_path / ".bashrc").write_text(f"{line * 10_000}export CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("", "", [(".bashrc", "")])


def test_what_a_file_of_the_host_sources_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.sh").write_text("export CLOUD_VOLUME_DIR=/a\n")
    (tmp_path / "profile").write_text(f". {tmp_path}/lab.sh\n")
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {f"{tmp_path}/profile": SHELL})
    assert found(tmp_path / "home") == ("/a", "lab.sh", [])


@pytest.mark.parametrize(
    "command", ["[ -f ~/.cave ] && . ~/.cave", "if test -d /scratch; then\n  . ~/.cave\nfi", "{ source ~/.cave; }"]
)
def test_what_is_sourced_under_a_condition_is_told_as_uncertain(command: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"{command}\n")
    (tmp_path / ".cave").write_text("export CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("", "", [(".cave", "")])


@pytest.mark.parametrize("text", ["# . ~/.cave", ". ~/.other", "echo . ~/.cavern", ". $(find ~)/.cave", ". ~/.bashrc"])
def test_what_is_not_sourced_counts_for_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"{text}\n")
    (tmp_path / ".cave").write_text("export CLOUD_VOLUME_DIR=/a\n")
    assert found(tmp_path) == ("", "", [])


@pytest.mark.parametrize("value", ["relative/cv", "/data/\x1b[31m", "/data/\x7f", "cv"])
def test_a_place_that_is_none_is_not_taken(value: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"export CLOUD_VOLUME_DIR='{value}'\n")
    assert found(tmp_path) == ("", "", [(".bashrc", "")])


def test_a_startup_file_of_any_kind_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".bashrc")
    (tmp_path / ".profile").mkdir()
    (tmp_path / ".zshrc").symlink_to("/dev/zero")
    (tmp_path / ".zshenv").write_bytes(b"\xff\xfe" * 1000)
    (tmp_path / ".zprofile").symlink_to("nowhere")
    (tmp_path / ".zlogin").write_bytes(b"\xff CLOUD_VOLUME_DIR")
    (tmp_path / ".bash_profile").write_text("export CLOUD_VOLUME_DIR=/a" + " " * 200_000 + "\n")
    begin = time.process_time()
    assert found(tmp_path) == ("/a", ".bash_profile", [(".zlogin", "")])
    assert time.process_time() - begin < 2


def test_places_come_from_the_options_first(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/data/cv\n")
    me = _users.current_user()
    account = type(me)((*me[:5], str(tmp_path), *me[6:]))
    assert places(Home.of(account, None, None)).cloud_volume[0] == "/data/cv/secrets"
    assert places(Home.of(account, None, "")).cloud_volume[0] == f"{tmp_path}/.cloudvolume/secrets"
    assert places(Home.of(account, None, "~/cv/")).cloud_volume[0] == f"{tmp_path}/cv/secrets"
    assert places(Home.of(account, "~/mine", "")).caveclient == f"{tmp_path}/mine"


@pytest.mark.parametrize("path", ["relative", "~bob/x", "./x", "/a\nb", "/a\0b", "/a\x1b[31m"])
@pytest.mark.parametrize("option", ["secrets_dir", "cloud_volume_dir"])
def test_a_path_that_is_not_absolute_or_not_printable_is_refused(option: str, path: str) -> None:
    options = {"secrets_dir": None, "cloud_volume_dir": None, option: path}
    with pytest.raises(CaveError, match=f"^{option}: .*not an absolute path") as caught:
        Home.of(_users.current_user(), **options)
    assert "\n" not in caught.value.message


def test_a_place_that_cannot_be_followed_is_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /proc/1/root for anybody but root."""

    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os.path, "realpath", refuse)
    where = places(Home("me", os.geteuid(), str(tmp_path), cloud_volume_dir="/proc/1/root"))
    assert where.cloud_volume[0] == "/proc/1/root/secrets"


def test_one_directory_under_two_names_is_one_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / ".cloudvolume").symlink_to("real")
    where = places(Home("me", os.geteuid(), str(tmp_path), cloud_volume_dir=f"{tmp_path}/real"))
    assert where.cloud_volume[0] == where.cloud_files[0] == where.caveclient == f"{tmp_path}/.cloudvolume/secrets"


@pytest.mark.parametrize(
    ("mode", "access"), [(0o600, Access(0o700, None)), (0o640, Access(0o750, 5)), (0o660, Access(0o750, 5))]
)
def test_a_directory_is_entered_by_whoever_may_read_the_files(mode: int, access: Access) -> None:
    assert Home("me", 0, "/home/me", mode=mode, group=5).directory_access == access
