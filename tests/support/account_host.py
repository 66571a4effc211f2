# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with an account of every kind, as this machine seen from a mount namespace of its own.

    unshare --mount --propagation private python -m account_host FOLDER

makes the accounts, runs the tasks and playbooks in FOLDER/tasks.json with this Python's Ansible, and writes
FOLDER/outcomes.json: for each the seconds that it took, its exit status and its result, which is the report of the host
where it was a playbook. Needs root and a C compiler.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_run import ansible, run_tasks
from homes import DEFAULT_FILE, copy_of_etc, fill

FIRST_ID = 61_000
NAMES = [
    *("alice", "LAB\\bob", "carol@lab.example.org", "dora smith", "josé", "12345", "erik.x", "x-1", "UPPER", "l" * 32),
    *("_under", "dollar$", "plus+", "日本", "o'neil"),
]
"""Accounts with homes like everybody's, and names of all kinds."""
KINDS = {
    "nologin": "a shell that lets nobody in",
    "homeless": "/ as the home",
    "missing": "a home that does not exist",
    "hangs": "a home that never answers",
    "hangs-inside": "a .cloudvolume that never answers",
    "ended": "a .cloudvolume on a mount whose program has ended",
    "ended-inside": "a directory of secrets files on such a mount",
    "readonly": "a home that is mounted read-only",
    "full": "a home on 64 KiB that are full",
    "volume": "secrets in a volume that Kubernetes fills",
    "oddfiles": "names and keys that are no UTF-8, or hold controls",
    "oddhome": "a home whose name is no UTF-8",
    "twin": "the user id of alice, and another home",
    "toor": "the user id of root, and a home of its own",
    "groups": "a member of 1,000 groups",
    "rootshome": "a home that is root's",
    "guest": "the home of alice",
    "nowhere": "CLOUD_VOLUME_DIR=/home/",
    "unclear": "CLOUD_VOLUME_DIR that only a session knows",
    "pipe": "a FIFO in the place of a secrets file",
    "folder": "a directory in the place of a secrets file",
    "linked": "a home that is a link",
    "loop": "a .cloudvolume that links to itself",
    "closed": "a secrets directory that is closed to its user",
    "crowd": "2,000 files of servers",
    "empty": "a home with nothing in it",
}
UNLISTED = "LAB+nina"
"""An account that the name service knows and does not list, with a home in /home/LAB."""
GONE = FIRST_ID + 500
"""The user id of somebody whose account is gone, and whose files are in /home/gone."""
HOMES = Path("/home")

_NSS = r"""
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
static enum nss_status give(struct passwd *p, char *b, size_t n) {
    static const char all[] = "LAB+nina\0x\0\0/home/LAB/nina\0/bin/sh";
    if (n < sizeof all) { errno = ERANGE; return NSS_STATUS_TRYAGAIN; }
    memcpy(b, all, sizeof all);
    p->pw_name = b; p->pw_passwd = b + 9; p->pw_gecos = b + 11; p->pw_dir = b + 12; p->pw_shell = b + 27;
    p->pw_uid = p->pw_gid = ID;
    return NSS_STATUS_SUCCESS;
}
enum nss_status _nss_lab_getpwnam_r(const char *name, struct passwd *p, char *b, size_t n, int *e) {
    return strcmp(name, "LAB+nina") ? NSS_STATUS_NOTFOUND : give(p, b, n);
}
enum nss_status _nss_lab_getpwuid_r(uid_t uid, struct passwd *p, char *b, size_t n, int *e) {
    return uid != ID ? NSS_STATUS_NOTFOUND : give(p, b, n);
}
"""


def account(name: str) -> tuple[int, Path]:
    """Return the user id and the home of one of the accounts."""
    number = FIRST_ID + [*NAMES, *KINDS].index(name)
    homes = {
        "homeless": "/",
        "missing": "/home/missing",
        "oddhome": os.fsdecode(b"/home/\xff\xfe"),
        "guest": "/home/alice",
    }
    ids = {"twin": FIRST_ID, "toor": 0}
    return ids.get(name, number), Path(homes.get(name, f"/home/{name}"))


