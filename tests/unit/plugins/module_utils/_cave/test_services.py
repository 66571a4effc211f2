# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the services of a datastack are said to do, by the answers of the stand-in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils._backends.verify_access import run
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_fit import unfit_packages
from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import SERVICES
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from cave_server import CaveServer

STACK = "minnie65_public"
DEFAULTS = arguments_of("verify_access")
PREFIXES = {
    "materialize": "/materialize",
    "chunkedgraph": "/segmentation",
    "l2cache": "/l2cache",
    "skeleton": "/skeletoncache",
    "annotation": "/annotation",
}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(cave: CaveServer, tmp_path: Path) -> Ask:
    """`ask("full")`: what is found for Alice, who may see the datastack that the stand-in serves."""
    token = cave.add_person("alice", [STACK]).token
    cave.serve(STACK)

    def verify(*services: str, **options: Any) -> dict[str, Any]:
        params = {
            **DEFAULTS,
            "server": cave.url,
            "token": token,
            "datastacks": [STACK],
            "path": str(tmp_path),
            "retries": 0,
            "services": list(services),
            **options,
        }
        cave.clear_requests()
        try:
            result = run(params)
        except CaveError as error:
            result = {"msg": error.message, **error.details}
        assert token not in str(result)
        user: dict[str, Any] = result["users"][0]
        assert user["verdict"] == result["verdict"]
        if user["verdict"] != "ok":
            assert user["message"] in result["msg"]
            assert len(user["remedy"]) > 20
        return user

    return verify


def by_service(user: dict[str, Any]) -> dict[str, str]:
    return {item["service"]: item["verdict"] for item in user["services"]}


ALL_OK = dict.fromkeys(SERVICES, "ok")


# How much is asked


@pytest.mark.parametrize(("way", "openly", "with_token"), [("reach", 5, 0), ("person", 1, 7), ("full", 6, 7)])
def test_a_look_at_the_services_costs_no_more_than_it_may(
    way: str, openly: int, with_token: int, ask: Ask, cave: CaveServer
) -> None:
    ask("none")
    usual = len(cave.requests())  # the token, and the datastack's record
    assert usual == 2
    user = ask(way)
    assert user["verdict"] == "ok"
    assert by_service(user) == ALL_OK
    asked = cave.requests()
    assert [request["method"] for request in asked] == ["GET"] * len(asked)
    assert len([request for request in asked if not request["fingerprint"]]) == openly <= 7
    assert len([request for request in asked if request["fingerprint"]]) == usual + with_token <= 2 + 7


def test_services_are_reached_over_one_connection_for_everybody(ask: Ask, cave: CaveServer) -> None:
    ask("reach", timeout=10)
    times = [request["time"] for request in cave.requests("/") if not request["fingerprint"]]
    assert len(times) == 5
    assert times == sorted(times)


def test_no_redirect_of_a_service_is_followed(ask: Ask, cave: CaveServer) -> None:
    cave.set_fault("/materialize", "redirect", location=f"{cave.url}/auth/api/v1/create_token", status=308)
    assert by_service(ask("full"))["materialize"] == "service_down"
    assert cave.requests("/auth/api/v1/create_token") == []
    assert len(cave.tokens("alice")) == 1


def test_named_services_alone_are_asked(ask: Ask, cave: CaveServer) -> None:
    assert by_service(ask("materialize", "skeleton")) == {"materialize": "ok", "skeleton": "ok"}
    assert cave.requests("/annotation") == cave.requests("/segmentation") == []


def test_a_name_that_is_no_service_is_refused(ask: Ask) -> None:
    with pytest.raises(KeyError):
        ask("materialise")
    with pytest.raises(CaveError, match="'materialise' is not the name of a service"):
        run({**DEFAULTS, "token": "0123456789abcdef0123456789abcdef", "services": ["materialise"]})


# What is down


