# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens of a store."""

from __future__ import annotations

DOCUMENTATION = r"""
name: stored_token
short_description: Get a token from the store that C(caveclient_store) names
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the tokens with these names from a store other than ansible-vault, such as OpenBao, SOPS or a cloud's. It
    asks the store from the controller.
  - The playbooks C(connectomics.cave.enroll) and C(connectomics.cave.rotate) put new tokens into the same place, so the
    expression stays the same when a token changes.
  - Use it in C(caveclient_tokens), or directly in a module option that does not show it. A loop or C(debug) could show
    it.
options:
  _terms:
    description:
      - The token's name in the store.
      - For V(openbao) the path of a secret in the mount and, after C(#), the key there, which is C(token) by default.
      - For V(pass) an entry.
      - For V(aws) and V(google) a secret, which is the token itself; or, with C(#) and a key, a JSON object with that
        key.
      - For V(sops) a file and, after C(#), the key in it. Dots lead into mappings. A relative path starts at the
        inventory's folder.
    type: list
    elements: str
    required: true
  store:
    description:
      - The store, V(openbao) (or HashiCorp Vault), V(sops), V(pass), V(aws) (Secrets Manager) or V(google) (Secret
        Manager); or a mapping with that as its C(type) and options.
      - For V(openbao), C(mount) is the key-value engine, C(secret) by default. All options of the lookups of
        C(community.hashi_vault) work here, too, such as C(url) and C(auth_method). Without them, environment variables
        count, such as E(VAULT_ADDR) and E(VAULT_TOKEN).
      - V(sops) has no options. Its program finds keys as usual, for example by E(SOPS_AGE_KEY_FILE).
      - V(pass) has C(path), the folder, in place of E(PASSWORD_STORE_DIR).
      - V(aws) has C(region), C(profile) and C(endpoint_url), V(google) C(project) and C(endpoint). Credentials come
        from where the clients of these clouds find them.
    type: raw
    vars:
      - name: caveclient_store
notes:
  - A run asks the store once for each token it needs, however many hosts it has.
seealso:
  - module: connectomics.cave.enroll
  - module: connectomics.cave.saved_token
"""

EXAMPLES = r"""
# group_vars/all/cave.yml
caveclient_store: openbao
caveclient_tokens:
  - user: alice
    token: "{{ lookup('connectomics.cave.stored_token', 'cave/alice') }}"
"""

RETURN = r"""
_raw:
  description: The tokens.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unexpected
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import (
    UnreadableSecretError,
    folder_of,
    place_of,
    read_token,
)


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the tokens."""
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        store = self._templar.template(self.get_option("store"))
        folder = folder_of(variables, self._loader.get_basedir())
        try:
            return [read_token(place_of(store, str(term), folder)) for term in terms]
        except CaveError as error:
            raise UnreadableSecretError(error.message) from None
        except Exception as error:  # noqa: BLE001 (Ansible prints its message, which may quote the token)
            raise UnreadableSecretError(unexpected(error)) from None
