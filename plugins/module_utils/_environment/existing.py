# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody's environment, named by its Python, that caveclient is installed into."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installer_errors as _errors
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment import lock as _lock
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pythons as _pythons
from ansible_collections.connectomics.cave.plugins.module_utils._environment.builds import open_to_all
from ansible_collections.connectomics.cave.plugins.module_utils._environment.environment import (
    Answer,
    Contents,
    Environment,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import Python
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Mode, Options, Source
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials

_LOCK = ".caveclient.lock"
_REMEDY = "Let root alone write there, or leave 'interpreter' out for an environment below 'path'."


class Existing(Environment):
    """An environment that was there before."""

    def __init__(self, options: Options, mode: Mode) -> None:
        super().__init__(options, mode)
        self.python = options.interpreter
        path = Path(options.interpreter)
        if not path.is_absolute() or path.is_dir() or not os.access(path, os.X_OK):
            raise CaveError(
                f"interpreter: {path} is not a Python. Give the absolute path of the environment's Python, "
                "such as /opt/conda/envs/lab/bin/python."
            )
        self.place = path.parent.parent
        self.known = self._from_files()

    def _from_files(self) -> tuple[str, Path]:
        """Return the version of the environment's Python and its packages' folder; starts it only when it must."""
        version = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in (self.place / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
                key, _equals, value = line.partition("=")
                if key.strip() in ("version", "version_info"):
                    version = value.strip()
        folders = [path for path in self.place.glob("lib/python3.*/site-packages") if path.is_dir()]
        if version and _installed.site_packages_of(self.place, version) in folders:
            return version, _installed.site_packages_of(self.place, version)
        if (self.place / "conda-meta").is_dir() and len(folders) == 1:
            return folders[0].parent.name[len("python") :], folders[0]
        python = self.probe()
        self.place = Path(python.prefix)  # of a link or script elsewhere
        return python.version, Path(python.site_packages)

    def probe(self) -> Python:
        """Ask the environment's Python what it is.

        Raises:
            CaveError: it does not run.
        """
        python = _pythons.probe(self.python)
        if not python:
            raise CaveError(f"interpreter: {self.python} does not run, so it is not a Python of this host.")
        return python

    def contents(self) -> Contents:
        """Return what is there."""
        version, site_packages = self.known
        return Contents(_installed.installed_packages(site_packages), ".".join(version.split(".")[:2]))

    def _reasons(self) -> tuple[str, ...]:
        record = _installed.read_record(self.place)
        request, packages = self.options.request, self.known[1]
        return tuple(
            _installed.reasons_to_install(request, record, packages, self.python, self.environ, self._check_contents)
        )

    def _check_contents(self) -> None:
        """Make sure that root imports, and has an installer run, nothing in it that somebody else can change.

        Raises:
            CaveError: somebody can.
        """
        library = self.place / "lib" if (self.place / "conda-meta").is_dir() else self.known[1]
        _trust.check("interpreter", str(library), _REMEDY, everything=True)

    def present(self) -> Answer:
        """Install into the environment what is asked for and not there."""
        reasons = self._reasons()
        before = after = self.contents()
        if not reasons:
            return self.answer(reasons, before, after)
        python = self._checked_python()
        if self.mode.plan:
            return self.planned(reasons, before, python)
        if self.mode.check:
            after = self.preview(python, fresh=False)._replace(python_version=before.python_version)
        else:
            with self._locked() as lock:
                reasons = self._reasons()
                if reasons:
                    self._install(python, lock)
            after = self.contents()
        return self.answer(reasons, before, after)

    def _checked_python(self) -> Python:
        _proof.check_place("interpreter", str(self.place))
        self._check_contents()
        python = self.probe()
        _trust.check("interpreter", python.base, _REMEDY)
        if python.externally_managed and not python.is_venv:
            raise CaveError(
                f"interpreter: {self.python} belongs to the operating system, which forbids installing into it "
                "(EXTERNALLY-MANAGED). Leave 'interpreter' out for an environment of its own below 'path', or give the "
                "Python of a virtual environment."
            )
        if not _pythons.installs_on(python.release, self.options.request.exact_version):
            raise CaveError(
                f"interpreter: {self.python} is Python {python.version}; caveclient needs 3.9 or later (an older one "
                "would get caveclient 7.3.1 without a word). Use a newer environment, or ask for an exact version that "
                "is 7.3.1 or older."
            )
        return python

    def _install(self, python: Python, lock: int) -> None:
        request = self.options.request
        with self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=True)
            self.install(self.job(installer, self.python, self.source(work)), work, lock)
        _proof.check_imports(self.python, self.known[1], request, self.environ, self.remaining(), held=(lock,))
        if os.geteuid() == 0 and not _trust.closed_to_others(self.python):  # they could start it before
            open_to_all(self.known[1], closed=0)
            _proof.check_users_can_import(self.python, self.known[1], request, self.environ, self.remaining())
        packages = _installed.installed_packages(self.known[1])
        record = _installed.make_record(request, python.version, python.base, self.installed_with, packages)
        _installed.write_record(self.place, record)

    def absent(self) -> Answer:
        """Take caveclient out of the environment, and nothing else."""
        before = self.contents()
        after = before._replace(packages={name: v for name, v in before.packages.items() if name != "caveclient"})
        reasons = ("caveclient is installed",) if before.version else ()
        if reasons:
            self._check_contents()
        if reasons and self.mode.plan:
            needs = self.needs(self.probe())
            if needs["tools"]:
                description = f"remove caveclient from {self.python}"
                return Answer(reasons, before, before, {**needs, "wheels": False}, description)
        if reasons and not self.mode.check:
            self._uninstall()
        return self.answer(reasons, before, after)

    def _uninstall(self) -> None:
        python = self.probe()
        with self._locked(), self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=True)
            outcome = _installers.uninstall(installer, self.python, self.environ, self.remaining())
            self.output = mask_credentials(outcome.output + outcome.error)
            if outcome.returncode != 0:
                doing = f"remove caveclient from {self.python} with {installer.kind}"
                raise _errors.explain(outcome, Source(), doing, self.options.timeout)
            (self.place / _installed.RECORD).unlink(missing_ok=True)
        self.installed_with = " ".join(installer[:2])

    def rolled_back(self) -> Answer:
        """Say that there is nothing to go back to."""
        raise CaveError(
            f"state: rolled_back needs a managed environment (the option 'path'): of {self.python} no earlier build is "
            "kept. Ask for the earlier version with state: present."
        )

    def _locked(self) -> contextlib.AbstractContextManager[int]:
        """Keep another run away from the environment meanwhile."""
        return _lock.locked(self.place / _LOCK, self.remaining(), remove=True)
