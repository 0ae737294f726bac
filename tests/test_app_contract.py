"""The REST interface against its own description: whatever is sent, no answer is a 500, and each is as described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app_process import API, Running, running
from conftest import require

schemathesis = require("schemathesis")
general = require("schemathesis.checks")
of_openapi = require("schemathesis.specs.openapi.checks")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402

LASTING = "/events"  #: never ends
EXAMPLES = 12  #: of each operation


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("contract") / "app", workers=False) as server:
        yield server


@pytest.mark.long
def test_answers_are_as_described(server: Running) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    schema = schemathesis.openapi.from_url(f"{server.url}{API}/openapi.json", headers=headers)
    checks = [
        general.not_a_server_error,
        of_openapi.response_schema_conformance,
        of_openapi.content_type_conformance,
        of_openapi.status_code_conformance,
    ]
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(LASTING):
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers=headers, checks=checks)

        ask()
    assert asked > 100


def test_every_operation_is_described(server: Running) -> None:
    with server.client() as client:
        described = client.get("/openapi.json").json()
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) > 15
    assert all(operation["description"] for operation in operations)
