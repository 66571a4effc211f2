# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand a token from one task of a run to a later one, through results that anybody may read.

Ansible prints what a task returns, so a token must not be in it. Here it is encrypted with a key that exists in the
memory of this run alone: the controller's process makes it when it loads the plugin, and the processes that run the
tasks are copies of that one. Nobody can open it afterwards, not even somebody with the log and all passwords.
"""

from __future__ import annotations

import secrets

from ansible import constants as C  # noqa: N812 (its usual name)
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret

_SECRET = VaultSecret(secrets.token_hex(32).encode("ascii"))


def seal(token: str) -> str:
    """Return a text that only this run can open."""
    return bytes(VaultLib().encrypt(token, _SECRET)).decode("ascii")


def unseal(text: str) -> str | None:
    """Return the token that ``seal`` was given; None when it was in another run (or a process that is no copy)."""
    try:
        return bytes(VaultLib([(C.DEFAULT_VAULT_IDENTITY, _SECRET)]).decrypt(text)).decode("utf-8")
    except (AnsibleError, UnicodeError):
        return None
