# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read and set variables in ansible-vault files, on the controller.

Both forms that labs use: a file that is encrypted as a whole, and a plain file with ``!vault`` strings in it. What is
encrypted is decrypted in memory only.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible import constants as C  # noqa: N812 (its usual name)
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import access as _access
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import yaml_edit as _yaml_edit
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import yaml_tree as _yaml_tree
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import VariablePath, label

VaultSecrets = Sequence[tuple[str, Any]]
"""Vault ids and secrets (``ansible.parsing.vault.VaultSecret``) that a run was started with, best first."""


class Change(NamedTuple):
    """What a call did to a file, or would do. Never holds a value; fingerprints name them."""

    changed: bool
    path: str
    created: bool
    format: str
    vault_id: str
    fingerprint: str | None
    previous_fingerprint: str | None
    was_plain: bool


class Values(NamedTuple):
    """The values in a file, in clear: ``variables`` can be set, that is those that are a single value, and the keys of
    those that are a mapping; ``others`` stand deeper, in lists or under anchors."""

    variables: dict[VariablePath, str]
    others: list[str]


class _Cipher(NamedTuple):
    """How something is encrypted: the secret, and the vault id that its header names (None in the older format)."""

    secret: Any
    header_id: str | None

    @property
    def vault_id(self) -> str:
        return self.header_id or C.DEFAULT_VAULT_IDENTITY


class _Current(NamedTuple):
    """What a variable holds: its plain value, how it is encrypted by itself (None: not, or only with the file), and
    whether Ansible reads it as a string."""

    value: str | None
    cipher: _Cipher | None
    is_string: bool


class _Content(NamedTuple):
    """A file, decrypted in memory; ``cipher`` is None when the file as a whole is plain."""

    document: _yaml_tree.Document
    cipher: _Cipher | None


_OF_OTHERS = (
    (b"\0GITCRYPT\0", "it is locked by git-crypt. Unlock it (git-crypt unlock), then run again."),
    (b"version https://git-lfs.", "it is a pointer of Git LFS. Fetch the file itself (git lfs pull), then run again."),
    (b"-----BEGIN ", "another program than ansible-vault has encrypted it. Decrypt it, or name another file."),
)
"""How files begin that other programs have encrypted or put aside, and what to do about them."""


# ---------------------------------------------------------------------------------------------------------------------
# What callers use


def read_variable(path: str, variable: VariablePath, secrets: VaultSecrets) -> str | None:
    """Return the value of a variable, decrypted; None when the file or the variable isn't there.

    Raises CaveError: the file can't be read or decrypted, or the variable is no string.
    """
    real = _access.real_path(path)
    with _access.explained(real), _access.opened_directory(real.parent) as directory:
        data = _access.read(directory, real.name)
        if data is None:
            return None
        return _current(_decrypted(data[0], secrets), variable, secrets).value


def read_variables(path: str, secrets: VaultSecrets) -> dict[VariablePath, str]:
    """Return the variables of ``read_values``."""
    return read_values(path, secrets).variables


def read_values(path: str, secrets: VaultSecrets) -> Values:
    """Return what a file holds, decrypted.

    What cannot be decrypted with ``secrets`` is left out; it may be somebody else's. Raises CaveError when the file as
    a whole can't be read.
    """
    real = _access.real_path(path)
    with _access.explained(real), _access.opened_directory(real.parent) as directory:
        data = _access.read(directory, real.name)
        if data is None:
            return Values({}, [])
        content = _decrypted(data[0], secrets)
        variables, found = {}, set()
        for variable in _yaml_tree.scalars(content.document):
            with contextlib.suppress(CaveError):
                node, value = _yaml_tree.find(content.document, variable), _current(content, variable, secrets).value
                if value is not None:
                    variables[variable] = value
                    found.add(id(node))
        others = []
        for node in _yaml_tree.leaves(content.document):
            if id(node) not in found:
                with contextlib.suppress(CaveError):
                    is_vaulted = node.tag in _yaml_tree.VAULT_TAGS
                    plain = (
                        _decrypt(node.value, secrets, "it")[0].decode("utf-8", "replace") if is_vaulted else node.value
                    )
                    others.append(plain)
        return Values(variables, others)


def texts(path: str, secrets: VaultSecrets) -> list[str]:
    """Return the text of a file, and those that are encrypted in it; nothing when it can't be read."""
    found: list[str] = []
    try:
        with Path(path).open("rb") as file:
            data = file.read(_access.MAX_BYTES)
        if is_encrypted(data):
            data = _decrypt(data, secrets, "it")[0]
        found.append(data.decode("utf-8"))
        ciphertexts = _yaml_tree.vault_strings(_yaml_tree.parse(found[0])) if "!vault" in found[0] else []
    except (OSError, UnicodeDecodeError, CaveError):
        return found
    for ciphertext in ciphertexts:
        with contextlib.suppress(CaveError):
            found.append(_decrypt(ciphertext, secrets, "it")[0].decode("utf-8", "replace"))
    return found


