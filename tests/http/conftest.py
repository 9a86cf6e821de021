"""Fixtures of the matrix: its stage stands once for all of its tests."""

from collections.abc import Iterator

import pytest

from tests.http.matrix import Stage, set_stage


@pytest.fixture(scope="session")
def matrix_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with set_stage(tmp_path_factory.mktemp("matrix")) as stage:
        yield stage


@pytest.fixture
def stage(matrix_stage: Stage) -> Iterator[Stage]:
    """The stage, on which no vendor may refuse anything, unless the test says that it expects that."""
    matrix_stage.reset()
    yield matrix_stage
    if not matrix_stage.expects_refusals:
        assert matrix_stage.refusals == []
