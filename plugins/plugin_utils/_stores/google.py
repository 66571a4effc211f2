# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Google Secret Manager, through its client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import harmless
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Secret, Store

_LIMITS: Mapping[str, Any] = {"retry": None, "timeout": 30.0}


class SecretManager(Store):
    """Secrets of a project. Each is the token itself, or a JSON object of several values."""

    options = ("project", "endpoint")

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        super().__init__(settings, folder)
        try:
            import google.auth
            import requests
            from google.api_core import exceptions as errors
            from google.cloud import secretmanager
        except ImportError:
            raise CaveError(
                "google-cloud-secret-manager is missing. Install it into Ansible's Python: "
                "pip install google-cloud-secret-manager"
            ) from None
        self._errors, self._auth, self._requests = errors, google.auth.exceptions, requests
        self.label = "Google Secret Manager"
        with self._told(""):
            scopes = ["https://www.googleapis.com/auth/cloud-platform"]
            credentials, project = google.auth.default(scopes=scopes)
            endpoint = settings.get("endpoint")
            self._client = secretmanager.SecretManagerServiceClient(
                credentials=credentials,
                transport="rest",  # gRPC has threads, which do not get along with Ansible's workers
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )
        self._project = settings.get("project") or project
        if not self._project:
            raise CaveError("no project is given. Set it: caveclient_store: {type: google, project: ...}")
        self.label = f"Google Secret Manager (project {self._project})"

    def fetch(self, path: str) -> Secret | None:
        """Return the text of the newest version of a secret."""
        try:
            with self._told("secretmanager.versions.access"):
                name = f"{self._secret(path)}/versions/latest"
                found = self._client.access_secret_version(name=name, **_LIMITS)
        except _NotThereError:
            return None
        return Secret(found.payload.data.decode("utf-8", "replace"))

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Add a version to a secret, and make the secret before that."""
        if old is None:
            with self._told("secretmanager.secrets.create"), contextlib.suppress(self._errors.AlreadyExists):
                secret: dict[str, Any] = {"replication": {"automatic": {}}}
                parent = f"projects/{self._project}"
                self._client.create_secret(parent=parent, secret_id=path, secret=secret, **_LIMITS)
        with self._told("secretmanager.versions.add"):
            payload = {"data": content.encode()}
            self._client.add_secret_version(parent=self._secret(path), payload=payload, **_LIMITS)

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Ask Google what the one who asks may do."""
        del content, check
        if old is None:
            return
        wanted = "secretmanager.versions.add"
        with self._told("secretmanager.secrets.getIamPolicy"):
            request = {"resource": self._secret(path), "permissions": [wanted]}
            allowed = self._client.test_iam_permissions(request=request, **_LIMITS).permissions
        if wanted not in allowed:
            raise CaveError(f"permission denied. Allow {wanted} on it (roles/secretmanager.secretVersionAdder).")

    def _secret(self, path: str) -> str:
        return f"projects/{self._project}/secrets/{path}"

    @contextmanager
    def _told(self, permission: str) -> Iterator[None]:
        """Say of Google's errors what to do."""
        errors, auth = self._errors, self._auth
        try:
            yield
        except errors.AlreadyExists:
            raise
        except errors.NotFound:
            raise _NotThereError("there is no such secret.") from None
        except errors.Forbidden:
            raise CaveError(f"permission denied. Allow {permission} on it to whoever runs this.") from None
        except (errors.Unauthorized, auth.RefreshError):
            raise CaveError(
                "Google does not accept the credentials. Log in again (gcloud auth application-default login), or "
                "correct GOOGLE_APPLICATION_CREDENTIALS."
            ) from None
        except auth.DefaultCredentialsError as error:
            raise CaveError(f"there are no credentials: {harmless(str(error))}.") from None
        except (auth.TransportError, errors.RetryError, self._requests.exceptions.RequestException):
            raise CaveError("Google does not answer. Look at the network, then run again.") from None
        except errors.GoogleAPIError as error:
            raise CaveError(f"Google says: {harmless(str(error))}.") from None


class _NotThereError(CaveError):
    """There is no such secret."""