def set_variable(
    path: str,
    variable: VariablePath,
    value: str,
    secrets: VaultSecrets,
    *,
    vault_id: str | None = None,
    new_format: str = "inline",
    mode: int | None = None,
    check: bool = False,
) -> Change:
    """Set a variable in a vault file, encrypted; make the file when there is none.

    Args:
        path: the file. A symlink is followed, and the file that it leads to is replaced where that lies.
        variable: its name, or name and key.
        value: the plain value.
        secrets: what the run was started with.
        vault_id: whose secret encrypts a new file or a new variable in a plain file. What is encrypted already keeps
            its own vault id.
        new_format: ``inline`` or ``file``: how a new file is encrypted.
        mode: permissions of a file that is written; None: those that it has, when a group shares it on purpose (0660),
            else 0600.
        check: only say what would be done.

    Raises CaveError. The file is then as it was.
    """
    _require_secrets(secrets)
    _require_writable_value(value, variable)

    def edit(content: _Content | None) -> tuple[str | None, _Cipher | None, Change]:
        content = content or _new_content(secrets, vault_id, new_format)
        previous, own, is_string = _current(content, variable, secrets)
        inline = own is not None or content.cipher is None
        cipher = own or content.cipher or _cipher_for_new(content, secrets, vault_id)
        was_plain = previous is not None and content.cipher is None and own is None
        change = Change(
            changed=previous != value or was_plain or not is_string,
            path="",
            created=False,
            format="inline" if content.cipher is None else "file",
            vault_id=cipher.vault_id,
            fingerprint=fingerprint(value),
            previous_fingerprint=None if previous is None else fingerprint(previous),
            was_plain=was_plain,
        )
        if not change.changed:
            return None, None, change
        scalar = _yaml_edit.Scalar(_encrypt(value, cipher).decode("ascii") if inline else value, inline)
        return _yaml_edit.set_scalar(content.document, variable, scalar), content.cipher, change

    return _change(path, edit, secrets, mode, check)


def remove_variable(
    path: str, variable: VariablePath, secrets: VaultSecrets, *, mode: int | None = None, check: bool = False
) -> Change:
    """Remove a variable (or one key of it) from a vault file. The file stays, also when nothing else is in it.

    Arguments and errors as of ``set_variable``.
    """

    def edit(content: _Content | None) -> tuple[str | None, _Cipher | None, Change]:
        previous, own, _is_string = _current(content, variable, secrets) if content else _Current(None, None, False)
        cipher = content.cipher if content else None
        node = _yaml_tree.find(content.document, variable) if content else None
        change = Change(
            changed=node is not None,
            path="",
            created=False,
            format="file" if cipher else "inline",
            vault_id=(own or cipher or _Cipher(None, None)).vault_id,
            fingerprint=None,
            previous_fingerprint=None if previous is None else fingerprint(previous),
            was_plain=False,
        )
        if content is None or node is None:
            return None, None, change
        return _yaml_edit.remove(content.document, variable), cipher, change

    return _change(path, edit, secrets, mode, check)


# ---------------------------------------------------------------------------------------------------------------------
# Encryption


def _ids(secrets: VaultSecrets) -> str:
    return ", ".join(dict.fromkeys(vault_id for vault_id, _secret in secrets)) or "none"


def _require_secrets(secrets: VaultSecrets) -> None:
    if not secrets:
        raise CaveError(
            "This run has no vault secret, so nothing can be stored in a vault. Start it with --ask-vault-pass, "
            "--vault-password-file or --vault-id, or set vault_password_file in ansible.cfg."
        )


