import pytest

from linkspan.plugins.docker_api.deviations import in_dockers_way
from linkspan.sdk.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    Unauthenticated,
    Unavailable,
)
from linkspan.sdk.http import AnswerError


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            Conflict("Bind for 0.0.0.0:80 failed", code="port_taken"),
            500,
            "Bind for 0.0.0.0:80 failed",
        ),
        (Internal("exists already", code="already_connected"), 403, "exists already"),
        (OutOfSpace("no space left"), 500, "no space left"),
        (Unavailable("registry is down"), 500, "registry is down"),
        (Unauthenticated("who are you"), 500, "who are you"),
        (
            InvalidArgument("open executable: Permission denied", code="command_not_executable"),
            400,
            "open executable: permission denied",
        ),
        (
            InvalidArgument("cannot run x", code="command_not_found"),
            400,
            "cannot run x: executable file not found",
        ),
    ],
)
def test_docker_has_its_own_status(error, status, text) -> None:
    found = in_dockers_way(error)
    assert isinstance(found, AnswerError)
    assert (found.status, found.message, found.code) == (status, text, error.code)


@pytest.mark.parametrize("error", [NotFound("x"), Conflict("x"), AnswerError("x", status=418)])
def test_other_errors_stay_as_they_are(error) -> None:
    assert in_dockers_way(error) is error


def test_a_node_in_no_swarm_is_told_dockers_text() -> None:
    found = in_dockers_way(Unavailable("no cluster", code="not_in_swarm"))
    assert isinstance(found, AnswerError)
    assert found.status == 503
    assert found.message.startswith("This node is not a swarm manager.")