@pytest.mark.parametrize("way", ["reach", "person", "full"])
@pytest.mark.parametrize("address", ["minnie.microns-daf.com", "https://h:99999", "https://[::1"])
def test_a_record_with_an_impossible_address_of_its_services_is_not_all_well(
    address: str, way: str, ask: Ask, cave: CaveServer
) -> None:
    cave.serve(STACK, address)
    user = ask(way)
    assert by_service(user) == {"all": "service_down"}
    assert f"Every service of {STACK}" in user["message"]


@pytest.mark.parametrize("way", ["reach", "person", "full"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_down_is_named_with_its_status(way: str, service: str, ask: Ask, cave: CaveServer) -> None:
    cave.set_fault(PREFIXES[service], "status", status=503)
    user = ask(way)
    assert by_service(user) == ALL_OK | {service: "service_down"}
    assert (user["verdict"], user["service"], user["status"]) == ("service_down", service, 503)
    assert f"The service {service} of {STACK} on {cave.url} answers 503" in user["message"]


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("status", {"status": 502}, "answers 502"),
        ("status", {"status": 504}, "answers 504"),
        ("html", {}, "answers with a web page"),
        ("cut", {}, "the connection broke off"),
        ("cut_body", {}, "the connection broke off"),
        ("not_http", {}, "not HTTP"),
        ("cut_json", {}, "answers what it should not"),
        ("hang", {}, "no complete answer within"),
        ("endless", {}, "larger than"),
        ("redirect", {"location": "https://elsewhere.example.org/"}, "sends programs elsewhere"),
    ],
)
def test_whatever_a_service_does_in_the_place_of_an_answer_it_is_down(
    kind: str, parameters: dict[str, Any], said: str, ask: Ask, cave: CaveServer
) -> None:
    cave.set_fault("/materialize", kind, **parameters)
    user = ask("full", timeout=4)
    assert by_service(user) == ALL_OK | {"materialize": "service_down"}
    assert said in user["message"]


def test_a_store_that_is_down_is_noticed_with_the_token_alone(ask: Ask, cave: CaveServer) -> None:
    cave.configure(broken=["materialize", "annotation", "segmentation"])
    assert by_service(ask("reach")) == ALL_OK
    user = ask("full")
    assert by_service(user) == ALL_OK | dict.fromkeys(["materialize", "annotation", "chunkedgraph"], "service_down")
    assert "answers 500 (503 failed to connect to the store)" in user["message"]


def test_a_service_that_is_not_there_is_no_trouble(ask: Ask, cave: CaveServer) -> None:
    cave.set_fault("/skeletoncache", "status", status=404)
    user = ask("full")
    assert user["verdict"] == "ok"
    (skeleton,) = [item for item in user["services"] if item["service"] == "skeleton"]
    assert skeleton["status"] == 404
    assert "There is no service skeleton" in skeleton["message"]


def test_what_is_wrong_with_all_of_them_is_said_once(ask: Ask, cave: CaveServer) -> None:
    for prefix in PREFIXES.values():
        cave.set_fault(prefix, "status", status=503)
    for way in ("reach", "full"):
        user = ask(way)
        assert by_service(user) == {"all": "service_down"}
        assert f"Every service of {STACK}" in user["message"]
    assert not [request for request in cave.requests("/materialize") if request["fingerprint"]]


def test_a_local_server_without_any_service_is_none(ask: Ask, cave: CaveServer) -> None:
    for prefix in PREFIXES.values():
        cave.set_fault(prefix, "status", status=404)
    assert by_service(ask("reach")) == {"all": "not_a_cave_server"}


@pytest.mark.parametrize("way", ["reach", "full", "person"])
def test_a_local_server_that_this_host_does_not_reach_is_blocked(way: str, ask: Ask, cave: CaveServer) -> None:
    cave.serve(STACK, "http://127.0.0.1:9")
    user = ask(way)
    assert by_service(user) == {"all": "service_blocked"}
    assert "This host does not reach 127.0.0.1:9" in user["message"]
    assert "connection refused" in user["message"]
    assert "firewall" in user["remedy"]


