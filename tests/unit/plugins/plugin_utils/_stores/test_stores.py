# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all token stores do, on one in memory; and what programs of stores are given."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible import constants
from ansible.errors import AnsibleError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import (
    fingerprint,
    looks_like_a_token,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.kept import KeptTokens
from ansible_collections.connectomics.cave.plugins.plugin_utils._run_memory import RunMemory
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores import openbao as _openbao
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores import places as _places
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import (
    Place,
    UnreadableSecretError,
    place_of,
    read_token,
    told_by_store,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import run
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.sops import Sops
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Name, Secret, Store

OLD, NEW, OTHER = "0" * 32, "1" * 32, "2" * 32


class Memory(Store):
    """Keeps secrets in memory; ``broken`` fails each thing that it is asked, ``forgetful`` stores nothing."""

    label = "memory"
    secrets: ClassVar[dict[str, Any]] = {}
    broken = ""
    forgetful = False
    asked: ClassVar[list[str]] = []

    def fetch(self, path: str) -> Secret | None:
        self.asked.append(path)
        if self.broken == "read":
            raise CaveError("it is locked. Unlock it.")
        return Secret(self.secrets[path]) if path in self.secrets else None

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        if not self.forgetful:
            self.secrets[path] = content

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        if self.broken == "write":
            raise CaveError("it is read-only. Ask its keeper.")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Memory]:
    kind = type("Memory", (Memory,), {"secrets": {"alice": OLD}, "asked": []})
    monkeypatch.setattr(_places, "STORES", {"memory": kind})
    monkeypatch.setattr(_places, "_read", {})
    monkeypatch.setattr(_places, "_afresh", set())
    monkeypatch.setattr(_places, "tokens_read", RunMemory())
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return kind


PLACE = place_of("memory", "alice", "/")


def kept(tmp_path: Path, *places: tuple[Place, str]) -> KeptTokens:
    return KeptTokens(places, False, [str(tmp_path)], [], [], [])


# One secret -----------------------------------------------------------------------------------------------------------


TEXTS = st.text(alphabet=string.ascii_letters, min_size=1, max_size=8)


@given(fields=st.dictionaries(TEXTS, TEXTS), key=TEXTS, as_text=st.booleans())
def test_a_new_token_leaves_the_other_keys_of_its_secret_as_they_are(
    fields: dict[str, str], key: str, as_text: bool
) -> None:
    kind: Any = type("Memory", (Memory,), {"secrets": {"people": json.dumps(fields) if as_text else fields}})
    kind({}, "/").write(Name("people", key), NEW)
    content = kind.secrets["people"]
    assert (json.loads(content) if as_text else content) == {**fields, key: NEW}


def test_a_key_of_a_secret_that_is_not_there_makes_a_secret_with_keys(memory: type[Memory]) -> None:
    memory({}, "/").write(Name("bob", "key"), NEW)
    assert json.loads(memory.secrets["bob"]) == {"key": NEW}


def test_a_token_is_not_stored_in_the_place_of_one_that_somebody_else_put_there(memory: type[Memory]) -> None:
    memory.secrets["alice"] = OTHER
    with pytest.raises(CaveError, match=f"alice in memory cannot be written: .*put the token {fingerprint(OTHER)}"):
        memory({}, "/").write(Name("alice"), NEW, instead_of=[OLD])
    assert memory.secrets == {"alice": OTHER}


def test_what_a_store_does_not_keep_is_noticed(memory: type[Memory]) -> None:
    memory.forgetful = True
    waited: list[float] = []
    with pytest.raises(CaveError, match="alice in memory does not hold what was stored there"):
        memory({}, "/").write(Name("alice"), NEW, sleep=waited.append)
    assert sum(waited) > 5


@pytest.mark.parametrize("content", ["scribble", "[]", "1", ""])
def test_a_key_of_a_secret_without_keys_is_refused_and_nothing_of_it_is_shown(
    memory: type[Memory], content: str
) -> None:
    memory.secrets["alice"] = content
    with pytest.raises(CaveError, match="has no keys") as error:
        memory({}, "/").read(Name("alice", "key"))
    assert not content or content not in error.value.message.partition(":")[2]


def test_a_token_that_is_a_number_is_refused(memory: type[Memory]) -> None:
    memory.secrets["alice"] = {"token": 12}
    with pytest.raises(CaveError, match="alice#token in memory cannot be read: it is not text"):
        memory({}, "/").read(Name("alice", "token"))


# The variable ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (None, "caveclient_store is not set"),
        ("", "caveclient_store is not set"),
        ("onepassword", "caveclient_store is of the type 'onepassword'. Expected: one of memory"),
        ({"mount": "secret"}, "caveclient_store is of the type None"),
        ({"type": "memory", "mount": "secret"}, "caveclient_store has mount, which this store does not know"),
        ({"type": "memory", "url": ["a"]}, "caveclient_store has a list or a mapping inside"),
        (["memory"], "caveclient_store has a list or a mapping inside"),
    ],
)
def test_a_store_that_is_none_is_refused_with_what_was_expected(memory: type[Memory], store: Any, message: str) -> None:
    with pytest.raises(CaveError, match=message.replace("(", r"\(")):
        read_token(place_of(store, "alice", "/"))


