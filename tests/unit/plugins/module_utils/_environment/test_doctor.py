# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cave-doctor in its place on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment import doctor
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._doctor_file import build

OLD, NEW = (build({"version": version}) for version in ("0.1.0", "0.2.0"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    return folder / "cave-doctor"


def put(place: Path, content: bytes) -> None:
    """Install a program as the module does."""
    source = place.parent.parent / "brought"
    source.write_bytes(content)
    doctor.install(str(place), str(source))


def test_an_old_program_is_replaced_and_a_current_one_is_known(place: Path) -> None:
    put(place, OLD)
    assert not doctor.is_current(str(place), doctor.digest(NEW))
    put(place, NEW)

    assert doctor.is_current(str(place), doctor.digest(NEW))
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_program_that_not_everybody_can_run_is_not_current(place: Path) -> None:
    put(place, NEW)
    place.chmod(0o700)

    assert not doctor.is_current(str(place), doctor.digest(NEW))


def test_another_program_of_that_name_stays(place: Path) -> None:
    place.write_text("#!/bin/sh\n")

    with pytest.raises(CaveError, match="another program"):
        doctor.check_place(str(place))
    with pytest.raises(CaveError, match="another program"):
        doctor.remove(str(place))
    assert place.read_text() == "#!/bin/sh\n"


def test_a_folder_in_the_place_of_a_program_is_named(place: Path) -> None:
    for folder in (str(place.parent), f"{place}/"):
        with pytest.raises(CaveError, match=r"is a folder; expected the path of the program, such as .*/cave-doctor\."):
            doctor.check_place(folder)


def test_a_folder_in_which_others_can_write_is_refused(place: Path) -> None:
    place.parent.chmod(0o777)

    with pytest.raises(CaveError, match="everybody"):
        doctor.check_place(str(place))


def test_a_planted_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(OLD)
    place.symlink_to(target)

    with pytest.raises(CaveError, match="another program"):
        put(place, NEW)
    assert target.read_bytes() == OLD


def test_it_is_removed_and_nothing_is_left(place: Path) -> None:
    put(place, NEW)
    doctor.remove(str(place))

    assert list(place.parent.iterdir()) == []
    assert not doctor.is_there(str(place))
