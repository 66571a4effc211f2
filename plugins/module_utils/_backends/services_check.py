# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``verify_access`` asks the services of datastacks, for the tokens that the auth server accepts.

The rooms that ask are imported only where services are wanted: to read them takes a host as long as all the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import Account
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access
from ansible_collections.connectomics.cave.plugins.module_utils._cave.side_by_side import side_by_side
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import Limits, Stack


class Wanted(NamedTuple):
    """Which services to ask, without a token, with it, or both."""

    openly: bool
    personally: bool
    names: tuple[str, ...]


class Proof(NamedTuple):
    """A token that the auth server accepts, and the datastacks that it gives access to."""

    server: str
    token: str
    account: Account
    datastacks: tuple[Verdict, ...]

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"<proof of a token of {self.server}>"


class Looked(NamedTuple):
    """What was found for one proof: a verdict on each service, and the kind of the token where it was asked for."""

    services: tuple[Verdict, ...] = ()
    token_kind: str = ""


_WAYS = {"reach": (True, False), "person": (False, True), "full": (True, True)}


def services_wanted(option: list[str]) -> Wanted | None:
    """Return what the option ``services`` asks for; None for nothing.

    Raises:
        CaveError: it is none of its values.
    """
    if option in (["none"], []):
        return None
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import SERVICES

    if len(option) == 1 and option[0] in _WAYS:
        return Wanted(*_WAYS[option[0]], tuple(SERVICES))
    unknown = next((name for name in option if name not in SERVICES), None)
    if unknown is not None:
        expected = ", ".join(["none", *_WAYS])
        raise CaveError(
            f"services: {unknown!r} is not the name of a service. Expected one of {expected}, or some of "
            f"{', '.join(SERVICES)}."
        )
    return Wanted(True, True, tuple(option))


def proof_of(server: str, token: str, account: Account | None, verdicts: Iterable[Verdict]) -> Proof | None:
    """Return the proof that an account and the verdicts on its datastacks amount to; None without an account."""
    if account is None:
        return None
    return Proof(server, token, account, tuple(item for item in verdicts if item.ok))


def proof_in(access: Access, token: str) -> Proof | None:
    """Return the proof that an access amounts to."""
    return proof_of(access.overall.server, token, access.account, access.datastacks)


def look_at_services(proofs: list[Proof], wanted: Wanted, limits: Limits, environment: str) -> list[Looked]:
    """Return what was found for each proof, each token and datastack asked once.

    Args:
        proofs: the tokens.
        wanted: which services.
        limits: how long to ask a server.
        environment: folder of an environment with caveclient, whose version has to fit.
    """
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import Asker, Stack, reach, serve

    verdicts: dict[tuple[str, Stack], dict[str, Verdict]] = {}
    known = [(proof, tuple(dict.fromkeys(map(Stack.of, proof.datastacks)))) for proof in proofs]
    pairs = {(proof.token, stack): Asker(proof.token, proof.account) for proof, stacks in known for stack in stacks}
    if wanted.openly:
        reached = reach([stack for _token, stack in pairs], wanted.names, limits)
        fitting = {stack: _fitting(stack, found, environment) for stack, found in reached.items()}
        verdicts = {pair: fitting[pair[1]] for pair in pairs}
    if wanted.personally:
        asked = [(asker, pair[1], _still_open(verdicts.get(pair, {}), wanted.names)) for pair, asker in pairs.items()]
        for pair, found in zip(pairs, serve(asked, limits)):
            verdicts[pair] = {**verdicts.get(pair, {}), **{item.service: item for item in found}}
    kinds = _kinds(proofs, limits) if wanted.personally else {}
    return [
        Looked(
            tuple(item for stack in stacks for item in verdicts[proof.token, stack].values()),
            kinds.get((proof.server, proof.token), ""),
        )
        for proof, stacks in known
    ]


def _fitting(stack: Stack, reached: list[Verdict], environment: str) -> dict[str, Verdict]:
    """Return the verdicts on services by their names, with those in their place that say what does not fit."""
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_fit import (
        installed_packages,
        too_old,
        unfit_packages,
    )

    verdicts = {item.service: item for item in reached}
    for packages in installed_packages(environment):
        for item in reached:
            verdict = too_old(stack.local_server, stack.datastack, item, packages["caveclient"])
            verdicts[item.service] = verdict or verdicts[item.service]
        unfit = unfit_packages(packages, stack.local_server, stack.datastack, environment)
        verdicts.update({unfit.service: unfit} if unfit else {})
    return verdicts


def _still_open(found: dict[str, Verdict], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the services that are worth a question with a token: those that are there and work."""
    if "all" in found:
        return ()
    return tuple(name for name in names if name not in found or (found[name].ok and found[name].status is None))


def _kinds(proofs: list[Proof], limits: Limits) -> dict[tuple[str, str], str]:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import UNKNOWN, TokenApi

    def kind(pair: tuple[str, str]) -> str:
        api = TokenApi(*pair, timeout=limits.timeout, retries=0, ca_path=limits.ca_path)
        try:
            return api.kind().kind
        except CaveError:
            return UNKNOWN  # that it cannot be told is no trouble of the services

    return side_by_side([(proof.server, proof.token) for proof in proofs], kind)