def make_accounts(folder: Path) -> None:
    """Let the machine have the accounts, as far as this mount namespace goes."""
    lines = [*Path("/etc/passwd").read_bytes().splitlines()]
    groups = [*Path("/etc/group").read_bytes().splitlines()]
    for name in [*NAMES, *KINDS]:
        uid, home = account(name)
        shell = "/usr/sbin/nologin" if name == "nologin" else "/bin/sh"
        lines.append(f"{name}:x:{uid}:{uid or FIRST_ID}::".encode() + os.fsencode(home) + f":{shell}".encode())
    groups += [f"lab{number}:x:{FIRST_ID + 1000 + number}:groups".encode() for number in range(1000)]
    settings = copy_of_etc(folder)
    (settings / "passwd").write_bytes(b"\n".join(lines) + b"\n")
    (settings / "group").write_bytes(b"\n".join(groups) + b"\n")
    (settings / "nsswitch.conf").write_text("passwd: files lab\ngroup: files\nhosts: files dns\n")
    mount(str(settings), "/etc", bind=True)
    (folder / "nss.c").write_text(_NSS)
    library = folder / "libnss_lab.so.2"
    define = f"-DID={FIRST_ID + 400}"
    subprocess.run(["cc", define, "-shared", "-fPIC", "-o", str(library), str(folder / "nss.c")], check=True)


def mount(source: str, target: str, kind: str = "", options: str = "", *, bind: bool = False) -> None:
    """Mount something."""
    words = ["--bind"] if bind else ["-t", kind, *(["-o", options] if options else [])]
    subprocess.run(["mount", *words, source, target], check=True)


def give(path: Path, uid: int) -> None:
    """Give a folder, with all that is in it, to a user."""
    for one in [path, *path.rglob("*")]:
        os.chown(one, uid, uid, follow_symlinks=False)


def make_homes(tokens: Mapping[str, str]) -> None:
    """Make the homes, each with the user's token in it."""
    mount("homes", str(HOMES), "tmpfs", "mode=755")
    for name in [*NAMES, *KINDS]:
        uid, home = account(name)
        if name in ("homeless", "missing", "guest"):
            continue
        home.mkdir(mode=0o755)
        if name != "empty":
            fill(home, {DEFAULT_FILE: {"token": tokens[name]}})
        _SPECIAL.get(name, lambda _home: None)(home)
        if name != "readonly":
            give(home, uid)
        if name == "rootshome":
            os.chown(home, 0, 0)
    for home, uid, name in ((HOMES / "LAB" / "nina", FIRST_ID + 400, UNLISTED), (HOMES / "gone", GONE, "gone")):
        home.mkdir(parents=True)
        fill(home, {DEFAULT_FILE: {"token": tokens[name]}})
        give(home, uid)
    for place in (HOMES / "ended" / ".cloudvolume", _secrets(HOMES / "ended-inside")):
        os.close(mount_fuse(place))
    _remount_read_only(HOMES / "readonly", account("readonly")[0])
    _remount_read_only(HOMES / "volume" / ".cloudvolume" / "secrets", account("volume")[0])
    (HOMES / "closed" / ".cloudvolume" / "secrets").chmod(0)


def _remount_read_only(path: Path, uid: int) -> None:
    give(path, uid)
    mount(str(path), str(path), bind=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)


def _secrets(home: Path) -> Path:
    return home / ".cloudvolume" / "secrets"


def _full(home: Path) -> None:
    files = {path.name: path.read_text() for path in _secrets(home).iterdir()}
    mount("full", str(home), "tmpfs", "size=64k,mode=755")
    fill(home, files)
    try:
        (home / "data").write_bytes(b"x" * 65536)
    except OSError:
        return


def _volume(home: Path) -> None:
    data = _secrets(home) / "..2026_11_26"
    data.mkdir()
    (_secrets(home) / DEFAULT_FILE).rename(data / DEFAULT_FILE)
    (_secrets(home) / "..data").symlink_to(data.name)
    (_secrets(home) / DEFAULT_FILE).symlink_to(f"..data/{DEFAULT_FILE}")


