"""Both HTTP interfaces, asked for all that their OpenAPI documents allow, and for much that they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.e2e.processes import ROOT
from tests.e2e.world import ADDRESSES, REGISTRY, World
from tests.faults.conftest import FULL

pytestmark = pytest.mark.faults

# Requests to each path, in each of the ways in which they are made.
EXAMPLES = 500 if FULL else 15
LIMITS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not FULL,
    suppress_health_check=list(HealthCheck),
)
# Left out: that whatever the document allows is taken. A name has more rules than a schema can say.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


def document(name: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(json.loads((ROOT / "docs" / "reference" / name).read_text()))


ADMIN, HELPER = document("openapi-admin.json"), document("openapi-helper.json")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running world that takes orders from whoever asks; at the end nothing has gone wrong in it."""
    with World(tmp_path_factory.mktemp("w")) as world:
        world.start()
        yield world
        for program in (world.proxy, world.helper):
            assert program.alive
            assert "Traceback" not in program.text()
        # Whatever was ordered can be undone; what was not is told by the exit code.
        for order in (("unfreeze",), ("unpin", REGISTRY)):
            world.command(*order)
        history = world.admin("/api/v1/history").json()
        assert (history["pinned"], history["frozen"]) == ([], None)
        assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]


@ADMIN.parametrize()
@LIMITS
def test_the_admin_endpoint_keeps_to_its_document(case: schemathesis.Case[Any], asked: World) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{asked.admin_port}", checks=CHECKS, timeout=30)


@HELPER.parametrize()
@LIMITS
def test_the_helper_keeps_to_its_document(case: schemathesis.Case[Any], asked: World) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{asked.helper_port}", checks=CHECKS, timeout=150)
