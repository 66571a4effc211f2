# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts and ports a datastack's record leads to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.addresses import addresses_in
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_and_port


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("graphene://https://minnie.microns-daf.com/segmentation/table/minnie65_public", "minnie.microns-daf.com:443"),
        ("graphene://middleauth+https://prodv1.flywire-daf.com/segmentation/1.0/fly_v31", "prodv1.flywire-daf.com:443"),
        ("precomputed://gs://iarpa_microns/minnie/minnie65/em", "storage.googleapis.com:443"),
        ("precomputed://s3://bossdb-open-data/iarpa", "bossdb-open-data.s3.amazonaws.com:443"),
        ("precomputed://https://images.example.org:8443/em", "images.example.org:8443"),
        ("https://spelunker.cave-explorer.org/", "spelunker.cave-explorer.org:443"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("gs://bucket|neuroglancer-precomputed:", "storage.googleapis.com:443"),
    ],
)
def test_each_form_of_a_source_leads_to_a_host_and_a_port(source: str, place: str) -> None:
    [(purpose, address)] = addresses_in({"segmentation_source": source})
    assert (purpose, host_and_port(address)) == ("segmentation", place)


def test_a_whole_record_names_what_each_address_is_for() -> None:
    record = {
        "local_server": "https://l.example.org",
        "segmentation_source": "graphene://https://s.example.org/segmentation/table/t",
        "viewer_site": "https://v.example.org/",
        "aligned_volume": {"image_source": "precomputed://gs://images"},
        "skeleton_source": None,
    }
    assert addresses_in(record) == (
        ("services", "https://l.example.org"),
        ("segmentation", "https://s.example.org"),
        ("viewer", "https://v.example.org"),
        ("images", "https://storage.googleapis.com"),
    )


@pytest.mark.parametrize(
    "place",
    ["https://h:99999/x", "https://h:0", "https://h:a", "https://[::1", "https://a]b", "https://[x]", "https://:1"],
)
def test_an_address_that_none_can_be_is_left_out(place: str) -> None:
    assert [host_and_port(address) for _purpose, address in addresses_in({"viewer_site": place})] == []


_KEYS = ("local_server", "segmentation_source", "viewer_site", "aligned_volume", "skeleton_source")


@given(st.dictionaries(st.sampled_from(_KEYS), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_a_record_with_anything_in_it_is_no_reason_to_fail(record: dict[str, Any]) -> None:
    for _purpose, address in addresses_in(record):
        assert "://" in address
        assert host_and_port(address)
