# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a request that is understood is refused."""

from __future__ import annotations

from typing import Any


class CaveError(Exception):
    """The request is understood and refused; the subclasses say why."""


class DatabaseError(CaveError):
    """The auth server's database refuses a row: the server breaks with status 500."""


class SeveralKeysError(CaveError):
    """`refresh_token` serves accounts with at most one key."""


class NotFoundError(CaveError):
    """What is asked for doesn't exist, or belongs to somebody else."""


class AlreadyExistsError(CaveError):
    """A service account of this name exists."""


class AuthDownError(CaveError):
    """A service has to ask the auth server, which is down."""


class UnknownNameError(CaveError):
    """The auth server tells no dataset for a name in a service's namespace."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(f"{namespace} {name}")
        self.namespace = namespace
        self.name = name


class LimitError(CaveError):
    """Asked too often; the text is the limit, as `100 per 1 minute`."""


class TermsOwedError(CaveError):
    """The person may see the dataset once terms of service are accepted; `terms` is the row of `missing_tos`."""

    def __init__(self, terms: dict[str, Any]) -> None:
        super().__init__(terms["tos_name"])
        self.terms = terms


class MissingPermissionError(CaveError):
    """The person may not see the dataset; `dataset` is its name."""

    def __init__(self, dataset: str) -> None:
        super().__init__(dataset)
        self.dataset = dataset