def test_a_process_asks_a_store_once_for_a_token(memory: type[Memory]) -> None:
    assert [read_token(PLACE) for _host in range(300)] == [OLD] * 300
    assert memory.asked == ["alice"]


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on in another process of the run."""
    monkeypatch.setattr(_places, "_read", {})


def test_a_rotation_asks_for_what_others_have_read_and_the_run_goes_on_with_the_answer(
    memory: type[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token(PLACE) == OLD
    memory.secrets["alice"] = NEW
    later(monkeypatch)
    assert read_token(PLACE) == OLD
    later(monkeypatch)
    _places.read_afresh()
    assert read_token(PLACE) == NEW
    _places._afresh.clear()
    later(monkeypatch)
    assert read_token(PLACE) == NEW
    assert len(memory.asked) == 2


def test_a_run_goes_on_with_the_token_that_it_has_stored(memory: type[Memory], monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token(PLACE) == OLD
    _places.write_token(PLACE, NEW)
    later(monkeypatch)
    assert read_token(PLACE) == NEW == memory.secrets["alice"]


def test_a_secret_that_is_missing_is_named_with_the_command_that_puts_it_there(memory: type[Memory]) -> None:
    with pytest.raises(CaveError, match=r"bob in memory cannot be read: .*caveclient_enroll_secret=bob"):
        read_token(place_of("memory", "bob", "/"))


def test_the_password_of_a_store_is_in_no_representation_of_a_place() -> None:
    assert "horse" not in repr(place_of({"type": "openbao", "password": "horse"}, "cave/alice", "/"))


def test_what_a_store_says_is_found_below_ansibles_own_errors() -> None:
    def wrapped(error: Exception, wrap: Callable[[], Exception]) -> BaseException:
        try:
            raise wrap() from error
        except AnsibleError as found:
            return found

    told = UnreadableSecretError("it is locked.")
    assert told_by_store(wrapped(told, lambda: AnsibleError("template"))) == "it is locked."
    old_core = AnsibleError("template")
    old_core.orig_exc = told
    assert told_by_store(old_core) == "it is locked."
    assert told_by_store(AnsibleError(f"quotes {OLD}")) == ""


# A rotation -----------------------------------------------------------------------------------------------------------


def test_a_new_token_takes_the_place_of_the_old_one_in_all_its_places(memory: type[Memory], tmp_path: Path) -> None:
    memory.secrets |= {"copy": OLD, "bob": OTHER}
    all_places = [(place_of("memory", name, "/"), fingerprint(memory.secrets[name])) for name in memory.secrets]
    tokens = kept(tmp_path, *all_places)
    assert tokens.still_holds([OLD])
    found = tokens.store([OLD], NEW)
    assert memory.secrets == {"alice": NEW, "copy": NEW, "bob": OTHER}
    assert found == [{"path": "memory", "name": name} for name in ("alice", "copy")]
    assert (tokens.writable(OLD), tokens.fixed(OLD)) == ([], [])


def test_a_run_that_was_killed_between_two_places_is_finished(memory: type[Memory], tmp_path: Path) -> None:
    memory.secrets |= {"copy": NEW}
    tokens = kept(tmp_path, (PLACE, fingerprint(OLD)), (place_of("memory", "copy", "/"), fingerprint(NEW)))
    tokens.store([OLD], NEW)
    assert memory.secrets == {"alice": NEW, "copy": NEW}


def test_where_all_is_stored_already_the_place_is_still_named(memory: type[Memory], tmp_path: Path) -> None:
    memory.secrets["alice"] = NEW
    assert kept(tmp_path, (PLACE, fingerprint(NEW))).store([OLD], NEW) == [{"path": "memory", "name": "alice"}]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("read", "alice in memory cannot be read: it is locked. Unlock it."),
        ("write", "alice in memory cannot be written: it is read-only. Ask its keeper."),
    ],
)
def test_a_store_that_fails_is_no_place_for_a_token_and_no_proof_that_an_old_one_is_gone(
    memory: type[Memory], tmp_path: Path, broken: str, message: str
) -> None:
    memory.broken = broken
    memory.secrets["bob"] = OTHER
    tokens = kept(tmp_path, (PLACE, fingerprint(OLD)))
    assert (tokens.writable(OLD), tokens.fixed(OLD)) == ([], [message])
    assert not tokens.still_holds([OLD])
    assert tokens.fixed(OTHER) == []  # one secret's trouble is no other's


# Programs -------------------------------------------------------------------------------------------------------------


PROGRAM = """#!/bin/sh
{ echo "$@"; env; } >> %s
case "$1" in
    decrypt) sed s/SEALED/%s/ "$3";;
    set) read value; echo '{"alice": '"$value"'}' > "$3";;
    *) exit 1;;
