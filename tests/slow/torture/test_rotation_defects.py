# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The random labs find every defect that is put into what a rotation decides."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rotation_model
from torture.rotation_defects import DEFECTS, Defect

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "tests/unit/plugins/plugin_utils/_rotation/test_model.py"
STEPS = 20_000


def with_defect(defect: Defect) -> ModuleType:
    """Return the decision with a defect in it."""
    source = Path(decide.__file__).read_text()
    assert source.count(defect.found) == 1, "the text of the defect is not there (once)"
    module = ModuleType("decide_with_a_defect")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(defect.found, defect.instead), decide.__file__, "exec"), module.__dict__)  # noqa: S102 (that is how a module is run)
    return module


@pytest.mark.parametrize("name", DEFECTS)
def test_a_seeded_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("rotation_model_test", MODEL)
    assert spec is not None
    assert spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    defective = with_defect(DEFECTS[name])
    monkeypatch.setattr(rotation_model, "_decide", defective)
    monkeypatch.setattr(model, "_decide", defective)

    def search() -> None:
        # How soon a random lab meets a defect differs from process to process: one that is missed gets a longer search.
        for steps in (STEPS, 5 * STEPS):
            model.check(steps, shrink=False)

    with pytest.raises(AssertionError):
        search()
