# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What managed and existing environments have in common: how an installation is previewed and carried out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._environment import installer_errors as _errors
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installers import Installer, Job
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import PROBE_TIMEOUT, Python
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Mode, Options, Source
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials


class Contents(NamedTuple):
    """What is in an environment, or would be."""

    packages: Mapping[str, str] = {}
    python_version: str = ""
    build: str = ""

    @property
    def version(self) -> str:
        """The version of its caveclient; empty without one."""
        return self.packages.get("caveclient", "")


class Answer(NamedTuple):
    """What was done to an environment, or would be."""

    reasons: tuple[str, ...] = ()
    """Why something had to be done; empty: nothing had."""
    before: Contents = Contents()
    after: Contents = Contents()
    needs: Mapping[str, Any] | None = None
    """What an installation needs from the controller, where the run stops before it."""
    description: str = ""
    """What that installation does, in words."""
    installed_with: str = ""
    output: str = ""
    """Of the installer."""

    def as_json(self) -> list[Any]:
        """Return it in a form that can be sent through a pipe."""
        return list(self)

    @classmethod
    def from_json(cls, values: list[Any]) -> Answer:
        """Return what ``as_json`` made a list of."""
        reasons, before, after, *others = values
        return cls(tuple(reasons), Contents(*before), Contents(*after), *others)


class Environment:
    """An environment for caveclient, as a task describes it."""

    place: Path
    """Its directory, as its users name it."""
    python: str
    """The Python that its users run."""

    def __init__(self, options: Options, mode: Mode) -> None:
        self.options = options
        self.mode = mode
        self.environ = _processes.clean_environment(os.environ)
        self.deadline = time.monotonic() + options.timeout
        self.output = ""
        self.installed_with = ""

    def contents(self) -> Contents:
        """Return what is there."""
        raise NotImplementedError

    def present(self) -> Answer:
        """Make it hold what is asked for."""
        raise NotImplementedError

    def absent(self) -> Answer:
        """Remove it, or caveclient from it."""
        raise NotImplementedError

    def rolled_back(self) -> Answer:
        """Go back to what was before."""
        raise NotImplementedError

    # Shared parts

    def remaining(self) -> float:
        """Return the seconds that are left of the time for the whole run."""
        return max(1.0, self.deadline - time.monotonic())

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Make a folder for this run alone, and remove it afterwards."""
        folder = _processes.private_folder("caveclient-", self.mode.tmpdir)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def source(self, work: Path) -> Source:
        """Return where packages come from, with the wheels of the controller unpacked.

        Raises:
            CaveError: a folder is not here, or root is not to use it.
        """
        links = []
        for link in self.options.source.find_links:
            if "://" not in link and not self.options.links_are_here:
                continue
            if "://" not in link and not Path("/", link).exists():
                raise CaveError(
                    f"find_links: {link} is not on this host. For a folder on the controller, set remote_src: false."
                )
            links.append(link)
        source = self.options.source._replace(find_links=tuple(links))
        _installers.check_sources(source, self.options.request, self.environ)
        if self.wants_wheels():
            if not self.options.from_controller.wheels:
                raise CaveError(
                    "find_links names a folder on the controller, and its wheels were not brought here: the module was "
                    "run without its action plugin. Set remote_src: true for a folder on this host."
                )
            wheels = work / "wheels"
            wheels.mkdir()
            _unpack(self.options.from_controller.wheels, wheels)
            source = source._replace(find_links=(*links, str(wheels)))
        return source

    def wants_wheels(self) -> bool:
        """Return whether a folder of the controller is asked for."""
        return not self.options.links_are_here and any("://" not in link for link in self.options.source.find_links)

    def needs(self, python: Python) -> dict[str, Any]:
        """Return what an installation needs from the controller."""
        return {
            "tools": _installers.missing_tools(self.options.installer, python, self.environ),
            "wheels": self.wants_wheels(),
            "host": _installers.host_facts(python),
        }

    def description(self, installer: str = "") -> str:
        """Return what an installation does, in words."""
        with_what = f" with {installer}" if installer else ""
        return f"install {self.options.request.named()} in {self.options.interpreter or self.options.path}{with_what}"

    def preview(self, python: Python, fresh: bool) -> Contents:
        """Return the environment as an installation would leave it.

        Raises:
            CaveError: it could not be installed.
        """
        with self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=not fresh)
            before = {} if fresh else dict(self.contents().packages)
            if not installer.can_preview:
                version = self.options.request.exact_version
                return Contents({**before, **({"caveclient": version} if version else {})}, python.version)
            job = self.job(installer, python.executable, self.source(work))
            outcome, found = _installers.preview(job, self.environ, work, fresh)
            if outcome.returncode != 0:
                raise self.failed(outcome, job)
            self.check_extras(outcome)
            return Contents({**before, **found}, python.version)

    def check_extras(self, outcome: _processes.Outcome) -> None:
        """Make sure that the installer has not left out an extra, of which it only warns.

        Raises:
            CaveError: it has.
        """
        lacking = _errors.unknown_extra_in(outcome.output + outcome.error)
        if lacking:
            raise _proof.unknown_extra(*lacking, known=set())

    def find_installer(self, python: Python, work: Path, into_existing: bool) -> Installer:
        """Return an installer that runs here; see choose_installer."""
        wanted, given = self.options.installer, self.options.from_controller
        timeout = min(PROBE_TIMEOUT, self.remaining())
        try:
            return _installers.choose_installer(wanted, python, given, self.environ, work, into_existing, timeout)
        except CaveError as error:
            needs = {**self.needs(python), "tools": error.details["needs"]}
            raise CaveError(error.message, needs=needs) from error

    def job(self, installer: Installer, python: str, source: Source) -> Job:
        """Return the job of installing what is asked for."""
        request = self.options.request
        return Job(
            installer,
            python,
            request.requirements,
            request.constraints,
            source,
            self.options.compile_all,
            self.remaining(),
        )

    def install(self, job: Job, work: Path, held: int) -> None:
        """Run the installer.

        Raises:
            CaveError: it failed.
        """
        outcome = _installers.install(job, self.environ, work, held=(held,))
        if outcome.returncode != 0:
            raise self.failed(outcome, job)
        self.installed_with = " ".join(job.installer[:2])
        self.output = mask_credentials(outcome.output + outcome.error)

    def failed(self, outcome: _processes.Outcome, job: Job) -> CaveError:
        """Return the error that a failed installer amounts to."""
        return _errors.explain(outcome, job.source, self.description(job.installer.kind), self.options.timeout)

    def answer(self, reasons: tuple[str, ...], before: Contents, after: Contents) -> Answer:
        """Return what was done, or would be."""
        return Answer(reasons, before, after, None, "", self.installed_with, self.output)

    def planned(self, reasons: tuple[str, ...], before: Contents, python: Python) -> Answer:
        """Return the answer of a run that stops before an installation."""
        return Answer(reasons, before, before, self.needs(python), self.description())


def _unpack(archive: str, folder: Path) -> None:
    """Unpack the files of an archive into one folder, by their names alone."""
    import tarfile  # only here, since its import alone takes as long as a run that changes nothing

    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isfile() else None
            if content:
                with content, (folder / Path(member.name).name).open("wb") as file:
                    shutil.copyfileobj(content, file)
