# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A notebook with the kernel CAVE, as provisioning registers it, run by nbclient."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from caveclient_environments import caveclient_python

from ansible_collections.connectomics.cave.plugins.module_utils._environment.kernel import kernel_content, kernel_file

_RUN = """
import json, sys
import nbclient, nbformat
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)])
nbclient.NotebookClient(notebook, kernel_name="cave", timeout=120, allow_errors=True).execute()
outputs = [output for cell in notebook.cells for output in cell.outputs]
print(json.dumps({
    "text": "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs),
    "error": next((o["ename"] + ": " + o["evalue"] for o in outputs if o.output_type == "error"), ""),
}))
"""


NEEDED = ("materialize", "all")
"""Services without which materialize.get_versions() has no answer."""


class Shown(NamedTuple):
    """What the cells of a notebook printed, and the error that one ended with."""

    text: str
    error: str


def notebook_python() -> Path:
    """Return a Python with the real caveclient, a kernel, and what runs notebooks."""
    return caveclient_python("8.2.1", packages=("ipykernel", "nbclient"))


def fails_by(user: Mapping[str, Any]) -> bool:
    """Return whether materialize.get_versions() fails, by what verify found for a user."""
    down = [item for item in user.get("services") or () if item["verdict"] != "ok"]
    return any(item["service"] in NEEDED for item in down) or (user["verdict"] != "ok" and not down)


def run_notebook(folder: Path, *cells: str, variables: Mapping[str, str]) -> Shown:
    """Run a notebook of these cells with the kernel CAVE.

    Args:
        folder: where the kernel is registered.
        cells: of code.
        variables: of the notebook's server, HOME and PATH among them.
    """
    python = str(notebook_python())
    file = kernel_file(str(folder))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kernel_content(python, "CAVE", None)))
    done = subprocess.run(
        [python, "-c", _RUN],
        input=json.dumps(cells),
        env={"LANG": "C.UTF-8", "PATH": os.environ["PATH"], **variables, "JUPYTER_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Shown(**json.loads(done.stdout.splitlines()[-1]))
