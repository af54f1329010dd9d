import pytest

from linkspan.core.http.routing import RouteTable, split_version
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.http import AnswerError, Request, Response


async def answer(_: Request) -> Response:
    return Response()


async def other(_: Request) -> Response:
    return Response()


def table(*routes: str) -> RouteTable:
    routing = RouteTable()
    for route in routes:
        method, pattern = route.split(" ")
        routing.add(method, pattern, answer)
    return routing


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/containers/json", (1, 24), "/containers/json"),
        ("/v1.22/images/app/get", (1, 22), "/images/app/get"),
        ("/v1.50/_ping", (1, 50), "/_ping"),
        ("/containers/json", (1, 50), "/containers/json"),
        ("/volumes", (1, 50), "/volumes"),
        ("/version", (1, 50), "/version"),
        ("/linkspan/v1/runs", (1, 50), "/linkspan/v1/runs"),
    ],
)
def test_a_version_prefix_is_taken_off(path: str, version: tuple[int, int], rest: str) -> None:
    assert split_version(path) == (version, rest)


def test_an_old_client_is_told_dockers_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        split_version("/v1.21/info")
    assert caught.value.message == (
        "client version 1.21 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )


@pytest.mark.parametrize("version", ["1.51", "2.0", "99999999999999999999.1"])
def test_a_new_client_is_told_dockers_text(version: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        split_version(f"/v{version}/info")
    assert caught.value.message == (
        f"client version {version} is too new. Maximum supported API version is 1.50"
    )


def test_a_parameter_takes_one_segment() -> None:
    routing = table("GET /containers/{id}/json")
    assert routing.find("GET", "/containers/web/json").params == {"id": "web"}
    with pytest.raises(NotFound):
        routing.find("GET", "/containers/a/b/json")


def test_a_path_parameter_takes_slashes_and_leaves_the_tail_to_longer_routes() -> None:
    routing = table(
        "DELETE /images/{name:path}",
        "GET /images/{name:path}/json",
        "GET /images/{name:path}/history",
    )
    found = routing.find("GET", "/images/127.0.0.1:5057/team/json/json")
    assert found.params == {"name": "127.0.0.1:5057/team/json"}
    assert routing.find("DELETE", "/images/a/b:1").params == {"name": "a/b:1"}


def test_literal_routes_win_over_patterns() -> None:
    routing = RouteTable()
    routing.add("GET", "/volumes/{name}", other)
    routing.add("GET", "/volumes/prune", answer)
    assert routing.find("GET", "/volumes/prune").handler is answer


def test_a_pattern_answers_a_method_that_the_literal_route_has_not() -> None:
    routing = RouteTable()
    routing.add("POST", "/volumes/create", answer)
    routing.add("DELETE", "/volumes/{name}", other)
    assert routing.find("DELETE", "/volumes/create").handler is other


def test_head_falls_back_to_get() -> None:
    routing = table("GET /_ping", "GET /containers/{id}/json")
    assert routing.find("HEAD", "/_ping").pattern == "/_ping"
    assert routing.find("HEAD", "/containers/a/json").params == {"id": "a"}


def test_an_unknown_path_is_dockers_404() -> None:
    with pytest.raises(NotFound, match="page not found"):
        table("GET /info").find("GET", "/nothing")


def test_another_method_is_405_and_names_those_that_are_there() -> None:
    with pytest.raises(AnswerError) as caught:
        table("GET /info").find("PUT", "/info")
    assert caught.value.status == 405
    assert "GET" in caught.value.message


def test_the_same_route_twice_is_refused() -> None:
    routing = table("GET /info", "GET /containers/{id}/json")
    with pytest.raises(ValueError, match="twice"):
        routing.add("GET", "/info", answer)
    with pytest.raises(ValueError, match="twice"):
        routing.add("GET", "/containers/{id}/json", answer)
