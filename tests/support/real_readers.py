# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real programs that read secrets files, asked for the token that they would send."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CAVECLIENTS = ("8.2.1", "5.31.0", "5.4.0")
CLOUD_FILES, CLOUD_VOLUME = "cloud-files==6.4.3", "cloud-volume==12.15.2"

# Importing these programs takes seconds, so each is imported once; every question is then answered by a fork, which has
# the environment of the question from its first look at it on.
SERVE = """
import importlib, json, os, sys, warnings
warnings.simplefilter("ignore")
{imports}
def ask(question):
    answers = {{}}
    server, host, local_host = question["server"], question["host"], question["local_host"]
{asking}
    return answers
for line in sys.stdin:
    question = json.loads(line)
    pid = os.fork()
    if not pid:
        try:
            os.environ.pop("CLOUD_VOLUME_DIR", None)
            os.environ.update(question["environment"])
            answer = ask(question)
        except BaseException as error:
            answer = {{"raised": repr(error)}}
        os.write(5, json.dumps(answer).encode() + b"\\n")
        os._exit(0)
    os.waitpid(pid, 0)
"""
CAVECLIENT_IMPORTS = "from caveclient.auth import AuthClient\n"
CAVECLIENT_ASKING = """
    try:
        answers["caveclient " + host] = AuthClient(server_address=server).token
    except Exception as error:
        answers["caveclient " + host] = {"raised": type(error).__name__}
"""
CLOUD_IMPORTS = "import cloudvolume.secrets, cloudfiles.secrets\n"
CLOUD_ASKING = """
    for name, module, hosts in (
        ("cloud-volume", cloudvolume.secrets, [local_host]),
        ("cloud-files", cloudfiles.secrets, [local_host, host]),
    ):
        importlib.reload(module)
        for asked in hosts:
            try:
                credentials = module.cave_credentials(asked)
                answers[name + " " + asked] = credentials if credentials is None else credentials.get("token")
            except Exception as error:
                answers[name + " " + asked] = {"raised": type(error).__name__}
"""

Answers = dict[str, Any]
"""Reader, version and host -> the token that would be sent (None: none), or ``{"raised": NAME}``."""


class RealReaders:
    """The programs, running; a question takes milliseconds."""

    def __init__(self, programs: dict[str, subprocess.Popen[str]]) -> None:
        self._programs = programs

    def ask(self, home: Path, server: str, local_host: str, **environment: str) -> Answers:
        """Return what every program would send from a home."""
        host = server.partition("://")[2]
        question = {
            "server": server,
            "host": host,
            "local_host": local_host,
            "environment": {"HOME": str(home), **environment},
        }
        found: Answers = {}
        for name, program in self._programs.items():
            assert program.stdin
            assert program.stdout
            program.stdin.write(json.dumps(question) + "\n")
            program.stdin.flush()
            line = program.stdout.readline()
            assert line, f"{name} has ended"
            answers = json.loads(line)
            assert "raised" not in answers, f"{name}: {answers}"
            found.update({f"{name}{reader.removeprefix('caveclient')}": told for reader, told in answers.items()})
        return found


@contextmanager
def real_readers(caveclient_python: Callable[..., Path]) -> Iterator[RealReaders]:
    """Start the programs, each in an environment of its own."""
    commands = {
        f"caveclient {version}": (caveclient_python(version), CAVECLIENT_IMPORTS, CAVECLIENT_ASKING)
        for version in CAVECLIENTS
    }
    commands[""] = (caveclient_python(None, packages=(CLOUD_FILES, CLOUD_VOLUME)), CLOUD_IMPORTS, CLOUD_ASKING)
    with ExitStack() as stack:
        programs = {}
        home = stack.enter_context(tempfile.TemporaryDirectory())  # cloud-volume makes a folder there
        for name, (python, imports, asking) in commands.items():
            program = subprocess.Popen(
                # What these programs print goes elsewhere than their answers.
                [
                    "/bin/sh",
                    "-c",
                    'exec "$0" -c "$1" 5>&1 1>/dev/null 2>/dev/null',
                    str(python),
                    SERVE.format(imports=imports, asking=asking),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )
            programs[name] = stack.enter_context(program)
        yield RealReaders(programs)
