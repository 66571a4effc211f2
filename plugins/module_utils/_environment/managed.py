# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An environment that the module caveclient makes, below a path of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._environment import builds as _builds
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installer_errors as _errors
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pythons as _pythons
from ansible_collections.connectomics.cave.plugins.module_utils._environment.environment import (
    Answer,
    Contents,
    Environment,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import Python
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Mode, Options, Parcel
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import restore_labels


class Plan(NamedTuple):
    """What a request amounts to."""

    reasons: tuple[str, ...] = ()
    """Why something has to be done; empty: nothing has."""
    install: bool = False
    switch_to: _builds.Build | None = None
    remove: tuple[Path, ...] = ()


class Managed(Environment):
    """An environment in builds, with ``current`` pointing at the live one."""

    def __init__(self, options: Options, mode: Mode) -> None:
        super().__init__(options, mode)
        self.builds = _builds.Builds(options.path)
        self.place = self.builds.current
        self.python = str(self.builds.current / "bin" / "python")
        self.builds.check_place()

    def contents(self) -> Contents:
        """Return what is in the live build."""
        return self._contents_of(self.builds.live())

    @staticmethod
    def _contents_of(build: _builds.Build | None) -> Contents:
        if not build:
            return Contents()
        return Contents(_installed.installed_packages(build.site_packages), build.record["python"], build.path.name)

    # present

    def present(self) -> Answer:
        """Make the live build one that holds what is asked for."""
        _proof.check_open("path", str(self.builds.path))
        plan = self._plan()
        before = after = self.contents()
        if plan.install and (self.mode.plan or self.mode.check):
            python = self._choose_python()
            if self.mode.plan:
                return self.planned(plan.reasons, before, python)
            after = self.preview(python, fresh=True)
        elif plan.reasons and self.mode.check:
            after = self._contents_of(plan.switch_to) if plan.switch_to else before
        elif plan.reasons:
            with self.builds.locked(self.remaining()) as lock:
                plan = self._plan()  # another run may have done it meanwhile
                before = self.contents()
                self._apply(plan, lock)
                after = self.contents()
        return self.answer(plan.reasons, before, after)

    def _plan(self) -> Plan:
        reasons = []
        live = self.builds.live()
        suitable = None
        shortfalls = self._shortfalls(live) if live else ["no build is live"]
        if shortfalls:
            # Only a build that certainly is what was asked for is taken from the shelf.
            others = [build for build in self.builds.complete() if build != live]
            suitable = next((build for build in others if not self._shortfalls(build)), None)
            reasons += shortfalls
        leftovers = [] if self.mode.check and self.builds.is_busy() else self.builds.leftovers()
        reasons += [f"{path} was left by a run that was interrupted" for path in leftovers]
        surplus = [] if shortfalls else self.builds.surplus(live, self.options.keep)
        reasons += [f"{path} is more than the {self.options.keep} kept" for path in surplus]
        return Plan(tuple(reasons), bool(shortfalls) and not suitable, suitable, (*leftovers, *surplus))

    def _shortfalls(self, build: _builds.Build) -> list[str]:
        trouble = build.trouble()
        if trouble:
            return [trouble]
        asked, has = self.options.request.python, build.record["python"]
        if asked and not _is_python(asked, build.record):
            return [f"its Python is {has}, {asked} is asked for"]
        if not self._python_suits(has):
            return [f"its Python is {has}, which is too old"]
        return _installed.reasons_to_install(
            self.options.request, build.record, build.site_packages, str(build.python), self.environ
        )

    def _python_suits(self, version: str) -> bool:
        # A build that is there was asked for; only a request for something newer makes its Python too old.
        exact = self.options.request.exact_version
        return not exact or _pythons.installs_on(_pythons.numbers(version)[:2], exact)

    def _apply(self, plan: Plan, lock: int) -> None:
        for path in plan.remove:
            self.builds.remove(path)
        if plan.install:
            self.builds.switch(self._take(self.options.parcel) if self.options.parcel else self._build(lock))
        elif plan.switch_to:
            self.builds.switch(plan.switch_to)
        if plan.install or plan.switch_to:
            # What was live may be surplus now, or have turned out to be no whole build.
            for path in [*self.builds.leftovers(), *self.builds.surplus(self.builds.live(), self.options.keep)]:
                self.builds.remove(path)

    def _choose_python(self) -> Python:
        """Return the Python to build with.

        Raises:
            CaveError: there is none, or what it makes could not be started.
        """
        request = self.options.request
        python = _pythons.choose_python(request.python, request.exact_version)
        _proof.check_place("path", str(self.builds.path))
        for part in _trust.parts_of_python(python.executable):
            _proof.check_open("python", part)
        return python

    def _build(self, lock: int) -> _builds.Build:
        python = self._choose_python()
        place, work = self.builds.new_place()
        try:
            installer = self.find_installer(python, work, into_existing=False)
            source = self.source(work)
            made = _installers.make_environment(python, str(place), installer, self.environ, self.remaining())
            if made.returncode != 0:
                raise _errors.explain(made, source, f"make a virtual environment in {place}", self.remaining())
            place.chmod(0o700)  # until it is filled
            own_python = str(place / "bin" / "python")
            self.install(self.job(installer, own_python, source), work, lock)
            site_packages = _installed.site_packages_of(place, python.version)
            request = self.options.request
            restore_labels(str(place))
            try:
                _proof.check_imports(own_python, site_packages, request, self.environ, self.remaining(), held=(lock,))
                self.builds.prepare(place, python.version)
                _proof.check_users_can_import(own_python, site_packages, request, self.environ, self.remaining())
            except CaveError as error:
                raise CaveError(error.message, **{"installer_output": self.output, **error.details}) from error
            packages = _installed.installed_packages(site_packages)
            record = _installed.make_record(request, python.version, python.base, self.installed_with, packages)
            return self.builds.finish(place, record)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    # Builds of other hosts

    def pack(self, file: str) -> str:
        """Pack the live build into a new file for other hosts, and return the file's digest.

        Raises:
            CaveError: there is none that is what was asked for, or it holds what no other host is to have.
        """
        with self.builds.locked(self.remaining()):
            live = self.builds.live()
            shortfalls = self._shortfalls(live) if live else ["no build is live"]
            if not live or shortfalls:
                raise CaveError(f"The build is not for other hosts: {'; '.join(shortfalls)}.")
            return live.pack(file)

    def _take(self, parcel: Parcel) -> _builds.Build:
        """Unpack a build of another host and prove it here.

        Raises:
            CaveError: it is not what was packed there, or does not work here.
        """
        python, request = self._choose_python(), self.options.request
        build = self.builds.unpack(parcel, python.base)
        try:
            restore_labels(str(build.path))
            asked = _installed.make_record(request, python.version, python.base, "", {})
            has = _installed.installed_packages(build.site_packages)
            different = [key for key in ("request", "python") if build.record[key] != asked[key]]
            different += ["packages"] if has != build.record["packages"] else []
            trouble = f"other {different[0]} than asked for" if different else build.trouble()
            if trouble:
                raise CaveError(trouble)
            own_python = str(build.python)
            if os.geteuid() == 0:  # what it imports was compiled where it was built
                _proof.check_contents(build.site_packages, request)
                _proof.check_users_can_import(own_python, build.site_packages, request, self.environ, self.remaining())
            else:
                _proof.check_imports(own_python, build.site_packages, request, self.environ, self.remaining())
            self.installed_with = str(build.record.get("installer", ""))
            return self.builds.finish(build.path, {**build.record, "taken_from": parcel.host})
        except BaseException:
            shutil.rmtree(build.path, ignore_errors=True)
            raise

    # rolled_back

    def rolled_back(self) -> Answer:
        """Make the build live that was so before the one that is."""
        target = self._way_back()
        before = after = self.contents()
        if target:
            after = self._contents_of(target)
            if not self.mode.check:
                with self.builds.locked(self.remaining()):
                    target = self._way_back()
                    if target:
                        self.builds.switch(target, back=True)
                    after = self.contents()
        return self.answer((f"{target.path.name} was live before",) if target else (), before, after)

    def _way_back(self) -> _builds.Build | None:
        """Return the build to go back to; None when that has been done already."""
        live = self.builds.live()
        if live and live.is_way_back:
            return None
        earlier = self.builds.before_live()
        if not earlier:
            raise CaveError(
                f"There is no earlier build below {self.builds.folder} to go back to, or none that is whole. With "
                "keep: 1 or more, the next upgrade leaves one; for now, ask for that version with state: present."
            )
        return earlier

    # absent

    def absent(self) -> Answer:
        """Remove the environment with all its builds."""
        before = self.contents()
        reasons = (f"{self.builds.path} is there",) if self.builds.is_ours() else ()
        if reasons and not self.mode.check:
            with self.builds.locked(self.remaining()):
                self.builds.remove_all()
        return self.answer(reasons, before, Contents())


def _is_python(asked: str, record: Mapping[str, Any]) -> bool:
    if asked == record["request"]["python"]:
        return True
    if "/" in asked:
        return os.path.realpath(asked) == str(record["base"])
    return f"{record['python']}.".startswith(f"{asked}.")