esac
"""


def test_sops_gets_a_token_on_its_standard_input_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    program = tmp_path / "bin" / "sops"
    program.parent.mkdir()
    program.write_text(PROGRAM % (seen, OLD))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path))
    file = tmp_path / "tokens.json"
    file.write_text('{"alice": "SEALED"}')
    store = Sops({}, str(tmp_path))
    name = store.name("tokens.json#alice")
    store.require_writable(name)
    assert file.read_text() == '{"alice": "SEALED"}'
    store.write(name, NEW, instead_of=[OLD])
    assert file.read_text() == f'{{"alice": "{NEW}"}}\n'
    assert "set --value-stdin" in seen.read_text()
    assert NEW not in seen.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "seen", "tokens.json"]


AGE_KEY = "age14yr2u9r92jccdh3s30eadwvglw6x8rvcyxkgva2c6vpvjessh4dqur68uc"


@pytest.mark.parametrize("word", [NEW, f"'{NEW}':", f"{AGE_KEY}:", "Bearer " + "aB3-" * 8])
def test_a_program_that_repeats_a_token_in_its_error_shows_nothing_that_looks_like_one(word: str) -> None:
    with pytest.raises(CaveError, match="sh says: no ") as error:
        run(["sh", "-c", "read x; echo no $x >&2; exit 3"], "", f"{word}\n".encode())
    message = error.value.message
    assert NEW not in message
    assert not any(looks_like_a_token(word) for word in [*message.split(), message])


def test_a_program_that_is_missing_is_named_with_how_to_get_it() -> None:
    with pytest.raises(CaveError, match="no-such-program is not installed here"):
        run(["no-such-program"], "Get it.")


# Each store -----------------------------------------------------------------------------------------------------------


@given(rest=st.text(max_size=40))
def test_a_new_token_leaves_the_other_lines_of_an_entry_of_pass_as_they_are(rest: str) -> None:
    store = _places.STORES["pass"]({}, "/")
    assert store._with(f"{OLD}\n{rest}", Name("alice"), NEW) == f"{NEW}\n{rest}"
    assert store._value(f"{OLD}\n{rest}", Name("alice")) == OLD


@pytest.mark.parametrize(
    ("kind", "module", "message"),
    [
        ("aws", "boto3", "boto3 is missing. Install it into Ansible's Python: pip install boto3"),
        ("google", "google.auth", "google-cloud-secret-manager is missing. Install it into Ansible's Python"),
    ],
)
def test_a_client_that_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CaveError, match=message):
        place_of(kind, "cave/alice", "/").open()


def test_a_collection_that_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{_openbao.__name__}.lookup_loader.get", lambda name: None)
    with pytest.raises(CaveError, match="ansible-galaxy collection install community"):
        place_of("openbao", "cave/alice", "/").open()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("sops", "secrets/tokens.sops.yml", "names no key. Expected: FILE#KEY"),
        ("pass", "cave/alice#token", "names a key, but an entry of pass has none"),
        ("pass", "#token", "names no secret"),
    ],
)
def test_a_name_that_a_store_cannot_have_is_refused_with_what_was_expected(kind: str, name: str, message: str) -> None:
    with pytest.raises(CaveError, match=message):
        place_of(kind, name, "/").open()
