# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put known defects into a copy of the write path, and see which test notices.

    python -m torture.mutations [DEFECT ...]

prints for each defect the first test that fails as JSON; the exit status is 1 when a defect went unnoticed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
UNIT = "tests/unit/plugins/module_utils"
LIMIT = 600
"""Seconds for the tests of one defect."""


@dataclass(frozen=True)
class Defect:
    """A defect: the text to replace in one of the module_utils, and the tests that ought to notice."""

    about: str
    file: str
    found: str
    instead: str
    tests: tuple[str, ...]


STORE = ("_secrets/test_directory.py",)
SAVE = ("_secrets/test_writer.py",)
DEFECTS = {
    "follow-links": Defect(
        "O_NOFOLLOW is dropped, and links are no longer told apart",
        "_secrets/directory.py",
        "_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC",
        "_OPEN = os.O_CLOEXEC",
        ("_secrets/test_directory.py",),
    ),
    "no-file-sync": Defect(
        "the new file is not on the disk before it takes the old one's place",
        "_atomic.py",
        "            os.fsync(descriptor)\n",
        "",
        STORE,
    ),
    "no-directory-sync": Defect(
        "the rename is not on the disk when the run ends",
        "_atomic.py",
        "        os.fsync(directory)\n",
        "        pass\n",
        STORE,
    ),
    "readable-for-an-instant": Defect(
        "the new file is readable by others for an instant",
        "_atomic.py",
        "descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)",
        "descriptor = os.open(temporary, flags, 0o644, dir_fd=directory)\n    os.fchmod(descriptor, 0o600)",
        STORE,
    ),
    "not-exclusive": Defect(
        "a temporary name that somebody planted is taken for ours",
        "_atomic.py",
        "os.O_RDWR | os.O_CREAT | os.O_EXCL",
        "os.O_RDWR | os.O_CREAT | os.O_TRUNC",
        STORE,
    ),
    "in-place": Defect(
        "the file is written in place",
        "_atomic.py",
        "    temporary = temporary or temporary_name(name)\n",
        "    temporary = name\n    with contextlib.suppress(OSError):\n        os.unlink(name, dir_fd=directory)\n",
        STORE,
    ),
    "litter": Defect(
        "the temporary file stays when a write fails",
        "_atomic.py",
        "            os.unlink(temporary, dir_fd=directory)\n        raise",
        "            pass\n        raise",
        STORE,
    ),
    "by-path": Defect(
        "the file is written to the path, not in the directory that was opened",
        "_secrets/directory.py",
        "                self._descriptor,\n                name,\n                text.encode(),",
        "                os.open(self.path, os.O_RDONLY),\n                name,\n                text.encode(),",
        STORE,
    ),
    "no-lock": Defect(
        "two runs write at once",
        "_secrets/directory.py",
        "while not try_lock(descriptor):",
        "while False:",
        STORE,
    ),
    "lock-ends-early": Defect(
        "the lock ends when the process closes any other descriptor of the lock file",
        "_secrets/lock.py",
        "fcntl.fcntl(descriptor, _OFD_SETLK, _WHOLE_FILE)",
        "fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        SAVE,
    ),
    "another-servers-file": Defect(
        "a file named for a server that nobody asked about is changed",
        "_secrets/plan.py",
        "return own or family or ([] if _files.named_for(name) else self.servers)",
        "return own or family or self.servers",
        ("_secrets/test_plan.py",),
    ),
    "first-come": Defect(
        "which server has the default file depends on the order of the entries",
        "_secrets/plan.py",
        "self.servers = sorted(servers, key=lambda server: (server.host != _DEFAULT_HOST, server.host))",
        "self.servers = servers",
        ("_secrets/test_plan_properties.py",),
    ),
    "stale-plan": Defect(
        "what another run wrote meanwhile is lost",
        "_secrets/writer.py",
        "                session.look()  # again, under the lock: the files may have changed\n",
        "",
        SAVE,
    ),
    "wide-directories": Defect(
        "directories are made for all to read",
        "_secrets/directory.py",
        "os.mkdir(path, 0o700)",
        "os.mkdir(path, 0o755)",
        STORE,
    ),
    "strange-owner": Defect(
        "a link to somebody else's directory is followed",
        "_secrets/directory.py",
        "    if owner not in owners:",
        "    if False:",
        STORE,
    ),
    "still-root": Defect(
        "the child keeps root's user id",
        "_users.py",
        "        os.setuid(user.pw_uid)\n",
        "",
        ("test_users.py",),
    ),
    "own-groups": Defect(
        "the child keeps root's groups",
        "_users.py",
        '        os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])\n',
        "",
        ("test_users.py",),
    ),
    "folders-of-others": Defect(
        "what lies in a folder that others can write counts as root's",
        "_trust.py",
        "    if stat.S_ISLNK(mode) or not mode & 0o022:\n",
        "    if not stat.S_ISREG(mode) or not mode & 0o022:\n",
        ("test_trust.py",),
    ),
    "links-of-others": Defect(
        "a link counts for what it leads to, whoever made it",
        "_trust.py",
        "            steps.append(Step(here, info))\n",
        "            if not stat.S_ISLNK(info.st_mode):\n                steps.append(Step(here, info))\n",
        ("test_trust.py",),
    ),
    "lock-for-everybody": Defect(
        "every account can hold the lock of an environment",
        "_environment/lock.py",
        "    return stat.S_IMODE(info.st_mode) == 0o600 and info.st_uid == os.geteuid()\n",
        "    return True\n",
        ("_environment/test_builds.py::test_a_lock_that_another_account_may_have_opened_is_no_lock",),
    ),
    "any-archive": Defect(
        "the digest of a build that was brought is not compared",
        "_environment/archive.py",
        "        if _doctor.digest_of_file(parcel.file) != parcel.digest:\n",
        "        if not parcel.digest:\n",
        ("_environment/test_archive.py",),
    ),
    "up-from-behind-a-link": Defect(
        "a link of a build may go up from behind another link, out of the build",
        "_environment/archive.py",
        'any(part in ("", ".", "..") or',
        'any(part in ("", ".") or',
        ("_environment/test_archive.py",),
    ),
    "overwrite-malformed": Defect(
        "a malformed file is overwritten silently",
        "_secrets/writer.py",
        "        if unreadable or malformed:",
        "        if unreadable:",
        SAVE,
    ),
    "forget-quarantine-mode": Defect(
        "what is set aside stays readable by others",
        "_secrets/directory.py",
        "                    os.fchmod(descriptor, 0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600)\n",
        "                    pass\n",
        STORE,
    ),
    "write-in-check-mode": Defect(
        "check mode writes",
        "_secrets/writer.py",
        "            if not check_mode and session.differs():",
        "            if session.differs():",
        SAVE,
    ),
    "own-file-first": Defect(
        "stale files are written last, when nothing tells any more that they are stale",
        "_secrets/plan.py",
        "[*self.elsewhere, *self.defaults, *own, server_map]",
        "[*self.defaults, *own, server_map, *self.elsewhere]",
        SAVE,
    ),
    "token-in-the-diff": Defect(
        "the diff shows tokens",
        "_secrets/outcome.py",
        "return fingerprint(token) if isinstance(token, str) and token else None",
        "return token if isinstance(token, str) and token else None",
        SAVE,
    ),
    "token-in-messages": Defect(
        "a failure's message shows the token",
        "_backends/saved_token.py",
        'msg=mask(error.message, [entry.token or ""])',
        "msg=error.message",
        ("_backends/test_saved_token.py",),
    ),
    "misspelt-options-shown": Defect(
        "a token under a misspelt option is printed",
        "_masking.py",
        "        if option is None or (len(text)",
        "        if option is not None and (len(text)",
        ("test_masking.py",),
    ),
    "prove-later": Defect(
        "a rejected token is written",
        "_backends/saved_token.py",
        "        if not verdict.ok:",
        "        if False:",
        ("_backends/test_saved_token.py",),
    ),
    "token-logged": Defect(
        "a module logs what was raised, with what it quotes",
        "_errors.py",
        "else type(error).__name__",
        "else repr(error)",
        ("test_module.py",),
    ),
    "printed-while-handled": Defect(
        "a module fails while the error is being handled, which Ansible then prints",
        "_module.py",
        '        result = {"msg": unexpected(error)}\n',
        '        result = {"msg": unexpected(error)}\n        module.fail_json(**result)\n',
        ("test_module.py",),
    ),
    "unknown-errors-raised": Defect(
        "an error that nobody thought of goes on to Ansible, which prints it",
        "_module.py",
        "    except Exception as error:",
        "    except ZeroDivisionError as error:",
        ("test_module.py",),
    ),
    "arguments-to-callbacks": Defect(
        "callback plugins get a task's arguments",
        "../plugin_utils/_action.py",
        "            self._task.args = shown_arguments(given, self.spec)\n",
        "            pass\n",
        ("../plugin_utils/test_action.py",),
    ),
    "arguments-in-debug-output": Defect(
        "ANSIBLE_DEBUG prints a misspelt option's token",
        "../plugin_utils/_action.py",
        "    return shown_arguments(args, spec, hide)\n",
        "    return shown_arguments(args, {name: {} for name in args}, hide)\n",
        ("../plugin_utils/test_action.py",),
    ),
    "result-not-masked": Defect(
        "a token that got into a result is printed by the host",
        "_masking.py",
        "    for secret in secrets:\n        text = text.replace(secret, PART_HIDDEN)\n",
        "",
        ("test_basic.py",),
    ),
    "arguments-to-the-log": Defect(
        "the host's system log gets the arguments as they are",
        "_basic.py",
        "for key, value in self._shown.items()]",
        "for key, value in self.params.items()]",
        ("test_basic.py",),
    ),
    "mask-nothing": Defect(
        "what a server says is shown with the token in it",
        "_masking.py",
        '        text = text.replace(token, f"<token {fingerprint(token)}>")\n',
        "        pass\n",
        ("test_masking.py", "_cave/test_verdicts.py"),
    ),
    "mask-after-the-cut": Defect(
        "half a token is left where a text is cut",
        "_cave/verdicts.py",
        '    raw = mask(_ESCAPES.sub("", mask(raw[: 64 * limit + 65536], tokens)), tokens)\n',
        '    raw = mask(_ESCAPES.sub("", mask(raw[:limit], tokens)), tokens)\n',
        ("_cave/test_verdicts.py",),
    ),
    "follow-redirects": Defect(
        "a redirect is followed, with the token",
        "_cave/http.py",
        "                answer = Answer(response.status, found, self._body(response), url)\n",
        "                if response.status in (301, 302, 303, 307, 308):\n"
        '                    place = urllib.parse.urljoin(url, found["location"])\n'
        "                    self._hang_up()\n"
        "                    return self._exchange(message._replace(url=place))\n"
        "                answer = Answer(response.status, found, self._body(response), url)\n",
        ("_cave/test_http.py",),
    ),
    "token-to-the-proxy": Defect(
        "a proxy is told the token when it is asked for a tunnel",
        "_cave/http.py",
        "headers=_proxy_headers(proxy))",
        "headers={**self.messages[0].headers, **_proxy_headers(proxy)})",
        ("_cave/test_http.py::test_a_proxy_that_refuses_a_tunnel_never_sees_the_token",),
    ),
    "any-certificate": Defect(
        "certificates are not verified",
        "_cave/http.py",
        "            return tls_context(self.ca_path)\n",
        "            return ssl._create_unverified_context()\n",
        ("_cave/test_http.py::test_a_server_that_cannot_be_trusted_never_sees_the_token",),
    ),
    "anybodys-401": Defect(
        "a 401 of a proxy is taken for CAVE's word on a token",
        "_cave/refusals.py",
        '    if _is_of_a_gateway(answer):\n        return ""\n',
        "    if _is_of_a_gateway(answer):\n        return 'invalid_token'\n",
        ("_cave/test_answers.py",),
    ),
    "a-services-word": Defect(
        "a token is said to be dead when a service of a datastack refuses it",
        "_cave/services.py",
        '    if not isinstance(account, Verdict) or account.verdict != "invalid_token":\n        return verdicts\n',
        '    if not isinstance(account, Verdict):\n        account = Verdict("invalid_token", "")\n',
        ("_cave/test_services.py::test_a_service_that_refuses_a_good_token_does_not_make_it_dead",),
    ),
    "token-to-all": Defect(
        "services are asked with the token where none is needed",
        "_cave/services.py",
        "        return stack.local_server + service.open, None\n",
        "        return stack.local_server + service.open, asker.token\n",
        ("_cave/test_services.py::test_a_look_at_the_services_costs_no_more_than_it_may",),
    ),
    "refused-is-well": Defect(
        "a token that the server refuses is said to be good",
        "_cave/refusals.py",
        'return Verdict("invalid_token", message, remedy, server, url=token_page(server))',
        'return Verdict("ok", message, remedy, server, url=token_page(server))',
        ("_cave/test_answers.py",),
    ),
    "a-page-is-an-answer": Defect(
        "a login page that answers 200 is taken for CAVE",
        "_cave/answers.py",
        "    if answer.status != 200 or not answer.claims_json:",
        "    if answer.status != 200:",
        ("_cave/test_answers.py",),
    ),
    "a-link-anywhere": Defect(
        "a link that leads to another host is passed on",
        "_cave/verdicts.py",
        "    return parts.scheme in schemes and parts.netloc.lower() == host_of(server).lower()",
        "    return True",
        ("_cave/test_verdicts.py",),
    ),
}
SHORT = (
    "follow-links",
    "no-file-sync",
    "readable-for-an-instant",
    "still-root",
    "overwrite-malformed",
    "token-in-the-diff",
)
"""Those that every run of the tests tries."""