def test_a_users_server_is_the_auth_server_whatever_is_wrong_with_the_local_one(ask: Ask, cave: CaveServer) -> None:
    cave.serve(STACK, "http://127.0.0.1:9")
    user = ask("full")
    assert user["server"] == cave.url
    assert user["services"][0]["server"] == "http://127.0.0.1:9"


def test_a_local_server_of_an_unknown_name_is_blocked(ask: Ask, cave: CaveServer) -> None:
    cave.serve(STACK, "http://local.invalid")
    user = ask("reach")
    assert user["verdict"] == "service_blocked"
    assert "local.invalid:80" in user["message"]
    assert "cannot be resolved" in user["message"]


def test_a_certificate_that_is_not_trusted_on_the_way_to_the_services_is_a_tls_error(
    ask: Ask, cave: CaveServer, cave_tls: CaveServer
) -> None:
    cave.serve(STACK, cave_tls.url)
    user = ask("reach")
    assert by_service(user) == {"all": "tls_error"}
    assert cave_tls.url in user["message"]


# What a person may


def test_permissions_are_decided_without_a_question_to_the_service(ask: Ask, cave: CaveServer) -> None:
    cave.map_name("pychunkedgraph", STACK, "the_graph")
    user = ask("full")
    expected = dict.fromkeys(["chunkedgraph", "l2cache"], "missing_permission")
    assert by_service(user) == ALL_OK | expected
    assert "'view' for dataset the_graph" in user["message"]
    assert "needed by chunkedgraph, l2cache" in user["message"]
    assert not [request for request in cave.requests("/segmentation") if request["fingerprint"]]


def test_terms_of_service_of_another_dataset_are_named(ask: Ask, cave: CaveServer) -> None:
    terms = cave.add_terms("Volume Terms")
    cave.add_datastack("volume_terms", terms=terms)
    cave.set_permissions("alice", [STACK, "volume_terms"])
    cave.map_name("aligned_volume", "minnie65", "volume_terms")
    user = ask("full")
    assert by_service(user) == ALL_OK | {"annotation": "missing_tos"}
    assert user["url"] == f"{cave.url}/sticky_auth/api/v1/tos/{terms}/accept"


def test_a_service_that_refuses_a_good_token_does_not_make_it_dead(ask: Ask, cave: CaveServer) -> None:
    ask("none")  # the info service remembers the token
    cave.configure(auth_hiccup=429)
    ask("full")  # the services remember a refusal
    cave.configure(auth_hiccup=0)
    user = ask("full")
    assert set(by_service(user).values()) == {"ok", "service_down"}
    assert "refuses a token that the auth server accepts" in user["message"]


def test_a_token_that_the_info_service_refuses_is_not_dead_either(ask: Ask, cave: CaveServer) -> None:
    cave.configure(auth_hiccup=429)
    user = ask("none")
    assert user["verdict"] == "server_error"
    assert "The token is good" in user["message"]


def test_a_service_whose_own_token_is_dead_does_not_make_a_datastack_unknown(ask: Ask, cave: CaveServer) -> None:
    cave.configure(without_token=["materialize"])
    user = ask("full")
    assert by_service(user)["materialize"] == "service_down"
    assert "its own token may be dead" in user["message"]


def test_a_limit_is_told_from_an_outage(ask: Ask, cave: CaveServer) -> None:
    cave.set_fault("/skeletoncache/api/v1", "status", status=429)
    user = ask("full")
    assert by_service(user) == ALL_OK | {"skeleton": "rate_limited"}


def test_a_token_of_a_browsers_login_is_said_to_expire(ask: Ask, cave: CaveServer) -> None:
    assert ask("full")["token_kind"] == "key"
    user = ask("full", token=cave.log_in("alice"))
    assert (user["verdict"], user["token_kind"]) == ("ok", "expiring")
    assert "ends by itself within a week" in user["message"]


# Versions


