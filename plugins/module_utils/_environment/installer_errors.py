# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saying in a sentence why an installer failed, and what to do."""

from __future__ import annotations

import re
import signal

from ansible_collections.connectomics.cave.plugins.module_utils import _ends
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pip_config as _pip_config
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import Outcome
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Source
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials

_OUTPUT_KEPT = 20000
"""Characters of an installer's output that are returned: its end, which says what went wrong."""


def last_line(text: str) -> str:
    """Return the last line that is not empty, masked, and short enough for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return mask_credentials(lines[-1])[:300] if lines else ""


def unknown_extra_in(output: str) -> tuple[str, str] | None:
    """Return the version of caveclient and the extra that it lacks, where an installer has warned of that."""
    match = re.search(
        r"caveclient[= ]+(\S+?)[`'\"]? does not (?:have an extra named|provide the extra) [`'\"]([^`'\"]+)", output
    )
    return (match.group(1), match.group(2)) if match else None


_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|os error 28|Errno 28|Disk quota exceeded|os error 122|Errno 122",
        "the disk is full",
        "Free some space (a build takes about 0.5 GB, the download as much again).",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|invalid peer certificate|UnknownIssuer"
        r"|SSLCertVerificationError",
        "the certificate of {index} is not trusted here",
        "Add the certificate authority to this host's store, or name its file as 'cert' in /etc/pip.conf.",
    ),
    (
        r"certificate[_ ]required|CertificateRequired|HandshakeFailure|handshake[_ ]failure|bad[_ ]certificate",
        "{index} asks for a certificate of this host, or refuses the one that it shows",
        "Name its file as 'client-cert' in /etc/pip.conf.",
    ),
    (
        r"Could not find a suitable TLS CA certificate bundle|invalid path: |Failed to load .*certificate"
        r"|Invalid value for SSL_CERT_FILE",
        "the file of certificate authorities that this host names cannot be read",
        "Correct 'cert' in /etc/pip.conf, or SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT in the task's environment.",
    ),
    (
        r"failed to map segment from shared object|noexec",
        "a file system that is needed for it is mounted noexec",
        "Choose another path, or set ansible_remote_tmp to a folder that programs can run from.",
    ),
    (
        r"Could not open requirements file|Could not open constraints? file|File not found: `[^`]*constraint"
        r"|failed to read from file `[^`]*`",
        "a file that 'constraint' in pip's configuration names cannot be read",
        "Correct 'constraint' in pip's configuration on this host.",
    ),
    (
        r"\b(401 Unauthorized|403 Forbidden|401 Client Error|403 Client Error|407 Proxy)",
        "{index} (or the proxy before it) refuses the credentials",
        "Correct the user name and password in index_url, in /etc/pip.conf or in the proxy's address.",
    ),
    (
        r"NewConnectionError|Max retries exceeded|ConnectTimeout|ReadTimeout|Connection refused|Network is unreachable"
        r"|Name or service not known|Temporary failure in name resolution|dns error|tcp connect error|Failed to fetch"
        r"|error sending request|operation timed out|No route to host|Connection reset|ProxyError|Could not fetch URL",
        "{index} cannot be reached from here",
        "Check the network, the proxy and index_url; without access to an index, give a folder of wheels with "
        "find_links and offline: true.",
    ),
    (
        r"Network connectivity is disabled|network was disabled",
        "offline is set, and not all that is needed is on this host",
        "Add what is missing to the folder that find_links names (pip download caveclient), or set offline: false.",
    ),
    (
        r"current Python version \(.*\) does not satisfy|requires a different Python|Requires-Python",
        "the packages that were asked for have no release for this Python",
        "Choose another Python with the option 'python', or another version.",
    ),
    (
        r"no wheels with a matching|has no wheels|no wheels are (usable|available)|not a supported wheel",
        "there is no wheel for this Python or this kind of machine",
        "Choose another Python with the option 'python' (3.9 to 3.13 have all wheels), or another version.",
    ),
    (
        r"Failed to build|metadata-generation-failed|subprocess-exited-with-error|Failed building|build backend",
        "a package had no wheel for this Python, and its source could not be built",
        "Choose another Python with the option 'python' (3.9 to 3.13 have all wheels), or install a compiler.",
    ),
    (
        r"externally[- ]managed",
        "this Python belongs to the operating system",
        "Use a managed environment (the option 'path'), or give the Python of a virtual environment.",
    ),
    (
        r"requirement caveclient\S* \(from versions: none\)",
        "{source} has no caveclient at all, or does not answer",
        "Check index_url, find_links, the proxy and the network.",
    ),
    (
        r"there is no version of caveclient|No matching distribution found for caveclient\b"
        r"|only caveclient.* (is|are) available",
        "{source} has no such version of caveclient",
        "Correct the version; a folder of wheels has to hold it.",
    ),
    (
        r"was not found in the (package registry|provided package locations)|No matching distribution found"
        r"|no versions? of",
        "{source} lacks a package that is needed",
        "Correct its name and version, or add its wheel to the folder that find_links names.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies|No solution found",
        "what was asked for contradicts itself",
        "Loosen version, packages or constraints.",
    ),
    (r"Permission denied|os error 13|Errno 13", "a file may not be written", "Run the task with become: true."),
    (r"Read-only file system|os error 30|Errno 30", "the file system is mounted read-only", "Choose another path."),
)


def explain(outcome: Outcome, source: Source, doing: str, seconds: float) -> CaveError:
    """Turn the failure of an installer into what a person needs: cause, what the tool itself says, remedy.

    Args:
        outcome: how it ended.
        source: where packages were to come from.
        doing: what was attempted, as in "install caveclient 8.2.1 with uv".
        seconds: the time it was given.
    """
    output = mask_credentials(outcome.output + outcome.error)
    details = {"installer_output": output[-_OUTPUT_KEPT:]}
    if outcome.returncode is None:
        cause = f"it took more than {seconds:.0f} seconds"
        return CaveError(f"Could not {doing}: {cause}. Check the network, or raise the timeout.", **details)
    if outcome.returncode == -signal.SIGKILL:
        cause = "it was killed, probably for lack of memory"
        return CaveError(f"Could not {doing}: {cause}. Free some memory and run this again.", **details)
    for pattern, cause, remedy in _CAUSES:
        match = re.search(pattern, output, re.IGNORECASE)
        if match:
            said = _line_around(output, match.start())
            where = {"index": _index_named_in(output, source), "source": _source_of(source)}
            return CaveError(f"Could not {doing}: {cause.format(**where)}. {remedy} It said: {said}", **details)
    if outcome.returncode < 0:
        return CaveError(f"Could not {doing}: it {_ends.how(outcome.returncode)}. {_ends.AFTER_A_SIGNAL}", **details)
    return CaveError(f"Could not {doing}. It said: {last_line(output) or 'nothing at all'}", **details)


def _line_around(text: str, position: int) -> str:
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    line = text[start : end if end >= 0 else len(text)].strip()
    if len(line) <= 300:
        return line
    middle = position - start
    return "…" + line[max(0, middle - 100) : middle + 200].strip() + "…"


def _index_named_in(output: str, source: Source) -> str:
    if source.index_url:
        host = _pip_config.host_of_index(source.index_url)
    else:
        found = re.search(
            r"(?:Failed to fetch|for url|error sending request for url)\W+https?://([^/\s`'\")]+)", output
        )
        host = found.group(1).rpartition("@")[2] if found else None
    return f"the package index at {host}" if host else "the package index"


def _source_of(source: Source) -> str:
    if source.offline:
        return "the folder of wheels"
    return _index_named_in("", source)
