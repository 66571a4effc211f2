# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AWS Secrets Manager, through boto3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import harmless
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Secret, Store

CHECK_LABEL = "connectomics.cave-check"
"""The label of a version that was written only to see whether one can be written."""
_NOT_ACCEPTED = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredToken",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
)


class SecretsManager(Store):
    """Secrets of a region. Each is the token itself, or a JSON object of several values."""

    options = ("region", "profile", "endpoint_url")

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        super().__init__(settings, folder)
        try:
            import boto3
            import botocore.exceptions as errors
        except ImportError:
            raise CaveError("boto3 is missing. Install it into Ansible's Python: pip install boto3") from None
        self._errors = errors
        with self._told("be reached"):
            session = boto3.Session(region_name=settings.get("region"), profile_name=settings.get("profile"))
            self._client = session.client("secretsmanager", endpoint_url=settings.get("endpoint_url"))
        self.label = f"AWS Secrets Manager ({self._client.meta.region_name})"

    def fetch(self, path: str) -> Secret | None:
        """Return the text of a secret."""
        try:
            with self._told("secretsmanager:GetSecretValue"):
                found = self._client.get_secret_value(SecretId=path)
        except _NotThereError:
            return None
        if "SecretString" not in found:
            raise CaveError("it is binary. Put the token there as text.")
        return Secret(found["SecretString"], found["VersionId"])

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Write a version of a secret, or make the secret."""
        if old is None:
            with self._told("secretsmanager:CreateSecret"):
                self._client.create_secret(Name=path, SecretString=content)
            return
        with self._told("secretsmanager:PutSecretValue"):
            self._client.put_secret_value(SecretId=path, SecretString=content)

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Write the present content once more, as a version that nobody reads: AWS has no other way to find out."""
        del content
        if old is None or check:
            return
        with self._told("secretsmanager:PutSecretValue"):
            self._client.put_secret_value(SecretId=path, SecretString=old.content, VersionStages=[CHECK_LABEL])

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Say of AWS's errors what to do."""
        errors = self._errors
        try:
            yield
        except errors.ClientError as error:
            text = str(error)  # the code is a part of it
            if "ResourceNotFoundException" in text:
                raise _NotThereError("there is no such secret.") from None
            if "AccessDenied" in text:
                raise CaveError(f"access denied. Allow {action} on it to whoever runs this.") from None
            if any(code in text for code in _NOT_ACCEPTED):
                raise CaveError("AWS does not accept the credentials. Log in again, or correct AWS_PROFILE.") from None
            raise CaveError(f"AWS says: {harmless(str(error))}.") from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError):
            raise CaveError("there are no credentials. Log in to AWS, or set AWS_PROFILE.") from None
        except (errors.EndpointConnectionError, errors.ConnectionError, errors.HTTPClientError):
            raise CaveError("AWS does not answer. Look at the network and the region, then run again.") from None
        except errors.NoRegionError:
            raise CaveError("no region is given. Set it: caveclient_store: {type: aws, region: ...}") from None
        except errors.BotoCoreError as error:
            raise CaveError(f"boto3 says: {harmless(str(error))}.") from None


class _NotThereError(CaveError):
    """There is no such secret."""