def _require_writable_value(value: str, variable: VariablePath) -> None:
    name = label(variable)
    if not value:
        raise CaveError(f"The value for {name} is empty.")
    if is_encrypted(value):
        raise CaveError(f"The value for {name} is a vault string already. Give the plain value: it is encrypted here.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CaveError(f"The value for {name} is not text (it cannot be written as UTF-8).") from None


def _decrypt(data: str | bytes, secrets: VaultSecrets, what: str) -> tuple[bytes, _Cipher]:
    """Decrypt vault text; ``what`` names it in messages."""
    try:
        _text, version, _name, header_id = parse_vaulttext_envelope(data.encode() if isinstance(data, str) else data)
        plain, _vault_id, secret = VaultLib(list(secrets)).decrypt_and_get_vault_id(data)
    except (AnsibleError, UnicodeError):
        # The reasons that Ansible gives quote the text, or name no file; the two things to look at are these.
        raise CaveError(
            f"{what} cannot be decrypted with the vault secrets of this run (vault ids: {_ids(secrets)}). "
            "The password is wrong, or that part is damaged: start again with the password of this file, or repair it."
        ) from None
    return bytes(plain), _Cipher(secret, None if version == b"1.1" else str(header_id))


def _encrypt(text: str, cipher: _Cipher) -> bytes:
    try:
        return bytes(VaultLib().encrypt(text.encode("utf-8"), cipher.secret, vault_id=cipher.header_id))
    except AnsibleError as error:
        raise CaveError(f"it cannot be encrypted: {error.message}") from None


def _decrypted(data: bytes, secrets: VaultSecrets) -> _Content:
    cipher = None
    if is_encrypted(data):
        _require_secrets(secrets)
        data, cipher = _decrypt(data, secrets, "it")
    for beginning, what in _OF_OTHERS:
        if data.startswith(beginning):
            raise CaveError(what)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise CaveError("it is not UTF-8 text. Is this the right file?") from None
    document = _yaml_tree.parse(text)
    if ("sops", "mac") in _yaml_tree.scalars(document):
        raise CaveError(
            "it is a file of SOPS, which refuses one that another program has changed. Set caveclient_store to sops, "
            "and name the token by file and key: -e caveclient_enroll_secret=FILE#KEY."
        )
    return _Content(document, cipher)


def _new_content(secrets: VaultSecrets, vault_id: str | None, new_format: str) -> _Content:
    empty = _Content(_yaml_tree.parse("---\n"), None)
    return empty._replace(cipher=_cipher_for_new(empty, secrets, vault_id)) if new_format == "file" else empty


def _current(content: _Content, variable: VariablePath, secrets: VaultSecrets) -> _Current:
    node = _yaml_tree.find(content.document, variable)
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return _Current(None, None, False)
    where = f"the variable {label(variable)} in line {node.start_mark.line + 1}"
    if node.tag in _yaml_tree.VAULT_TAGS:
        _require_secrets(secrets)
        plain, cipher = _decrypt(node.value, secrets, where)
        return _Current(plain.decode("utf-8", "surrogateescape"), cipher, True)
    if re.search(r"\{[{%]", node.value) and node.tag != "!unsafe":
        raise CaveError(
            f"{where} is a template, so its value comes from elsewhere. Set it there, or put a value in its place."
        )
    return _Current(node.value, None, node.tag in ("tag:yaml.org,2002:str", "!unsafe"))


def _cipher_for_new(content: _Content, secrets: VaultSecrets, vault_id: str | None) -> _Cipher:
    """Choose the secret for something that isn't encrypted yet: as asked, as configured, as in the rest of the file."""
    available = dict(reversed([(str(name), secret) for name, secret in secrets]))
    others = _yaml_tree.vault_strings(content.document)
    used = {_header_id(text) or C.DEFAULT_VAULT_IDENTITY: text for text in others}
    wanted = vault_id or C.DEFAULT_VAULT_ENCRYPT_IDENTITY
    if wanted is None:
        known = [name for name in used if name in available]
        candidates = known or list(available)
        if len(candidates) > 1:
            raise CaveError(
                f"this run has secrets for several vault ids ({_ids(secrets)}), and nothing says which one encrypts "
                f"a new variable. Say it: -e caveclient_enroll_vault_id={candidates[0]}, "
                "-e caveclient_rotate_vault_id, or vault_id of the module."
            )
        wanted = candidates[0]
    if wanted not in available:
        raise CaveError(
            f"this run has no secret for the vault id {wanted!r}, only for: {_ids(secrets)}. "
            f"Start it with --vault-id {wanted}@FILE."
        )
    if wanted in used:
        # A wrong password must not make a file that no single password opens.
        named = [(name, secret) for name, secret in secrets if str(name) == wanted]
        return _decrypt(used[wanted], named, "another variable of it")[1]
    return _Cipher(available[wanted], None if wanted == C.DEFAULT_VAULT_IDENTITY else wanted)


def _header_id(ciphertext: str) -> str | None:
    parts = ciphertext.split("\n", 1)[0].strip().split(";")
    return parts[3].strip() if len(parts) > 3 else None


# ---------------------------------------------------------------------------------------------------------------------
# The file


def _change(
    path: str,
    edit: Callable[[_Content | None], tuple[str | None, _Cipher | None, Change]],
    secrets: VaultSecrets,
    mode: int | None,
    check: bool,
) -> Change:
    """Read a file, let ``edit`` make the new text of it, and write that, alone with the file."""
    if mode is not None and (mode & ~0o660 or not mode & 0o600 == 0o600):
        raise CaveError(
            f"The mode {mode:04o} is refused: a vault file is 0600, or 0640 or 0660 for a group on purpose."
        )
    real = _access.real_path(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_access.explained(real))
        directory = stack.enter_context(_access.opened_directory(real.parent))
        if not check:
            stack.enter_context(_access.locked(directory, real.name))
        data = _access.read(directory, real.name)
        if mode is None:
            mode = data[1].st_mode & 0o060 | 0o600 if data and not data[1].st_mode & 0o007 else 0o600
        text, cipher, change = edit(_decrypted(data[0], secrets) if data else None)
        change = change._replace(path=str(real), created=data is None and change.changed)
        if text is None:
            return change
        _access.require_replaceable(directory, data[1] if data else None, mode)
        if check:
            return change
        new = _encrypt(text, cipher) if cipher else text.encode("utf-8")
        _access.replace(directory, real.name, new, data[1] if data else None, mode)
        return change
