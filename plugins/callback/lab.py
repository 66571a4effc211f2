# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run prints while it works: a line for each host with news, and the report last."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lab
type: stdout
short_description: Print one line per host at work, and the report last
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Prints the name of a task, then one line for each host with news (changed, failed, unreachable), and one line for
    all hosts without. Only problems are red.
  - Identical diffs of several hosts are printed once, with the names of these hosts.
  - The report of C(connectomics.cave.fleet_report) replaces Ansible's recap, as the last thing on the screen. A run
    without a report ends with one line of counts, and one for each host that is not fine.
  - When nothing happens for a while, a line says which hosts it waits for, and how many are done.
  - When a run is interrupted or stops with an error, a line says how far it got.
  - With C(-v) and more, it prints what Ansible's own C(default) callback prints.
requirements:
  - set as stdout in configuration
options:
  patience:
    description: Seconds of silence after which it says what it waits for.
    type: float
    default: 30
    version_added: 0.1.0
    env:
      - name: CONNECTOMICS_CAVE_LAB_PATIENCE
    ini:
      - section: callback_lab
        key: patience
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# stdout_callback = connectomics.cave.lab
"""

import atexit
import os
import textwrap
import threading
import time
from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import AFTER_A_STOP

_REPORT = "connectomics.cave.fleet_report"
_VALIDATION = "Validating arguments against arg spec"  # Ansible's name for it, which is longer than a line


class CallbackModule(Default):
    """See the documentation above."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "connectomics.cave.lab"

    def __init__(self) -> None:
        super().__init__()
        self._own_play = False  # a play around the report, whose tasks are no news
        self._heading = ""  # of the play, until something is printed below it
        self._task_name = ""
        self._fine: list[str] = []  # hosts without news in the present task
        self._skipped: list[str] = []
        self._running: dict[str, float] = {}  # hosts that work on it, and since when
        self._seen = 0  # hosts that are done with it
        self._diffs: dict[str, list[str]] = {}
        self._last_word = time.monotonic()
        self._reported: set[str] = set()  # hosts of which a report says that they are not done
        self._cut: dict[str, str] = {}  # what is wrong with a host, where its line had no room for it
        self._has_report = False
        self._report_follows = False  # and says all that a line here has no room for
        self._ended = True
        self._pid = os.getpid()
        self._over = threading.Event()
        self._printing = threading.Lock()  # held by the thread alone, so that no worker is copied while it prints

    @property
    def _verbose(self) -> bool:
        return bool(self._display.verbosity)

    # The run ----------------------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Note that a run has begun, so that its end can be told from an interruption."""
        super().v2_playbook_on_start(playbook)
        self._ended = False
        atexit.register(self._say_where_it_stopped)
        if not self._verbose:
            release = self._printing.release
            os.register_at_fork(before=self._printing.acquire, after_in_parent=release, after_in_child=release)
            threading.Thread(target=self._watch, args=(float(self.get_option("patience")),), daemon=True).start()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End with the report, or without one with the counts."""
        self._end_task()
        self._ended = True
        self._over.set()
        if self._verbose:
            super().v2_playbook_on_stats(stats)
            return
        wrong = sorted({*stats.failures, *stats.dark})
        if not stats.processed:
            self._say("No task ran.", constants.COLOR_ERROR)
        elif not self._has_report:
            self._say("")
            total = len(stats.processed)
            self._say(f"{_count(total, 'host')}: {total - len(wrong)} ok, {len(wrong)} failed")
        for host in wrong:
            if host not in self._reported:
                what = "unreachable" if host in stats.dark else "failed"
                self._say(f"{host}: {self._cut.get(host, f'{what}, see above')}", constants.COLOR_ERROR)

    def _say_where_it_stopped(self) -> None:
        """Print where a run was that ended without its end."""
        if self._ended or not self._task_name or os.getpid() != self._pid:
            return
        self._ended = True
        self._over.set()
        waiting = f"; not done: {_shortened(list(self._running))}" if self._running else ""
        done = f"after {_count(self._seen, 'host')}{waiting}"
        self._say(f'Stopped in the task "{self._task_name}", {done}. {AFTER_A_STOP}')

    def _watch(self, patience: float) -> None:
        """Say, in a thread of its own, what the run waits for whenever nothing has been said for so many seconds."""
        while not self._over.wait(max(0.05, self._last_word + patience - time.monotonic())):
            with self._printing:
                waiting = self._running.copy()
                if waiting and time.monotonic() - self._last_word >= patience:
                    longest = time.monotonic() - min(waiting.values())
                    done = f"; {_count(self._seen, 'host')} done" if self._seen else ""
                    self._say(f"    waiting for {_shortened(list(waiting))} ({longest:.0f} s{done})")
                elif not waiting:
                    self._last_word = time.monotonic()

    # Plays and tasks --------------------------------------------------------------------------------------------------

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Print the name of the play as soon as it has news."""
        self._end_task()
        self._task_name = ""
        if self._verbose:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._own_play = bool(play.get_vars().get("__caveclient_around_report"))
        self._report_follows = self._report_follows or (self._own_play and not self._has_report)
        self._heading = play.get_name().strip()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Print the name of the task."""
        if self._verbose:
            super().v2_playbook_on_task_start(task, is_conditional)
        else:
            self._begin_task(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Print the name of the handler."""
        if self._verbose:
            super().v2_playbook_on_handler_task_start(task)
        else:
            self._begin_task(task)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say nothing: the report says why no host matched."""
        if self._verbose:
            super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Say nothing: the hosts have been named."""
        if self._verbose:
            super().v2_playbook_on_no_hosts_remaining()

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Say nothing: what is included has names of its own."""
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    def _begin_task(self, task: Any) -> None:
        self._end_task()
        if self._own_play or getattr(task, "action", "") in constants._ACTION_META:
            self._task_name = ""
            return
        if self._heading:
            self._say("")
            self._say(self._heading)
            self._heading = ""
        name = task.get_name().strip().rpartition(" : ")[2]
        self._task_name = "Check the variables" if name.startswith(_VALIDATION) else name
        self._say(f"  {self._task_name}")

    def _end_task(self) -> None:
        """Print what the hosts of a task have in common."""
        for hosts, word in ((self._fine, "ok"), (self._skipped, "skipped")):
            if hosts:
                self._say(f"    {', '.join(hosts) if len(hosts) <= 3 else _count(len(hosts), 'host')}: {word}")
        for text, hosts in self._diffs.items():
            same = f" (and the same on {len(hosts) - 1} more: {_shortened(hosts[1:])})" if len(hosts) > 1 else ""
            self._say(f"    {hosts[0]}{same}:")
            self._say(textwrap.indent(text.rstrip("\n"), "      "))
        self._fine, self._skipped, self._diffs, self._seen = [], [], {}, 0
        self._running.clear()

    # Results ----------------------------------------------------------------------------------------------------------

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note that a host has begun."""
        super().v2_runner_on_start(host, task)
        if not self._own_play:
            self._running[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a host that was changed, and count one that was not."""
        if self._verbose:
            super().v2_runner_on_ok(result)
            return
        found = self._of(result)
        self._handle_warnings(found)
        report = found.get("ansible_facts", {}).get("cave_report") if self._action(result) == _REPORT else None
        if report is not None:
            self._has_report, self._report_follows = True, False
            self._reported.update(report.get("not_done", {}))
        if self._own_play:
            return
        host = self._done(result)
        if self._action(result) in constants._ACTION_DEBUG or found.get("_ansible_verbose_always"):
            self._news(host, str(found.get("msg", "")))
        elif found.get("changed"):
            self._news(host, "would be changed" if self._task_in_check_mode(result) else "changed")
        else:
            self._fine.append(host)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Print why a host failed, in one line when a report follows that says the rest."""
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._wrong(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print why a host could not be reached."""
        if self._verbose:
            super().v2_runner_on_unreachable(result)
            return
        self._wrong(result, "unreachable")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Count a host that had nothing to do."""
        if self._verbose:
            super().v2_runner_on_skipped(result)
        elif not self._own_play:
            self._skipped.append(self._done(result))

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Say nothing: the result of the loop is news enough."""
        if self._verbose:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Print which item failed."""
        if self._verbose:
            super().v2_runner_item_on_failed(result)
        else:
            self._wrong(result, f"failed ({self._get_item_label(self._of(result))})", is_item=True)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """Say nothing."""
        if self._verbose:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_retry(self, result: Any) -> None:
        """Say that a task is tried again."""
        if self._verbose:
            super().v2_runner_retry(result)
        else:
            found = self._of(result)
            why = " ".join(str(found.get("msg", "")).split()).removesuffix(".")
            line = f"{time.strftime('%H:%M:%S')} tried {_count(found.get('attempts', 1), 'time')}, again: {why}"
            room = max(40, self._display.columns - len(self._host(result)) - 7)
            self._news(self._host(result), line if len(line) <= room else f"{line[:room]}...")

    def v2_on_file_diff(self, result: Any) -> None:
        """Keep a diff until all hosts are done: those that are the same are printed once."""
        if self._verbose:
            super().v2_on_file_diff(result)
            return
        found = self._of(result)
        for item in found.get("results", [found]) if isinstance(found.get("results"), list) else [found]:
            if item.get("diff") and item.get("changed"):
                text = self._get_diff(item["diff"])
                if text.strip():
                    self._diffs.setdefault(text, []).append(self._host(result))

    def _wrong(self, result: Any, what: str, is_item: bool = False) -> None:
        is_report = self._action(result) == _REPORT
        is_quiet = self._own_play and not is_report
        if is_quiet and self._has_report:
            return  # it has said it
        host = self._host(result) if is_item else self._done(result)
        found = self._of(result)
        self._handle_warnings(found)
        message = " ".join(
            str(found.get("msg") or found.get("module_stderr") or found.get("reason") or "no message").split()
        )
        for prefix in ("Task failed: ", "Module failed: ", "Action failed: "):
            message = message.removeprefix(prefix)
        colour = constants.COLOR_SKIP if what == "ignored" else constants.COLOR_ERROR
        if is_quiet:
            self._cut[host] = f"{what}: {message}"  # no report may follow
            return
        if self._own_play:
            self._say("")
            self._say(f"FAILED   {message}", colour)
            self._reported.add(host)
            return
        line = f"{what}: {message}"
        room = max(40, self._display.columns - len(host) - 7)
        if self._report_follows and len(line) > room:
            self._cut[host] = line  # should there be no report after all
            line = f"{line[:room]}..."
        self._news(host, line, colour)

    # Words ------------------------------------------------------------------------------------------------------------

    def _news(self, host: str, text: str, colour: str | None = None) -> None:
        self._say(f"    {host}: {text}", colour)

    def _done(self, result: Any) -> str:
        """Count a host that has ended its work on the present task, and return its name."""
        host = self._host(result)
        self._running.pop(host, None)
        self._seen += 1
        return host

    def _say(self, text: str, colour: str | None = None) -> None:
        self._last_word = time.monotonic()
        self._display.display(text, color=colour)

    @staticmethod
    def _of(result: Any) -> dict[str, Any]:
        found = result._result
        return found if isinstance(found, dict) else dict(found) if isinstance(found, Mapping) else {}

    @staticmethod
    def _host(result: Any) -> str:
        return str((getattr(result, "host", None) or result._host).get_name())

    @staticmethod
    def _task(result: Any) -> Any:
        return getattr(result, "task", None) or result._task

    def _action(self, result: Any) -> str:
        return str(self._task(result).action)

    def _task_in_check_mode(self, result: Any) -> bool:
        return bool(self._task(result).check_mode)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 9 else ", ".join(names[:8]) + f" and {len(names) - 8} more"
