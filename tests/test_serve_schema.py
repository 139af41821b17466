"""The server against its own OpenAPI, by schemathesis: whatever comes, the answer is one that the page describes."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from families import build
from hosted import CLIPS, Hosted, hosted, picture, png
from hypothesis import HealthCheck, settings
from schemathesis import Config as SchemathesisConfig
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pdrop_video.serve import Limits, Settings, create_app

pytestmark = pytest.mark.usefixtures("watchdog")
PATH = "/v1/streaming/sessions"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    limits = Limits(deadline=60, answer=4, sessions=8)
    with hosted(Settings(folders=(CLIPS,), limits=limits), build("qwen2_5_vl")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Hosted) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


APP = create_app(build("qwen2_5_vl"))
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)  # with every border of every entry: 900 requests
few = SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": False}}})
drawn = schemathesis.openapi.from_asgi("/openapi.json", APP, config=few)
quiet = dict(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def tried(case: schemathesis.Case, server: Hosted, http: httpx.Client) -> None:
    """One request; to a session that is there, but for its events, which have no end."""
    if "session_id" in case.path_parameters and not case.path.endswith("/events"):
        for name in list(server.service.sessions._open):
            http.delete(f"{PATH}/{name}")
        case.path_parameters["session_id"] = name = http.post(PATH).json()["id"]
        frame = {"image": base64.b64encode(png(picture(1, 28, 28))).decode(), "seconds": 0}
        http.post(f"{PATH}/{name}/frames", json={"frames": [frame]})
    answer = case.call(base_url=server.url, timeout=60, headers={"origin": None})
    case.validate_response(answer, checks=CHECKS)


@drawn.parametrize()
@settings(max_examples=5, **quiet)
def test_every_answer_is_one_that_is_described(case: schemathesis.Case, server: Hosted, http: httpx.Client) -> None:
    tried(case, server, http)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=300, **quiet)
def test_every_answer_is_one_that_is_described_at_length(
    case: schemathesis.Case, server: Hosted, http: httpx.Client
) -> None:
    tried(case, server, http)