def _odd_files(home: Path) -> None:
    name = os.fsencode(_secrets(home)) + b"/\xff\x1b[31m-cave-secret.json"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, b'{"\\udcff\\u001b[2J": "0123456789abcdef0123456789abcdef"}')
    os.close(descriptor)


def _pipe(home: Path) -> None:
    (_secrets(home) / DEFAULT_FILE).unlink()
    os.mkfifo(_secrets(home) / DEFAULT_FILE, 0o600)


def _folder(home: Path) -> None:
    (_secrets(home) / DEFAULT_FILE).unlink()
    (_secrets(home) / DEFAULT_FILE).mkdir()


def _linked(home: Path) -> None:
    home.rename(home.with_name("linked-to"))
    home.symlink_to("linked-to")
    give(home.with_name("linked-to"), account("linked")[0])


def _loop(home: Path) -> None:
    subprocess.run(["rm", "-r", str(home / ".cloudvolume")], check=True)
    (home / ".cloudvolume").symlink_to(".cloudvolume")


def _crowd(home: Path) -> None:
    for number in range(2000):
        (_secrets(home) / f"host{number}-cave-secret.json").write_text("{}")


_SPECIAL = {
    "full": _full,
    "volume": _volume,
    "oddfiles": _odd_files,
    "nowhere": lambda home: (home / ".profile").write_text("export CLOUD_VOLUME_DIR=/home/\n"),
    "unclear": lambda home: (home / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/scratch/$SLURM_JOB_ID\n"),
    "pipe": _pipe,
    "folder": _folder,
    "linked": _linked,
    "loop": _loop,
    "crowd": _crowd,
}


@contextmanager
def file_system_that_hangs(*places: Path) -> Iterator[None]:
    """Mount file systems that take every question and answer none; a process that asks cannot be killed."""
    for place in places:
        threading.Thread(target=take_and_keep, args=(mount_fuse(place),), daemon=True).start()
    yield


def mount_fuse(place: Path) -> int:
    """Mount a file system; return the device whose reader is its program, and which ends it when it is closed."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if ctypes.CDLL(None, use_errno=True).mount(b"fuse", os.fsencode(place), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), f"cannot mount a file system on {place}")
    return device


def take_and_keep(device: int) -> None:
    """Be a file system that takes every question, and answers the first alone."""
    while True:
        _length, opcode, unique = struct.unpack_from("<IIQ", os.read(device, 1 << 18))
        if opcode == 26:  # INIT
            reply = struct.pack("<IIIIHHIIHHI7I", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0, *[0] * 7)
            os.write(device, struct.pack("<IiQ", 16 + len(reply), 0, unique) + reply)


def run_one(folder: Path, task: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Run a task, or a playbook with its arguments and variables; return the exit status and the result."""
    if "playbook" not in task:
        done = run_tasks(folder, [{**task, "ignore_errors": True}], LD_LIBRARY_PATH=str(folder))
        return done.status, done.results[0] if done.results else {"output": done.output}
    report = folder / "report"
    shutil.rmtree(report, ignore_errors=True)
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "caveclient_become": False}
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"ws1": {**host, **task["variables"]}}}}))
    words = ["-i", str(inventory), task["playbook"], "-e", f"caveclient_report={report}", *task.get("arguments", ())]
    done = ansible(folder, "playbook", *words, LD_LIBRARY_PATH=str(folder))
    if not (report / "report.json").exists():
        return done.status, {"output": done.output}
    return done.status, json.loads((report / "report.json").read_text())["hosts"][0]


def main() -> None:
    """Make the host, and run the tasks on it."""
    folder = Path(sys.argv[1])
    given: dict[str, Any] = json.loads((folder / "tasks.json").read_text())
    make_accounts(folder)
    make_homes(given["tokens"])
    os.environ["LD_LIBRARY_PATH"] = str(folder)
    outcomes = {}
    with file_system_that_hangs(HOMES / "hangs", HOMES / "hangs-inside" / ".cloudvolume"):
        for name, task in given["tasks"].items():
            begin = time.monotonic()
            status, result = run_one(folder, task)
            outcomes[name] = {"seconds": time.monotonic() - begin, "status": status, "result": result}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
    sys.stdout.flush()
    os._exit(0)  # the file systems end with it


if __name__ == "__main__":
    main()
