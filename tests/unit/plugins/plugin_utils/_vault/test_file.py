# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables in vault files: set, kept, never torn, never plain on disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import access as _access
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import (
    read_variable,
    remove_variable,
    set_variable,
)

OLD = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
NEW = "f9e8d7c6b5a4938271605f4e3d2c1b0a"
SECRETS = [("default", VaultSecret(b"correct horse")), ("lab", VaultSecret(b"battery staple"))]
DEFAULT, LAB = [SECRETS[0]], [SECRETS[1]]
WRONG = [("default", VaultSecret(b"wrong"))]
NAME = ("vault_cave_token_alice",)


def vaulted(text: str, secrets: Sequence[Any] = (), vault_id: str | None = None) -> str:
    return VaultLib().encrypt(text, (secrets or DEFAULT)[0][1], vault_id=vault_id).decode()


def inline(name: str, value: str, *arguments: Any) -> str:
    return f"{name}: !vault |\n" + "".join(f"          {line}\n" for line in vaulted(value, *arguments).splitlines())


@pytest.fixture
def inline_file(tmp_path: Path) -> Path:
    path = tmp_path / "vault.yml"
    path.write_text("# tokens\n" + inline(NAME[0], OLD) + "\nother: 1   # kept\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def whole_file(tmp_path: Path) -> Path:
    path = tmp_path / "vault.yml"
    path.write_text(vaulted(f"# tokens\n{NAME[0]}: {OLD}  # hers\nother: 1\n"))
    path.chmod(0o600)
    return path


@pytest.fixture(params=["inline", "file"])
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue({"inline": "inline_file", "file": "whole_file"}[request.param])
    return path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that is written to any file from now on."""
    collected: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        collected.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    return collected


def listing(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


# -- setting -----------------------------------------------------------------------------------------------------------


def test_a_variable_is_replaced_and_reads_back(file: Path) -> None:
    change = set_variable(str(file), NAME, NEW, SECRETS)
    assert (change.changed, change.created, change.path) == (True, False, str(file))
    assert (change.previous_fingerprint, change.fingerprint) == (fingerprint(OLD), fingerprint(NEW))
    assert read_variable(str(file), NAME, SECRETS) == NEW
    assert read_variable(str(file), ("other",), SECRETS) == "1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert listing(file) == [file.name]


def test_the_same_value_leaves_the_file_alone(file: Path) -> None:
    before = (file.read_bytes(), file.stat().st_ino, file.stat().st_mtime_ns)
    change = set_variable(str(file), NAME, OLD, SECRETS)
    assert not change.changed
    assert (file.read_bytes(), file.stat().st_ino, file.stat().st_mtime_ns) == before


def test_the_rest_of_an_inline_file_is_kept_byte_for_byte(inline_file: Path) -> None:
    set_variable(str(inline_file), NAME, NEW, SECRETS)
    text = inline_file.read_text()
    assert text.startswith(f"# tokens\n{NAME[0]}: !vault |\n          $ANSIBLE_VAULT;1.1;AES256\n          ")
    assert text.endswith("\nother: 1   # kept\n")


def test_the_rest_of_a_whole_file_is_kept_byte_for_byte(whole_file: Path) -> None:
    set_variable(str(whole_file), NAME, NEW, SECRETS)
    plain = VaultLib(DEFAULT).decrypt(whole_file.read_bytes()).decode()
    assert plain == f'# tokens\n{NAME[0]}: "{NEW}"  # hers\nother: 1\n'


def test_no_value_is_ever_written_in_clear(file: Path, written: list[bytes]) -> None:
    set_variable(str(file), NAME, NEW, SECRETS)
    set_variable(str(file), ("more",), OLD, SECRETS)
    assert written
    assert not [data for data in written if NEW.encode() in data or OLD.encode() in data]


@pytest.mark.parametrize("new_format", ["inline", "file"])
def test_a_new_file_is_made_encrypted(tmp_path: Path, new_format: str) -> None:
    path = tmp_path / "new.yml"
    previous = os.umask(0)
    try:
        change = set_variable(str(path), NAME, NEW, LAB, new_format=new_format)
    finally:
        os.umask(previous)
    assert (change.changed, change.created, change.format, change.vault_id) == (True, True, new_format, "lab")
    assert read_variable(str(path), NAME, LAB) == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NEW not in path.read_text()
    assert not set_variable(str(path), NAME, NEW, LAB, new_format=new_format).changed


def test_a_file_is_private_from_its_first_moment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, int]] = []
    real = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        opened.append((str(path), flags, mode))
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", watched)
    set_variable(str(file), NAME, NEW, SECRETS)
    made = [(flags, mode) for _path, flags, mode in opened if flags & os.O_CREAT]
    assert made
    for flags, mode in made:
        assert flags & os.O_EXCL
        assert flags & os.O_NOFOLLOW
        assert mode == 0o600


def test_a_key_of_a_mapping_is_set_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_text("tokens:\n  " + inline("bob", OLD).replace("\n  ", "\n    ") + "z: 1\n")
    change = set_variable(str(path), ("tokens", "alice"), NEW, DEFAULT)
    assert change.changed
    assert read_variable(str(path), ("tokens", "alice"), DEFAULT) == NEW
    assert read_variable(str(path), ("tokens", "bob"), DEFAULT) == OLD
    assert path.read_text().endswith("z: 1\n")


def test_a_token_that_stood_in_clear_is_encrypted_even_if_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vars.yml"
    path.write_text(f"{NAME[0]}: {OLD}\n")
    change = set_variable(str(path), NAME, OLD, DEFAULT)
    assert change.changed
    assert change.was_plain
    assert OLD not in path.read_text()
    assert read_variable(str(path), NAME, DEFAULT) == OLD


def test_a_token_that_yaml_reads_as_a_number_is_written_as_a_string(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    token = "12345678901234567890123456789012"
    path.write_text(vaulted(f"{NAME[0]}: {token}\n"))
    assert set_variable(str(path), NAME, token, DEFAULT).changed
    assert VaultLib(DEFAULT).decrypt(path.read_bytes()).decode() == f'{NAME[0]}: "{token}"\n'
    assert not set_variable(str(path), NAME, token, DEFAULT).changed


def test_check_mode_predicts_and_writes_nothing(file: Path) -> None:
    before = (file.read_bytes(), listing(file))
    predicted = set_variable(str(file), NAME, NEW, SECRETS, check=True)
    assert (file.read_bytes(), listing(file)) == before
    assert set_variable(str(file), NAME, NEW, SECRETS) == predicted


def test_a_change_shows_no_value(file: Path) -> None:
    text = repr(set_variable(str(file), NAME, NEW, SECRETS))
    assert OLD not in text
    assert NEW not in text


def test_a_variable_is_removed_and_stays_removed(file: Path) -> None:
    assert remove_variable(str(file), NAME, SECRETS, check=True).changed
    assert remove_variable(str(file), NAME, SECRETS).changed
    assert read_variable(str(file), NAME, SECRETS) is None
    assert read_variable(str(file), ("other",), SECRETS) == "1"
    before = file.read_bytes()
    assert not remove_variable(str(file), NAME, SECRETS).changed
    assert file.read_bytes() == before


def test_nothing_is_removed_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert not remove_variable(str(tmp_path / "none.yml"), NAME, SECRETS).changed
    assert read_variable(str(tmp_path / "none.yml"), NAME, SECRETS) is None
    assert listing(tmp_path / "none.yml") == []


# -- vault ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vault_id", [None, "lab"])
def test_a_variable_keeps_its_own_vault_id(tmp_path: Path, vault_id: str | None) -> None:
    secrets = LAB if vault_id else DEFAULT
    path = tmp_path / "vault.yml"
    path.write_text(inline(NAME[0], OLD, secrets, vault_id))
    change = set_variable(str(path), NAME, NEW, SECRETS, vault_id="default" if vault_id else "lab")
    assert change.vault_id == (vault_id or "default")
    assert read_variable(str(path), NAME, secrets) == NEW
    assert (f"$ANSIBLE_VAULT;1.2;AES256;{vault_id}" if vault_id else "$ANSIBLE_VAULT;1.1;AES256\n") in path.read_text()


@pytest.mark.parametrize("vault_id", [None, "lab"])
def test_a_whole_file_keeps_its_own_vault_id(tmp_path: Path, vault_id: str | None) -> None:
    secrets = LAB if vault_id else DEFAULT
    path = tmp_path / "vault.yml"
    path.write_text(vaulted("other: 1\n", secrets, vault_id))
    assert set_variable(str(path), NAME, NEW, SECRETS).vault_id == (vault_id or "default")
    assert read_variable(str(path), NAME, secrets) == NEW
    assert path.read_text().splitlines()[0].endswith(f";{vault_id}" if vault_id else ";AES256")


def test_a_new_variable_takes_the_vault_id_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_text(inline("other", OLD, LAB, "lab"))
    assert set_variable(str(path), NAME, NEW, SECRETS).vault_id == "lab"
    assert read_variable(str(path), NAME, LAB) == NEW


def test_a_new_variable_takes_the_vault_id_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_text(inline("other", OLD, LAB, "lab"))
    assert set_variable(str(path), NAME, NEW, SECRETS, vault_id="default").vault_id == "default"
    assert read_variable(str(path), NAME, DEFAULT) == NEW


@pytest.mark.parametrize("vault_id", [None, "lab"])
def test_of_two_passwords_with_one_name_a_new_variable_takes_that_of_the_others(
    tmp_path: Path, vault_id: str | None
) -> None:
    """As with vault_password_file in ansible.cfg and --ask-vault-pass."""
    path, mine = tmp_path / "vault.yml", [(vault_id or "default", SECRETS[0][1])]
    path.write_text(inline("other", OLD, mine, vault_id))
    both = [(mine[0][0], SECRETS[1][1]), *mine]
    set_variable(str(path), NAME, NEW, both, vault_id=vault_id)
    assert read_variable(str(path), NAME, mine) == NEW


def test_an_ambiguous_vault_id_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    with pytest.raises(CaveError, match=r"several vault ids .default, lab.*Say it: -e caveclient_enroll_vault_id="):
        set_variable(str(path), NAME, NEW, SECRETS)
    assert listing(path) == []


def test_a_vault_id_without_a_secret_is_refused(inline_file: Path) -> None:
    before = inline_file.read_bytes()
    with pytest.raises(CaveError, match="no secret for the vault id 'prod', only for: default, lab"):
        set_variable(str(inline_file), ("new",), NEW, SECRETS, vault_id="prod")
    assert inline_file.read_bytes() == before


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_without_a_vault_secret_it_says_how_to_give_one(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(CaveError, match=r"has no vault secret.*--ask-vault-pass"):
        set_variable(str(file), NAME, NEW, [])
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", [NAME, ("new",)])
def test_with_the_wrong_password_nothing_is_written(file: Path, name: tuple[str, ...]) -> None:
    before = file.read_bytes()
    with pytest.raises(CaveError, match="cannot be decrypted with the vault secrets of this run"):
        set_variable(str(file), name, NEW, WRONG)
    assert file.read_bytes() == before
    assert listing(file) == [file.name]


@pytest.mark.parametrize(
    "damage", [b"$ANSIBLE_VAULT;1.1;AES256\nzz\n", b"$ANSIBLE_VAULT\n", b"$ANSIBLE_VAULT;1.1;AES256\n3939\n"]
)
def test_a_damaged_vault_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(damage)
    with pytest.raises(CaveError, match="cannot be decrypted"):
        set_variable(str(path), NAME, NEW, SECRETS)
    assert path.read_bytes() == damage


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- a list\n", "not a mapping"),
        (b"vault_cave_token_alice: \"{{ lookup('pipe', 'x') }}\"\n", "is a template"),
        (b"vault_cave_token_alice: [1]\n", "is a list"),
        (b"a: [\n", "not valid YAML"),
        (b"\0GITCRYPT\0\1\2\xff", "is locked by git-crypt. Unlock it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a pointer of Git LFS"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "another program than ansible-vault"),
        (b"a: ENC[AES256_GCM,data:x]\nsops:\n  mac: ENC[AES256_GCM,data:x]\n", "is a file of SOPS"),
        (b'{"a": "ENC[x]", "sops": {"mac": "ENC[x]", "version": "3.11.0"}}', "is a file of SOPS"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(content)
    with pytest.raises(CaveError) as caught:
        set_variable(str(path), NAME, NEW, DEFAULT)
    assert says in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", ["", "$ANSIBLE_VAULT;1.1;AES256\n3939\n", "\udc80"])
def test_a_value_that_cannot_be_stored_is_refused(file: Path, value: str) -> None:
    before = file.read_bytes()
    with pytest.raises(CaveError):
        set_variable(str(file), NAME, value, SECRETS)
    assert file.read_bytes() == before


@pytest.mark.parametrize(("before", "after"), [(0o660, 0o660), (0o640, 0o640), (0o600, 0o600), (0o644, 0o600)])
def test_a_file_that_a_group_shares_stays_so(file: Path, before: int, after: int) -> None:
    file.chmod(before)
    set_variable(str(file), NAME, NEW, SECRETS)
    assert stat.S_IMODE(file.stat().st_mode) == after


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o200, 0o700, 0o666])
def test_a_mode_that_others_can_read_is_refused(file: Path, mode: int) -> None:
    with pytest.raises(CaveError, match="is refused"):
        set_variable(str(file), NAME, NEW, SECRETS, mode=mode)


def test_a_directory_a_fifo_and_a_huge_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b"a: 1\n" * 10)
    monkeypatch.setattr(_access, "MAX_BYTES", 20)
    for name, says in (("directory", "not a regular file"), ("fifo", "not a regular file"), ("huge", "more than")):
        with pytest.raises(CaveError, match=says):
            set_variable(str(tmp_path / name), NAME, NEW, DEFAULT)


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaveError, match="there is no such directory"):
        set_variable(str(tmp_path / "none" / "vault.yml"), NAME, NEW, DEFAULT)


def test_a_file_with_hard_links_is_refused(file: Path) -> None:
    os.link(file, file.parent / "second")
    before = file.read_bytes()
    for check in (True, False):
        with pytest.raises(CaveError, match="2 hard links"):
            set_variable(str(file), NAME, NEW, SECRETS, check=check)
    assert (file.parent / "second").read_bytes() == before
    assert listing(file) == sorted([file.name, "second"])


def test_a_symlink_is_followed_and_stays_one(file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "linked.yml"
    link.symlink_to(file)
    change = set_variable(str(link), NAME, NEW, SECRETS)
    assert change.path == str(file)
    assert link.is_symlink()
    assert not file.is_symlink()
    assert read_variable(str(file), NAME, SECRETS) == NEW
    assert listing(link) == ["linked.yml"]


@pytest.mark.root
def test_the_owner_and_the_group_of_a_file_are_kept(file: Path) -> None:
    os.chown(file, 12345, 23456)
    set_variable(str(file), NAME, NEW, SECRETS, mode=0o640)
    info = file.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (12345, 23456, 0o640)


@pytest.mark.root
def test_what_an_ordinary_user_cannot_replace_is_refused_before_anything_is_done(whole_file: Path) -> None:
    # Not below the tests' own folder, which root keeps to itself.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vault.yml"
        file.write_bytes(whole_file.read_bytes())
        file.chmod(0o666)

        def message(mode: int, folder_mode: int) -> str:
            Path(folder).chmod(folder_mode)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.setgroups([])
                os.setgid(23456)
                os.setuid(12345)
                try:
                    set_variable(str(file), NAME, NEW, SECRETS, mode=mode, check=True)
                    os.write(writer, b"done")
                except CaveError as error:
                    os.write(writer, error.message.encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(writer)
            with os.fdopen(reader) as told:
                return told.read()

        assert "belongs to another user" in message(0o600, 0o777)
        assert "a group that you are not in" in message(0o660, 0o777)
        assert "does not let you write" in message(0o600, 0o755)
        os.chown(file, 12345, 23456)
        assert message(0o600, 0o777) == "done"
        assert file.read_bytes() == whole_file.read_bytes()


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    file.chmod(0o660)
    for function in ("write", "fsync", "rename", "fchmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, _no_space)
            with pytest.raises(CaveError, match="No space left"):
                set_variable(str(file), NAME, NEW, SECRETS)
        assert file.read_bytes() == before
        assert listing(file) == [file.name]


def _no_space(*_arguments: Any, **_options: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_change_by_an_editor_in_the_meantime_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def edit_now(handle: int) -> None:
        file.write_text("edited: true\n")
        real(handle)

    monkeypatch.setattr(os, "fsync", edit_now)
    with pytest.raises(CaveError, match="somebody else changed it in the meantime"):
        set_variable(str(file), NAME, NEW, SECRETS)
    assert file.read_text() == "edited: true\n"
    assert listing(file) == [file.name]


# -- together, and killed ----------------------------------------------------------------------------------------------


def _add(path: str, number: int) -> None:
    set_variable(path, (f"token_{number}",), f"{number:032x}", DEFAULT)
    set_variable(path, ("tokens", f"user{number}"), f"{number:032x}", DEFAULT)


def test_writers_at_the_same_time_lose_none_of_their_variables(file: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(str(file), number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for number in range(8):
        assert read_variable(str(file), (f"token_{number}",), DEFAULT) == f"{number:032x}"
        assert read_variable(str(file), ("tokens", f"user{number}"), DEFAULT) == f"{number:032x}"
    assert listing(file) == [file.name]


def test_a_writer_that_never_ends_is_not_waited_for_forever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_access, "LOCK_TIMEOUT", 0.2)
    with (
        _access.opened_directory(file.parent) as directory,
        _access.locked(directory, file.name),
        pytest.raises(CaveError, match="another run has been writing here"),
    ):
        set_variable(str(file), NAME, NEW, SECRETS)


def test_where_directories_cannot_be_locked_a_lock_file_does_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_access, "_try_lock", lambda _directory: False)
    assert set_variable(str(file), NAME, NEW, SECRETS).changed
    lock = file.parent / f".{file.name}.lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    monkeypatch.setattr(_access, "LOCK_TIMEOUT", 0.2)
    with (
        _access.opened_directory(file.parent) as directory,
        _access.locked(directory, file.name),
        pytest.raises(CaveError, match="another run has been writing here"),
    ):
        set_variable(str(file), NAME, OLD, SECRETS)


KILLABLE = ("open", "read", "write", "close", "fsync", "fchmod", "fstat", "stat", "rename", "unlink", "listdir")


def _die_at(number: int, path: str) -> None:
    """Set the variable in a child that kills itself at the ``number``-th call into the operating system."""
    count = 0

    def killing(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in KILLABLE:
        setattr(os, name, killing(getattr(os, name)))
    set_variable(path, NAME, NEW, DEFAULT)


def _kill_points(path: Path) -> Iterator[int]:
    context = multiprocessing.get_context("fork")
    for number in range(1, 200):
        child = context.Process(target=_die_at, args=(number, str(path)))
        child.start()
        child.join(30)
        yield number
        if child.exitcode == 0:
            return
        assert child.exitcode == -signal.SIGKILL
    pytest.fail("the write never came to its end")


def test_killed_anywhere_the_file_is_the_old_or_the_new_one_and_the_next_run_cleans_up(file: Path) -> None:
    before = file.read_bytes()
    points = 0
    for _number in _kill_points(file):
        points += 1
        assert read_variable(str(file), NAME, DEFAULT) in (OLD, NEW)
        assert set_variable(str(file), NAME, "x" * 32, DEFAULT).changed
        assert listing(file) == [file.name]
        file.write_bytes(before)
    assert points > 10
