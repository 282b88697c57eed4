"""Which Kafka the tests take, and what happens without one."""

from __future__ import annotations

import pytest
from support.cluster import choose, is_required


@pytest.mark.parametrize(
    ("environ", "has_docker", "has_java", "chosen"),
    [
        ({"EVALUATOR_TEST_KAFKA": "broker:9092"}, True, True, "given"),
        ({}, True, True, "docker"),
        ({}, False, True, "java"),
        ({"EVALUATOR_TEST_KAFKA": ""}, False, False, None),
    ],
)
def test_a_given_broker_comes_before_docker_and_docker_before_java(
    environ: dict[str, str],
    has_docker: bool,  # noqa: FBT001  # a parameter of the test
    has_java: bool,  # noqa: FBT001  # see above
    chosen: str | None,
) -> None:
    assert choose(environ, has_docker=has_docker, has_java=has_java) == chosen


def test_without_a_broker_it_is_a_failure_where_skipping_would_hide_something() -> None:
    assert [is_required(e) for e in ({}, {"CI": "true"}, {"REQUIRE_KAFKA": "1"}, {"CI": "false"})] == [
        False, True, True, False,
    ]  # fmt: skip
