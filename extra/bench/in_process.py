# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules take inside of one process, without Ansible and SSH around them.

    python in_process.py saved_token [USER]     seconds of a call that finds nothing to do
    python in_process.py start MODULE           CPU seconds of a module's imports

Run with the collection on the path (PYTHONPATH=.tree).
"""

from __future__ import annotations

import importlib
import os
import pwd
import statistics
import sys
import tempfile
import time
from pathlib import Path

CALLS = 200
COLLECTION = "ansible_collections.connectomics.cave"
PARAMS = {
    "tokens": None,
    "token": "0123456789abcdef" * 2,
    "server": "https://global.daf-apis.com",
    "datastacks": ["minnie65_public"],
    "key": "token",
    "state": "present",
    "person": None,
    "validate": False,
    "stale": "update",
    "cloud_volume_dir": None,
    "mode": "0600",
    "group": None,
    "on_malformed": "fail",
}


def saved_token(user: str) -> float:
    """Return the median seconds of an unchanged call for a user: in a child process when that is somebody else."""
    from ansible_collections.connectomics.cave.plugins.module_utils._backends.saved_token import run

    entry = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secrets = Path(folder, "home", "secrets")
        secrets.parent.mkdir()
        os.chown(secrets.parent, entry.pw_uid, entry.pw_gid)
        params = {**PARAMS, "user": user, "secrets_dir": str(secrets)}
        if not run(params, False)["changed"]:
            sys.exit("the first call was to write the file")
        times = []
        for _call in range(CALLS):
            start = time.perf_counter()
            answer = run(params, False)
            times.append(time.perf_counter() - start)
            if answer["changed"]:
                sys.exit("a later call was to change nothing")
    return statistics.median(times)


def start(module: str) -> float:
    """Return the CPU seconds that a module's imports take on a host, beyond those of ``ansible.module_utils.basic``.

    In the program that is sent there. Ends with an error when something is imported that is neither of the standard
    library nor of the collection.
    """
    import ansible.module_utils.basic  # noqa: F401 (what it takes is not counted)

    from ansible_collections.connectomics.cave.plugins.plugin_utils._fast_transport import program

    text, _run = program(module).rsplit("\n__import__(", 1)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ansible", "ansible_collections")]:
        del sys.modules[name]
    sent = compile(text, "program", "exec")  # Python reads the program before it starts anything
    before = set(sys.modules)
    begin = time.process_time()
    exec(sent, {"__name__": "__main__"})  # noqa: S102 (that is what a host's Python does with it)
    importlib.import_module(f"{COLLECTION}.plugins.modules.{module}")
    taken = time.process_time() - begin
    foreign = {
        name.partition(".")[0]
        for name in set(sys.modules) - before
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "ansible", "ansible_collections"}
    }
    if foreign:
        sys.exit(f"{module} imports what is not of the standard library: {', '.join(sorted(foreign))}")
    return taken


if __name__ == "__main__":
    print(saved_token(sys.argv[2]) if sys.argv[1] == "saved_token" else start(*sys.argv[2:]))