def run(names: Iterable[str], folder: Path, python: str) -> list[dict[str, Any]]:
    """Try defects; return for each which test noticed.

    Args:
        names: of the defects.
        folder: an empty one, for the copy.
        python: that has the tests' tools.
    """
    copy = folder / "ansible_collections" / "connectomics" / "cave"
    copy.mkdir(parents=True)
    for name in ("plugins", "roles", "tests/support", "tests/unit", "tests/conftest.py", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    chosen = {name: DEFECTS[name] for name in names}
    # A test that fails anyway would seem to catch everything.
    unsound = {
        tests: _first_failure(tests, copy, folder, python)[0] for tests in {item.tests for item in chosen.values()}
    }
    return [
        {
            "defect": name,
            **(
                {
                    "about": defect.about,
                    "caught_by": "",
                    "note": f"without the defect it fails, too: {unsound[defect.tests]}",
                }
                if unsound[defect.tests]
                else _try(defect, copy, folder, python)
            ),
        }
        for name, defect in chosen.items()
    ]


def _try(defect: Defect, copy: Path, tree: Path, python: str) -> dict[str, Any]:
    path = copy / "plugins" / "module_utils" / defect.file
    sound = path.read_text()
    if sound.count(defect.found) != 1:
        return {"about": defect.about, "caught_by": "", "note": f"{defect.file} has no such place any more"}
    path.write_text(sound.replace(defect.found, defect.instead))
    try:
        caught, said = _first_failure(defect.tests, copy, tree, python)
    finally:
        path.write_text(sound)
    return {"about": defect.about, "caught_by": caught, "note": "" if caught else said[-500:]}


def _first_failure(tests: Iterable[str], copy: Path, tree: Path, python: str) -> tuple[str, str]:
    """Run unit tests of the copy; return the first that fails (empty: none did), and what they printed."""
    words = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={_short_folder()}"]
    words += ["-o", f"pythonpath={tree} {copy / 'tests' / 'support'}", *(f"{UNIT}/{name}" for name in tests)]
    done = subprocess.run(
        words,
        cwd=copy,
        env={
            **os.environ,
            "PYTHONPATH": f"{tree}{os.pathsep}{copy / 'tests' / 'support'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CI": "true",  # hypothesis tries the same examples each time, however long they take
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    noticed = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py::\S+)", done.stdout, re.MULTILINE)
    return noticed.group(1) if noticed and done.returncode == 1 else "", done.stdout


def _short_folder() -> Path:
    """Return a place for tests that make sockets: the name of one has 107 characters at most."""
    return Path(tempfile.gettempdir(), f"cave-defects-{os.getpid()}")


def main() -> None:
    """Try defects from the command line."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        found = run(sys.argv[1:] or DEFECTS, Path(folder), sys.executable)
    for item in found:
        print(json.dumps(item))
    sys.exit(any(not item["caught_by"] for item in found))


if __name__ == "__main__":
    main()