@pytest.mark.parametrize(
    ("client", "service", "verdict"),
    [("8.2.1", "5.12.9", "incompatible_client"), ("8.2.1", "5.13.0", "ok"), ("7.9.0", "5.12.9", "ok")],
)
def test_a_service_that_is_too_old_for_the_installed_caveclient_is_named(
    client: str, service: str, verdict: str, ask: Ask, cave: CaveServer, tmp_path: Path
) -> None:
    (tmp_path / f"current/lib/python3.11/site-packages/caveclient-{client}.dist-info").mkdir(parents=True)
    cave.configure(versions={"materialize": service})
    user = ask("reach")
    assert by_service(user) == ALL_OK | {"materialize": verdict}
    if verdict != "ok":
        assert f"caveclient {client} needs materialize 5.13.0" in user["message"]


@pytest.mark.parametrize(
    ("client", "package", "verdict"),
    [
        ("8.2.1", "pandas-2.3.3", "ok"),
        ("8.2.1", "pandas-3.0.0", "incompatible_client"),
        ("5.31.0", "pandas-3.0.0", "incompatible_client"),
        ("8.2.1", "cloud_files-6.1.0", "ok"),
        ("8.2.1", "cloud_files-6.1.1", "incompatible_client"),
        ("8.2.1", "cloud_files-6.4.3", "ok"),
        ("5.31.0", "pyarrow-20.0.0", "incompatible_client"),
        ("5.31.0", "pyarrow-19.0.1", "ok"),
        ("8.2.1", "pyarrow-20.0.0", "ok"),
        ("5.31.0", "numpy-2.2.1", "incompatible_client"),
        ("5.31.0", "numpy-1.26.4", "ok"),
        ("8.2.1", "numpy-2.2.1", "ok"),
    ],
)
def test_a_package_that_caveclient_does_not_go_with_is_named_before_a_query_fails(
    client: str, package: str, verdict: str, ask: Ask, tmp_path: Path
) -> None:
    for name in (f"caveclient-{client}", package):
        (tmp_path / f"current/lib/python3.11/site-packages/{name}.dist-info").mkdir(parents=True)
    user = ask("reach")
    assert user["verdict"] == verdict
    if verdict != "ok":
        assert package.partition("-")[0].replace("_", "-") in user["message"]
        assert by_service(user) == ALL_OK | {"caveclient": verdict}


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12)), st.text(max_size=12))
def test_whatever_packages_are_called_they_can_be_judged(packages: dict[str, str], client: str) -> None:
    found = unfit_packages({**packages, "caveclient": client}, "https://x.example.org", STACK, "/opt/caveclient")
    assert found is None or found.verdict == "incompatible_client"


def test_what_asks_the_services_is_read_only_where_they_are_asked() -> None:
    package = run.__module__.rpartition("._backends")[0]
    script = f"import sys, {run.__module__}; print([n for n in sys.modules if n.startswith({package!r})])"
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert f"{package}._cave.probe'" in read
    assert not [name for name in ("services", "token_api", "client_fit") if f"{package}._cave.{name}'" in read]


def test_a_service_account_is_shown_as_such(ask: Ask, cave: CaveServer) -> None:
    robot = cave.add_person("robot", [STACK], parent=cave.person("alice"))
    user = ask("full", token=robot.token)
    assert user["person"]["service_account"] is True
    assert user["person"]["parent"] == cave.person("alice").id
    assert "the token of service account robot@serviceaccount" in user["message"]


def test_the_terms_that_a_service_account_owes_are_those_of_its_parent(ask: Ask, cave: CaveServer) -> None:
    owner = cave.add_person("owner", [STACK], accepted_tos=False)
    robot = cave.add_person("robot", [STACK], parent=owner)
    user = ask("full", token=robot.token)
    assert user["verdict"] == "missing_tos"
    assert (
        f"robot@serviceaccount is a service account: its terms are those of its parent account, number {owner.id}"
        in (user["message"])
    )
    assert "person of the parent account" in user["remedy"]
