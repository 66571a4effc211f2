# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the real caveclient, in an environment of its own; to be called in a process that is the user."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pwd
import select
import signal
import stat
import subprocess
import time
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _ends
from ansible_collections.connectomics.cave.plugins.module_utils._cave import client_script as _client_script
from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import (
    bundle_for_requests,
    unusable_bundle,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._trust import python_changeable, way_to

_PASSED_ON = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "ssl_cert_file",
    "ssl_cert_dir",
    "requests_ca_bundle",
    "curl_ca_bundle",
)
_MOST_OUTPUT = 1 << 20
# Read now: a process that has become a user cannot read what Ansible unpacked for root.
_SCRIPT = inspect.getsource(_client_script)


class Check(NamedTuple):
    """What to run, and how long."""

    python: str
    datastacks: tuple[str, ...]
    key: str
    timeout: float
    """Seconds for all datastacks together."""
    ca_path: str | None


def environment(user: pwd.struct_passwd, ca_path: str | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the check: the user's home, the task's proxies, no browser, no display."""
    result = {name: value for name, value in inherited.items() if name.lower() in _PASSED_ON}
    result.update(
        HOME=user.pw_dir,
        USER=user.pw_name,
        LOGNAME=user.pw_name,
        PATH="/usr/local/bin:/usr/bin:/bin",
        LC_ALL="C.UTF-8",
        OPENBLAS_NUM_THREADS="1",  # nothing is computed; on a large node the threads alone take seconds
    )
    # The system's store counts here too, as it does for the checks without caveclient and for the kernel of notebooks.
    bundle = bundle_for_requests(ca_path)
    if bundle:
        result["REQUESTS_CA_BUNDLE"] = bundle
    return result


def run_client(check: Check, user: pwd.struct_passwd) -> list[dict[str, Any]]:
    """Run ``CAVEclient`` for every datastack, and return what ``client_script`` says of each, in order.

    A datastack about which nothing was said has one exception alone, without its ancestors: ``TimeoutExpired`` (killed
    at the timeout), ``OSError`` (it could not be started), ``ChildProcessError`` (it ended without a word),
    ``CalledProcessError`` (a signal ended it) or
    ``SSLError`` (the user cannot read the CA certificates, of which requests says not that, nor where they are).

    Raises:
        CaveError: the user cannot run the interpreter; or somebody besides root and the user can change it, and so
            could read the user's token.
    """
    if not os.access(check.python, os.X_OK):
        closed = [step for step in way_to(check.python).steps if not os.access(step.path, os.X_OK)]
        where = f"{closed[0].path} (mode {stat.S_IMODE(closed[0].info.st_mode):04o})" if closed else check.python
        raise CaveError(
            f"{user.pw_name} cannot run {check.python}: no permission for {where}. "
            f"Let {user.pw_name} enter or run that, or install caveclient elsewhere: "
            "ansible-playbook connectomics.cave.provision"
        )
    changeable = python_changeable(check.python, (0, user.pw_uid))
    if changeable:
        raise CaveError(
            f"{check.python} is not run for {user.pw_name}: {changeable}, and could read the token. Use an environment "
            f"that root or {user.pw_name} alone can write."
        )
    variables = environment(user, check.ca_path, os.environ)
    unusable = unusable_bundle(variables.get("REQUESTS_CA_BUNDLE"))
    if unusable:
        return [_silent(name, "ssl.SSLError", unusable) for name in check.datastacks]
    asked = {"timeout": check.timeout, "key": check.key, "datastacks": check.datastacks}
    deadline = time.monotonic() + check.timeout
    (report, report_end), (errors, errors_end) = os.pipe(), os.pipe()
    try:
        # run_command of AnsibleModule has no time limit, and there is no module here.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # see above
            [check.python, "-c", _SCRIPT, str(report_end), json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors_end,
            env=variables,
            cwd="/",
            pass_fds=(report_end,),
            start_new_session=True,  # no terminal, and a process group that can be killed as a whole
        )
    except OSError as error:
        os.close(report)
        os.close(errors)
        text = f"{check.python} cannot be run: {error.strerror}"
        return [_silent(name, "builtins.OSError", text) for name in check.datastacks]
    finally:
        os.close(report_end)
        os.close(errors_end)
    try:
        said, last_words = _listen([report, errors], deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        status = process.poll()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(report)
        os.close(errors)
    if status is None:
        why = ("subprocess.TimeoutExpired", f"CAVEclient had not ended after {check.timeout:g} s, and was stopped")
    else:
        lines = last_words.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        name = "builtins.ChildProcessError" if status >= 0 else "subprocess.CalledProcessError"
        why = (name, f"{check.python} {_ends.how(status)}: {lines[-1]}")
    results = {result["datastack"]: result for result in _results(said)}
    return [results.get(name) or _silent(name, *why) for name in check.datastacks]


def _silent(datastack: str, name: str, text: str) -> dict[str, Any]:
    return {"datastack": datastack, "names": [name], "text": text, "answer": None, "version": ""}


def _listen(pipes: list[int], deadline: float) -> list[bytes]:
    """Return the last part of what comes out of each pipe, until all have ended or the time is up."""
    texts = dict.fromkeys(pipes, b"")
    listening = set(pipes)
    while listening and time.monotonic() < deadline:
        for pipe in select.select(list(listening), [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(pipe, 65536)
            texts[pipe] = (texts[pipe] + chunk)[-_MOST_OUTPUT:]
            if not chunk:
                listening.discard(pipe)
    return [texts[pipe] for pipe in pipes]


def _results(said: bytes) -> list[dict[str, Any]]:
    results = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            results.append(json.loads(line))
    return results
